"""An InternVL of the catalogue as ``transformers`` builds it: its shapes, and random weights.

Needs torch and transformers 5, and of this package only what is pure (no pydantic).
"""

from __future__ import annotations

import torch
from transformers import (
    AutoConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    PretrainedConfig,
)

from internvl_modal.models.shapes import LlmShape, ModelSpec, VitShape

MODEL_TYPES = {
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
}
"""Language models that transformers has; the code of InternLM's lies in their repositories, and
GPT-OSS takes another kind of attention.
"""


def buildable(spec: ModelSpec) -> bool:
    """Whether transformers can make it without code from a repository."""
    plain = spec.quantization is None and not spec.flash
    return plain and spec.llm.architecture in MODEL_TYPES


def build(spec: ModelSpec, *, attention: str = "sdpa") -> InternVLForConditionalGeneration:
    """The model without memory, on torch's ``meta`` device; in bfloat16."""
    config = InternVLConfig(
        vision_config=_vision(spec.vit).to_dict(),
        text_config=_text(spec.llm, spec.context).to_dict(),
        image_token_id=spec.llm.vocab - 1,
        tie_word_embeddings=False,
    )
    config._attn_implementation = attention
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    return model.to(torch.bfloat16).eval()


def parts(model: InternVLForConditionalGeneration) -> dict[str, torch.nn.Module]:
    """What the planner counts apart: the vision model with its projector, the language model."""
    inner = model.model
    vision = torch.nn.ModuleList([inner.vision_tower, inner.multi_modal_projector])
    return {"vision": vision, "llm": torch.nn.ModuleList([inner.language_model, model.lm_head])}


def fill(module: torch.nn.Module, device: str) -> None:
    """Take memory for it on ``device`` and draw its weights at random."""
    module.to_empty(device=device)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(0, 0.02)
    # Tables such as the rotary embedding's are computed and not stored: they came out empty.
    with torch.device(device):
        for each in module.modules():
            if hasattr(each, "inv_freq") and hasattr(each, "config"):
                each.__init__(each.config)  # type: ignore[misc]


def _vision(vit: VitShape) -> InternVLVisionConfig:
    return InternVLVisionConfig(
        hidden_size=vit.hidden,
        intermediate_size=vit.inter,
        num_hidden_layers=vit.layers,
        num_attention_heads=vit.heads,
        attention_bias=vit.qkv_bias,
        use_qk_norm=vit.qk_norm,
        norm_type="rms_norm" if vit.qk_norm else "layer_norm",
        image_size=[vit.image_size] * 2,
        patch_size=[vit.patch_size] * 2,
    )


def _text(llm: LlmShape, context: int) -> PretrainedConfig:
    shape = {
        "hidden_size": llm.hidden,
        "intermediate_size": llm.inter or (llm.experts.inter if llm.experts else 0),
        "num_hidden_layers": llm.layers,
        "num_attention_heads": llm.heads,
        "num_key_value_heads": llm.kv_heads,
        "head_dim": llm.head_dim,
        "vocab_size": llm.vocab,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
    }
    if llm.experts:
        shape |= {
            "num_experts": llm.experts.count,
            "num_local_experts": llm.experts.count,
            "num_experts_per_tok": llm.experts.active,
            "moe_intermediate_size": llm.experts.inter,
        }
    return AutoConfig.for_model(MODEL_TYPES[llm.architecture], **shape)
