"""A folder that LMDeploy takes for InternVL 2.5: its configuration and a tokenizer, no weights."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, PretrainedConfig, Qwen2Config

TEMPLATE_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPECIAL = [*TEMPLATE_TOKENS, "<img>", "</img>", "<IMG_CONTEXT>"]
SHAPE = {"hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8}


class InternVLChatConfig(PretrainedConfig):
    """The parts of the published remote code's configuration that LMDeploy reads."""

    model_type = "internvl_chat"

    def __init__(self, vision_config: dict = {}, llm_config: dict = {}, **rest: object) -> None:  # noqa: B006
        super().__init__(**rest)
        self.vision_config = PretrainedConfig(**vision_config)
        self.llm_config = Qwen2Config(**llm_config)


AutoConfig.register("internvl_chat", InternVLChatConfig)


def write(folder: Path) -> None:
    """Fill ``folder``: config.json with one layer of InternVL2_5-78B, a byte-level tokenizer."""
    llm = SHAPE | {
        "architectures": ["Qwen2ForCausalLM"],
        "num_hidden_layers": 1,
        "intermediate_size": 29568,
        "rms_norm_eps": 1e-6,
        "vocab_size": 256 + len(SPECIAL),
        "max_position_embeddings": 32768,
    }
    config = {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "force_image_size": 448,
        "downsample_ratio": 0.5,
        "select_layer": -1,
        "torch_dtype": "float16",
        "pad_token_id": None,
        "vision_config": {"image_size": 448, "patch_size": 14},
        "llm_config": llm,
    }
    (folder / "config.json").write_text(json.dumps(config))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
            }
        )
    )
