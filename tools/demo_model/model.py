"""The demo model in torch, written to compute what llama.cpp computes for `internvl` + `qwen2`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """Sizes of both halves; every field is written to the GGUF metadata or implied by a tensor."""

    image_size: int = 96
    patch_size: int = 16
    vit_dim: int = 128
    vit_layers: int = 4
    vit_heads: int = 4
    vit_ff: int = 384
    shuffle: int = 2
    dim: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    ff: int = 320
    vocab: int = 0
    rope_base: float = 10_000.0
    rms_eps: float = 1e-6
    ln_eps: float = 1e-6

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def image_tokens(self) -> int:
        """Tokens one tile costs after the pixel shuffle."""
        return (self.grid // self.shuffle) ** 2

    def to_dict(self) -> dict[str, int | float]:
        """Plain values for a checkpoint."""
        return asdict(self)


class VitBlock(nn.Module):
    """One InternViT layer: pre-norm attention and MLP, each with a learned layer scale."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        d = c.vit_dim
        self.heads = c.vit_heads
        self.ln1 = nn.LayerNorm(d, eps=c.ln_eps)
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.ls1 = nn.Parameter(torch.full((d,), 0.5))
        self.ln2 = nn.LayerNorm(d, eps=c.ln_eps)
        self.up = nn.Linear(d, c.vit_ff)
        self.down = nn.Linear(c.vit_ff, d)
        self.ls2 = nn.Parameter(torch.full((d,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens in, tokens out."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d)
        x = x + self.out(y) * self.ls1
        y = self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))
        return x + y * self.ls2


class Vision(nn.Module):
    """ViT with a class token in the last place, pixel shuffle and the two-layer projector."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        d = c.vit_dim
        self.patch = nn.Linear(3 * c.patch_size**2, d)
        self.cls = nn.Parameter(torch.randn(d) * 0.02)
        self.pos = nn.Parameter(torch.randn(c.grid**2 + 1, d) * 0.1)
        self.blocks = nn.ModuleList(VitBlock(c) for _ in range(c.vit_layers))
        wide = d * c.shuffle**2
        self.norm = nn.LayerNorm(wide, eps=1e-5)
        self.fc1 = nn.Linear(wide, 2 * c.dim)
        self.fc2 = nn.Linear(2 * c.dim, c.dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, size, size), normalised, to (batch, image_tokens, dim)."""
        b, g, p = len(pixels), self.c.grid, self.c.patch_size
        x = pixels.view(b, 3, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(b, g * g, -1)
        x = self.patch(x)
        x = torch.cat([x, self.cls.expand(b, 1, -1)], 1) + self.pos
        for block in self.blocks:
            x = block(x)
        x = self.shuffle(x[:, :-1])
        return self.fc2(F.gelu(self.fc1(self.norm(x)), approximate="tanh"))

    def shuffle(self, x: Tensor) -> Tensor:
        """Fold each square of patches into one token, in llama.cpp's order of channels."""
        b, _, d = x.shape
        s, g = self.c.shuffle, self.c.grid
        x = x.view(b, g // s, s, g // s, s, d).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(b, (g // s) ** 2, s * s * d)


def rope(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Rotary positions in the half-split (NeoX) form Qwen2 uses; x is (b, heads, t, head_dim)."""
    half = x.shape[-1] // 2
    freq = base ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = positions[:, None, :, None].float() * freq
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    """One Qwen2 layer: grouped-query attention with biased projections, SwiGLU."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        head = c.dim // c.heads
        self.norm1 = nn.RMSNorm(c.dim, eps=c.rms_eps)
        self.q = nn.Linear(c.dim, c.dim)
        self.k = nn.Linear(c.dim, c.kv_heads * head)
        self.v = nn.Linear(c.dim, c.kv_heads * head)
        self.o = nn.Linear(c.dim, c.dim, bias=False)
        self.norm2 = nn.RMSNorm(c.dim, eps=c.rms_eps)
        self.gate = nn.Linear(c.dim, c.ff, bias=False)
        self.up = nn.Linear(c.dim, c.ff, bias=False)
        self.down = nn.Linear(c.ff, c.dim, bias=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Tokens in, tokens out; causal."""
        b, t, d = x.shape
        c, h = self.c, self.norm1(x)
        q = rope(self.q(h).view(b, t, c.heads, -1).transpose(1, 2), positions, c.rope_base)
        k = rope(self.k(h).view(b, t, c.kv_heads, -1).transpose(1, 2), positions, c.rope_base)
        v = self.v(h).view(b, t, c.kv_heads, -1).transpose(1, 2)
        share = c.heads // c.kv_heads
        k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, d))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class DemoModel(nn.Module):
    """Vision half and decoder; input and output embeddings are one matrix."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.vision = Vision(c)
        self.embed = nn.Embedding(c.vocab, c.dim)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = nn.RMSNorm(c.dim, eps=c.rms_eps)
        self.apply(self._init)

    @staticmethod
    def _init(m: nn.Module) -> None:
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=m.in_features**-0.5 * 0.7)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Embedding):
            nn.init.normal_(m.weight, std=0.1)

    def hidden(self, tokens: Tensor, image: Tensor, positions: Tensor) -> Tensor:
        """Last hidden states; tokens below zero take the image's embeddings, in order."""
        x = self.embed(tokens.clamp(min=0))
        x = x.masked_scatter((tokens < 0)[..., None], image.to(x.dtype))
        for block in self.blocks:
            x = block(x, positions)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary."""
        return hidden @ self.embed.weight.T
