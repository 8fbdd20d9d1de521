"""A tiny InternVL for vLLM without weights, which ``--load-format dummy`` draws at random.

Its tokenizer has one token a byte besides the control tokens, so that the tokens of a text can be
counted without it.
"""

from __future__ import annotations

import json
from pathlib import Path

CONTROL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
]
CONTEXT = 16384
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
TEMPLATE = f"""\
{{%- if messages[0].role != 'system' %}}
    {{{{- '<|im_start|>system\\n{QWEN_SYSTEM}<|im_end|>\\n' }}}}
{{%- endif %}}
{{%- for message in messages %}}
    {{{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}}}
{{%- endfor %}}
{{%- if add_generation_prompt %}}
    {{{{- '<|im_start|>assistant\\n' }}}}
{{%- endif %}}
"""
"""What Qwen 2.5's own template does with a conversation without tools."""

CONFIGURATION = """\
from transformers import PretrainedConfig, Qwen2Config


class InternVLChatConfig(PretrainedConfig):
    model_type = "internvl_chat"

    def __init__(self, vision_config=None, llm_config=None, **others):
        self.vision_config = PretrainedConfig(**(vision_config or {}))
        self.llm_config = Qwen2Config(**(llm_config or {}))
        super().__init__(**others)

    def get_text_config(self, **options):
        return self.llm_config
"""
"""Stands for the code that InternVL's repositories carry."""

_LAYERS = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "torch_dtype": "bfloat16",
}
_LANGUAGE = {
    **_LAYERS,
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "num_key_value_heads": 1,
    "vocab_size": 256 + len(CONTROL),
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
_VISION = {
    **_LAYERS,
    "architectures": ["InternVisionModel"],
    "model_type": "intern_vit_6b",
    "image_size": 448,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "qk_normalization": False,
    "norm_type": "layer_norm",
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "initializer_factor": 0.1,
    "initializer_range": 0.02,
}
_MODEL = {
    "architectures": ["InternVLChatModel"],
    "model_type": "internvl_chat",
    "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
    "llm_config": _LANGUAGE,
    "vision_config": _VISION,
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": 448,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": 12,
    "ps_version": "v2",
    "select_layer": -1,
    "template": "internvl2_5",
    "use_thumbnail": True,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}


def token_id(control: str) -> int:
    """The number of a control token."""
    return 256 + CONTROL.index(control)


def text_of(tokens: list[int]) -> str:
    """The text of tokens, control tokens as the model's own names for them."""
    pieces = (bytes([t]) if t < 256 else CONTROL[t - 256].encode() for t in tokens)
    return b"".join(pieces).decode("utf-8", "replace")


def count(text: str) -> int:
    """Tokens of a prompt in which control tokens stand by their names."""
    for name in CONTROL:
        text = text.replace(name, "\0")
    return len(text.encode())


def make(folder: Path) -> None:
    """Write all that ``vllm serve`` reads of a model but its weights."""
    folder.mkdir(parents=True)
    for name, document in {
        "config.json": _MODEL,
        "generation_config.json": {"eos_token_id": token_id("<|im_end|>")},
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": CONTEXT,
            "additional_special_tokens": CONTROL[1:],
            "chat_template": TEMPLATE,
        },
    }.items():
        (folder / name).write_text(json.dumps(document))
    (folder / "configuration_internvl_chat.py").write_text(CONFIGURATION)


def _tokenizer() -> dict[str, object]:
    """One token a byte, numbered by its value; the file that the ``tokenizers`` package reads."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": token_id(name), "content": name, "special": True, **flags} for name in CONTROL]
    bytes_alone = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": bytes_alone,
        "decoder": bytes_alone,
        "model": {"type": "BPE", "vocab": _bytes_as_characters(), "merges": []},
    }


def _bytes_as_characters() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level vocabularies."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return {chr(byte if byte in plain else next(hidden)): byte for byte in range(256)}
