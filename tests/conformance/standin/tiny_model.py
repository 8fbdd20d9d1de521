"""Folders that LMDeploy takes for InternVL: configuration, tokenizer and template, no weights."""

import json
import tempfile
from pathlib import Path

from prompts import PLAIN, template_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, PretrainedConfig, Qwen2Config

TEMPLATE_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPECIAL = [*TEMPLATE_TOKENS, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
SHAPE = {"hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8}


class InternVLChatConfig(PretrainedConfig):
    """The parts of the published remote code's configuration that LMDeploy reads."""

    model_type = "internvl_chat"

    def __init__(self, vision_config: dict = {}, llm_config: dict = {}, **rest: object) -> None:  # noqa: B006
        super().__init__(**rest)
        self.vision_config = PretrainedConfig(**vision_config)
        self.llm_config = Qwen2Config(**llm_config)


AutoConfig.register("internvl_chat", InternVLChatConfig)


def staged(model_path: str) -> str:
    """A folder by the same name, which LMDeploy looks at, that holds the tiny model."""
    folder = Path(tempfile.mkdtemp(prefix="standin-")) / Path(model_path).name
    folder.mkdir()
    _write_tokenizer(folder)
    write_config = _write_hf if folder.name.lower().endswith("-hf") else _write_chat
    write_config(folder)
    return str(folder)


def _llm() -> dict:
    """One layer of InternVL2_5-78B's language model."""
    return SHAPE | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_hidden_layers": 1,
        "intermediate_size": 29568,
        "rms_norm_eps": 1e-6,
        "vocab_size": 256 + len(SPECIAL),
        "max_position_embeddings": 32768,
        "torch_dtype": "float16",
    }


def _write_chat(folder: Path) -> None:
    """InternVLChatModel, the architecture of the repositories without ``-HF``."""
    config = {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "force_image_size": 448,
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": -1,
        "torch_dtype": "float16",
        "pad_token_id": None,
        "vision_config": {"image_size": 448, "patch_size": 14},
        "llm_config": _llm(),
    }
    (folder / "config.json").write_text(json.dumps(config))


def _write_hf(folder: Path) -> None:
    """InternVLForConditionalGeneration, which ``transformers`` knows, with its processor."""
    from transformers import (
        AutoTokenizer,
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    config = InternVLConfig(text_config=_llm(), image_token_id=256 + SPECIAL.index("<IMG_CONTEXT>"))
    config.architectures = ["InternVLForConditionalGeneration"]
    config.save_pretrained(folder)
    side = {"height": 448, "width": 448}
    pixels = GotOcr2ImageProcessor(
        size=side,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        crop_to_patches=False,
        min_patches=1,
        max_patches=12,
    )
    InternVLProcessor(
        image_processor=pixels,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        video_processor=InternVLVideoProcessor(size=side),
        chat_template=PLAIN,
    ).save_pretrained(folder)


def _write_tokenizer(folder: Path) -> None:
    """A byte-level one: each byte is a token, and each of ``SPECIAL``."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": template_of(folder.name),
    }
    if folder.name.lower().endswith("-hf"):
        config["extra_special_tokens"] = {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
