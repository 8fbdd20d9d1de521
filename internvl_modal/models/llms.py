"""The parts that InternVL is made of: language models and vision models, as published.

A row is the ``llm_config`` of the repositories that hold it. Qwen2.5 and InternLM2 were read
there; Qwen3 are the base models' shapes, held against the parameter counts of InternVL3.5's own
table (its announcement, table 2); InternLM3's is its authors' training script's, GPT-OSS's that of
its published configuration.
"""

from __future__ import annotations

from internvl_modal.models.shapes import Experts, LlmShape, VitShape

__all__ = ["LLMS", "VITS"]

VITS = {
    "300M": VitShape("InternViT-300M-448px-V2_5", 24, 1024, 4096, 16, qkv_bias=True, qk_norm=False),
    "6B": VitShape("InternViT-6B-448px-V2_5", 45, 3200, 12800, 25, qkv_bias=False, qk_norm=True),
}
"""By size; InternVL3 and 3.5 train them on, their shapes stay."""

_INTERNLM2, _INTERNLM3 = "InternLM2ForCausalLM", "InternLM3ForCausalLM"
_QWEN3, _QWEN3_MOE, _GPT_OSS = "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "GptOssForCausalLM"
_EXPERTS_30B, _EXPERTS_235B = Experts(128, 8, 768), Experts(128, 8, 1536)
_EXPERTS_OSS = Experts(32, 4, 2880)

# (layers, hidden, intermediate, heads, kv heads, head_dim, vocabulary, class, experts). The
# vocabulary is the base model's with InternVL's image and box tokens added; 3.5's had room.
LLMS = {
    llm.base: llm
    for llm in (
        LlmShape("Qwen2.5-0.5B", 24, 896, 4864, 14, 2, 64, 151674),
        LlmShape("Qwen2.5-1.5B", 28, 1536, 8960, 12, 2, 128, 151674),
        LlmShape("Qwen2.5-3B", 36, 2048, 11008, 16, 2, 128, 151674),
        LlmShape("Qwen2.5-7B", 28, 3584, 18944, 28, 4, 128, 151674),
        LlmShape("Qwen2.5-14B", 48, 5120, 13824, 40, 8, 128, 151674),
        LlmShape("Qwen2.5-32B", 64, 5120, 27648, 40, 8, 128, 151674),
        LlmShape("Qwen2.5-72B", 80, 8192, 29568, 64, 8, 128, 151674),
        LlmShape("internlm2_5-1_8b-chat", 24, 2048, 8192, 16, 8, 128, 92553, _INTERNLM2),
        LlmShape("internlm2_5-7b-chat", 32, 4096, 14336, 32, 8, 128, 92553, _INTERNLM2),
        LlmShape("internlm2_5-20b-chat", 48, 6144, 16384, 48, 8, 128, 92553, _INTERNLM2),
        LlmShape("internlm3-8b-instruct", 48, 4096, 10240, 32, 2, 128, 128512, _INTERNLM3),
        LlmShape("Qwen3-0.6B", 28, 1024, 3072, 16, 8, 128, 151936, _QWEN3),
        LlmShape("Qwen3-1.7B", 28, 2048, 6144, 16, 8, 128, 151936, _QWEN3),
        LlmShape("Qwen3-4B", 36, 2560, 9728, 32, 8, 128, 151936, _QWEN3),
        LlmShape("Qwen3-8B", 36, 4096, 12288, 32, 8, 128, 151936, _QWEN3),
        LlmShape("Qwen3-14B", 40, 5120, 17408, 40, 8, 128, 151936, _QWEN3),
        LlmShape("Qwen3-32B", 64, 5120, 25600, 64, 8, 128, 151936, _QWEN3),
        LlmShape("Qwen3-30B-A3B", 48, 2048, 0, 32, 4, 128, 151936, _QWEN3_MOE, _EXPERTS_30B),
        LlmShape("Qwen3-235B-A22B", 94, 4096, 0, 64, 4, 128, 151936, _QWEN3_MOE, _EXPERTS_235B),
        LlmShape("gpt-oss-20b", 24, 2880, 0, 64, 8, 64, 201088, _GPT_OSS, _EXPERTS_OSS),
    )
}
