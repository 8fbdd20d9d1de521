"""A random-weights InternVL of several tiles: what it says is noise, how it is fed is real."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, LAYERS, HEADS, TILE, PATCH = 128, 4, 4, 112, 14
VISION_LAYERS = 1
TOKENS_PER_TILE = (TILE // PATCH // 2) ** 2
REAL_TILE = 448
"""Side of InternVL's own tiles, pixels: 256 tokens."""
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def _bytes_as_characters() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(hidden)) for byte in range(256)]


class _File:
    """A GGUF file that fills with random tensors."""

    def __init__(self, path: Path, architecture: str) -> None:
        self.writer = gguf.GGUFWriter(path, architecture)
        self._random = np.random.default_rng(0)

    def tensor(self, name: str, *shape: int, scale: float = 0.05) -> None:
        values = self._random.normal(0, scale, shape).astype(np.float32)
        self.writer.add_tensor(name, values)

    def embeddings(self, pieces: int) -> None:
        """Of each piece, also its weight in the output: only printable ASCII is ever written."""
        values = self._random.normal(0, 0.05, (pieces, WIDTH)).astype(np.float32)
        values[[piece for piece in range(pieces) if not 32 <= piece < 127]] = 0
        self.writer.add_tensor("token_embd.weight", values)

    def ones(self, name: str, size: int) -> None:
        self.writer.add_tensor(name, np.ones(size, np.float32))

    def linear(self, name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        self.tensor(f"{name}.weight", outputs, inputs)
        if bias:
            self.tensor(f"{name}.bias", outputs)

    def norm(self, name: str, *, size: int = WIDTH, bias: bool = False) -> None:
        self.ones(f"{name}.weight", size)
        if bias:
            self.tensor(f"{name}.bias", size)

    def close(self) -> None:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def _write_decoder(path: Path) -> None:
    pieces = [*_bytes_as_characters(), *CONTROL]
    file = _File(path, "qwen2")
    w = file.writer
    w.add_context_length(8192)
    w.add_embedding_length(WIDTH)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(2 * WIDTH)
    w.add_head_count(HEADS)
    w.add_head_count_kv(2)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(pieces)
    w.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(CONTROL))
    w.add_token_merges(["Ġ Ġ"])
    w.add_eos_token_id(258)
    w.add_add_bos_token(False)
    w.add_chat_template(TEMPLATE)
    file.embeddings(len(pieces))
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        file.norm(f"{at}.attn_norm")
        file.linear(f"{at}.attn_q", WIDTH, WIDTH)
        file.linear(f"{at}.attn_k", WIDTH // 2, WIDTH)
        file.linear(f"{at}.attn_v", WIDTH // 2, WIDTH)
        file.linear(f"{at}.attn_output", WIDTH, WIDTH, bias=False)
        file.norm(f"{at}.ffn_norm")
        file.linear(f"{at}.ffn_gate", 2 * WIDTH, WIDTH, bias=False)
        file.linear(f"{at}.ffn_up", 2 * WIDTH, WIDTH, bias=False)
        file.linear(f"{at}.ffn_down", WIDTH, 2 * WIDTH, bias=False)
    file.norm("output_norm")
    file.close()


def _write_vision(path: Path, tile: int) -> None:
    file = _File(path, "clip")
    w = file.writer
    w.add_bool("clip.has_vision_encoder", True)
    w.add_string("clip.projector_type", "internvl")
    w.add_bool("clip.use_gelu", True)
    for key, value in {
        "image_size": tile,
        "patch_size": PATCH,
        "embedding_length": WIDTH,
        "feed_forward_length": 2 * WIDTH,
        "block_count": VISION_LAYERS,
        "attention.head_count": HEADS,
        "projection_dim": WIDTH,
        "projector.scale_factor": 2,
        "preproc_min_tiles": 1,
        "preproc_max_tiles": 12,
    }.items():
        w.add_uint32(f"clip.vision.{key}", value)
    w.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    w.add_array("clip.vision.image_mean", [0.485, 0.456, 0.406])
    w.add_array("clip.vision.image_std", [0.229, 0.224, 0.225])
    file.tensor("v.patch_embd.weight", WIDTH, 3, PATCH, PATCH)
    file.tensor("v.patch_embd.bias", WIDTH)
    file.tensor("v.class_embd", WIDTH)
    file.tensor("v.position_embd.weight", (tile // PATCH) ** 2 + 1, WIDTH)
    for layer in range(VISION_LAYERS):
        at = f"v.blk.{layer}"
        for name in ("ln1", "ln2"):
            file.norm(f"{at}.{name}", bias=True)
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            file.linear(f"{at}.{name}", WIDTH, WIDTH)
        file.linear(f"{at}.ffn_up", 2 * WIDTH, WIDTH)
        file.linear(f"{at}.ffn_down", WIDTH, 2 * WIDTH)
        for name in ("ls1", "ls2"):
            file.ones(f"{at}.{name}.weight", WIDTH)
    file.norm("mm.model.mlp.0", size=4 * WIDTH, bias=True)
    file.linear("mm.model.mlp.1", WIDTH, 4 * WIDTH)
    file.linear("mm.model.mlp.3", WIDTH, WIDTH)
    file.close()


def write_tiny_model(folder: Path, *, name: str = "tiny", tile: int = TILE) -> tuple[Path, Path]:
    """Write the decoder and the vision part; 5 MB together. ``tile``: its side, pixels."""
    decoder, vision = folder / f"{name}.gguf", folder / f"mmproj-{name}.gguf"
    _write_decoder(decoder)
    _write_vision(vision, tile)
    return decoder, vision
