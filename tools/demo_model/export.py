"""Write a trained checkpoint as the two GGUF files llama.cpp reads.

Run as `python tools/demo_model/export.py CHECKPOINT --out internvl_modal/demo`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch
from model import Config, DemoModel
from text import CONTROL, TEMPLATE, Tokenizer

NAME = "internvl-modal demo"
DESCRIPTION = "Describes generated scenes of one to three shapes; worthless on anything else."
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
CONTEXT = 4096


def load(path: Path) -> DemoModel:
    """The averaged weights of a checkpoint that `train.py` wrote."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = DemoModel(Config(**state["config"]))
    model.load_state_dict(state["ema"])
    return model.eval()


def _add(writer: gguf.GGUFWriter, name: str, tensor: torch.Tensor) -> None:
    """Matrices as f16, everything with one axis (and what ggml wants in full) as f32."""
    full = tensor.ndim < 2 or name == "v.position_embd.weight"
    data = tensor.detach().numpy().astype(np.float32 if full else np.float16)
    writer.add_tensor(name, np.ascontiguousarray(data))


def _linear(writer: gguf.GGUFWriter, name: str, layer: torch.nn.Module) -> None:
    for part, tensor in layer.named_parameters():
        _add(writer, f"{name}.{part}", tensor)


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_vision(model: DemoModel, path: Path) -> None:
    """The ViT and projector, architecture `clip`."""
    c, v = model.c, model.vision
    w = gguf.GGUFWriter(path, "clip")
    w.add_name(NAME)
    w.add_description(DESCRIPTION)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_bool("clip.has_vision_encoder", True)
    w.add_string("clip.projector_type", "internvl")
    w.add_bool("clip.use_gelu", True)
    for key, value in {
        "image_size": c.image_size,
        "patch_size": c.patch_size,
        "embedding_length": c.vit_dim,
        "feed_forward_length": c.vit_ff,
        "block_count": c.vit_layers,
        "attention.head_count": c.vit_heads,
        "projection_dim": c.dim,
        "projector.scale_factor": c.shuffle,
        "preproc_min_tiles": 1,
        "preproc_max_tiles": 1,
    }.items():
        w.add_uint32(f"clip.vision.{key}", value)
    w.add_float32("clip.vision.attention.layer_norm_epsilon", c.ln_eps)
    w.add_array("clip.vision.image_mean", list(MEAN))
    w.add_array("clip.vision.image_std", list(STD))
    _add(w, "v.patch_embd.weight", v.patch.weight.view(-1, 3, c.patch_size, c.patch_size))
    _add(w, "v.patch_embd.bias", v.patch.bias)
    _add(w, "v.class_embd", v.cls)
    _add(w, "v.position_embd.weight", v.pos)
    for i, block in enumerate(v.blocks):
        at = f"v.blk.{i}"
        qkv = zip("qkv", block.qkv.weight.chunk(3), block.qkv.bias.chunk(3), strict=True)
        for letter, weight, bias in qkv:
            _add(w, f"{at}.attn_{letter}.weight", weight)
            _add(w, f"{at}.attn_{letter}.bias", bias)
        parts = {"ln1": block.ln1, "ln2": block.ln2, "attn_out": block.out}
        for name, layer in {**parts, "ffn_up": block.up, "ffn_down": block.down}.items():
            _linear(w, f"{at}.{name}", layer)
        _add(w, f"{at}.ls1.weight", block.ls1)
        _add(w, f"{at}.ls2.weight", block.ls2)
    for i, layer in ((0, v.norm), (1, v.fc1), (3, v.fc2)):
        _linear(w, f"mm.model.mlp.{i}", layer)
    _write(w)


def _write_tokenizer(w: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    control = {tokenizer.control[c] for c in CONTROL}
    types = [
        gguf.TokenType.CONTROL if i in control else gguf.TokenType.NORMAL
        for i in range(len(tokenizer))
    ]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("llama-bpe")
    w.add_token_list(tokenizer.pieces)
    w.add_token_types(types)
    w.add_token_merges(["Ġ Ġ"])
    w.add_eos_token_id(tokenizer.end)
    w.add_pad_token_id(tokenizer.control["<|endoftext|>"])
    w.add_add_bos_token(False)
    w.add_chat_template(TEMPLATE)


def write_decoder(model: DemoModel, tokenizer: Tokenizer, path: Path) -> None:
    """The language model, architecture `qwen2`, with tokenizer and chat template."""
    c = model.c
    w = gguf.GGUFWriter(path, "qwen2")
    w.add_name(NAME)
    w.add_description(DESCRIPTION)
    w.add_license("mit")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_sampling_temp(0.0)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(c.dim)
    w.add_block_count(c.layers)
    w.add_feed_forward_length(c.ff)
    w.add_head_count(c.heads)
    w.add_head_count_kv(c.kv_heads)
    w.add_rope_freq_base(c.rope_base)
    w.add_layer_norm_rms_eps(c.rms_eps)
    _write_tokenizer(w, tokenizer)
    _linear(w, "token_embd", model.embed)
    for i, block in enumerate(model.blocks):
        for name, layer in {
            "attn_norm": block.norm1,
            "attn_q": block.q,
            "attn_k": block.k,
            "attn_v": block.v,
            "attn_output": block.o,
            "ffn_norm": block.norm2,
            "ffn_gate": block.gate,
            "ffn_up": block.up,
            "ffn_down": block.down,
        }.items():
            _linear(w, f"blk.{i}.{name}", layer)
    _linear(w, "output_norm", model.norm)
    _write(w)


def export(model: DemoModel, folder: Path) -> tuple[Path, Path]:
    """Write `demo.gguf` and `mmproj-demo.gguf` into a folder; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    decoder, vision = folder / "demo.gguf", folder / "mmproj-demo.gguf"
    write_decoder(model, Tokenizer(), decoder)
    write_vision(model, vision)
    return decoder, vision


def main() -> None:
    """Parse arguments, write both files, print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=Path("internvl_modal/demo"))
    args = parser.parse_args()
    for path in export(load(args.checkpoint), args.out):
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
