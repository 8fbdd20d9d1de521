"""The catalog: what is computed from the published shapes agrees with what was published."""

from __future__ import annotations

import re

import pytest

from internvl_modal.errors import ConfigError, PlanError
from internvl_modal.models.catalogue import MODELS, find_model, of_family
from internvl_modal.models.config_json import spec_from_config
from internvl_modal.models.families import SYSTEM_MESSAGE, family_of
from internvl_modal.models.llms import VITS
from internvl_modal.models.quality import quality_of, ranked
from internvl_modal.models.support import TITLES, default_engine, engines_of, refusal
from tools import models_table

# Size of the bf16 weights (GB), layers / hidden / heads / kv heads / head_dim, KV bytes a token.
PUBLISHED = {
    "internvl2_5-1b": (1.88, (24, 896, 14, 2, 64), 12_288),
    "internvl2_5-2b": (4.41, (24, 2048, 16, 8, 128), 98_304),
    "internvl2_5-4b": (7.43, (36, 2048, 16, 2, 128), 36_864),
    "internvl2_5-8b": (16.15, (32, 4096, 32, 8, 128), 131_072),
    "internvl2_5-26b": (51.0, (48, 6144, 48, 8, 128), 196_608),
    "internvl2_5-38b": (76.8, (64, 5120, 40, 8, 128), 262_144),
    "internvl2_5-78b": (156.8, (80, 8192, 64, 8, 128), 327_680),
}
# Parameters in billions, as the model cards on the Hub count them.
CARDS = {
    "internvl2_5-1b": 0.94,
    "internvl2_5-4b": 3.71,
    "internvl2_5-8b": 8.08,
    "internvl2_5-26b": 25.5,
    "internvl2_5-38b": 38.4,
    "internvl2_5-78b": 78.4,
    "internvl3-1b": 0.94,
    "internvl3-2b": 2.09,
    "internvl3-8b": 7.94,
    "internvl3-14b": 15.1,
    "internvl3-38b": 38.4,
    "internvl3-78b": 78.4,
    # InternVL3.5's announcement, table 2.
    "internvl3_5-1b": 1.06,
    "internvl3_5-2b": 2.35,
    "internvl3_5-4b": 4.73,
    "internvl3_5-8b": 8.53,
    "internvl3_5-14b": 15.12,
    "internvl3_5-38b": 38.4,
    "internvl3_5-30b-a3b": 30.85,
    "internvl3_5-241b-a28b": 240.7,
    "internvl3_5-gpt-oss-20b-a4b-preview": 21.23,
    # The repositories' sizes: 4.98 GB and 17.1 GB of 16 bits each.
    "internvl3_5-2b-flash": 4.98 / 2,
    "internvl3-14b-hf": 30.3 / 2,
}
# Active parameters, by the names of the models: A3B, A4B; those of A28B include the ViT.
ACTIVE = {"internvl3_5-30b-a3b": 3, "internvl3_5-gpt-oss-20b-a4b-preview": 4}


CONFIG = {
    "architectures": ["InternVLChatModel"],
    "force_image_size": 448,
    "llm_config": {
        "_name_or_path": "internlm/internlm2_5-7b-chat",
        "architectures": ["InternLM2ForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "vocab_size": 92553,
    },
    "vision_config": {
        "architectures": ["InternVisionModel"],
        "hidden_size": 1024,
        "image_size": 448,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "qk_normalization": False,
        "qkv_bias": True,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_derived_numbers_are_the_published_ones(name):
    size, shape, kv = PUBLISHED[name]
    spec = MODELS[name]
    llm = spec.llm
    assert spec.disk_bytes / 1e9 == pytest.approx(size, rel=0.002)
    assert (llm.layers, llm.hidden, llm.heads, llm.kv_heads, llm.head_dim) == shape
    assert spec.kv_bytes_per_token() == kv


@pytest.mark.parametrize("name", CARDS)
def test_parameters_are_those_of_the_model_cards(name):
    assert MODELS[name].params / 1e9 == pytest.approx(CARDS[name], rel=0.005)


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters_are_those_of_the_names(name):
    llm = MODELS[name].llm
    active = llm.active_params + 2 * llm.embedding_params
    assert round(active / 1e9) == ACTIVE[name]


def test_vision_models_have_their_published_sizes():
    assert 2 * VITS["300M"].params / 2**30 == pytest.approx(0.57, abs=0.01)
    assert 2 * VITS["6B"].params / 2**30 == pytest.approx(10.3, abs=0.05)


def test_awq_quantises_only_the_matrices_of_the_language_model():
    plain, awq = MODELS["internvl2_5-78b"], MODELS["internvl2_5-78b-awq"]
    assert awq.disk_bytes / 1e9 == pytest.approx(53, rel=0.02)
    assert awq.vision_bytes == plain.vision_bytes
    kept = awq.llm_bytes - awq.linear_bytes
    assert kept == plain.llm_bytes - plain.linear_bytes > 2 * 2 * 151_674 * 8192


@pytest.mark.parametrize(("policy", "per_head"), [(0, 256), (8, 128 + 4), (4, 64 + 4)])
def test_a_quantised_cache_keeps_a_scale_and_a_zero_per_head_and_token(policy, per_head):
    spec = MODELS["internvl2_5-8b"]
    assert spec.kv_bytes_per_token(policy) == 2 * 32 * 8 * per_head


@pytest.mark.parametrize(
    "name",
    [
        "internvl2_5-78b",
        "InternVL2_5-78B",
        "OpenGVLab/InternVL2_5-78B",
        " opengvlab/internvl2_5-78b",
    ],
)
def test_a_model_is_found_by_short_name_and_repository_in_any_case(name):
    assert find_model(name) is MODELS["internvl2_5-78b"]


def test_the_catalog_lists_what_is_published_and_loads():
    assert {name for name in MODELS if name.startswith("internvl2_5")} == {
        f"internvl2_5-{size}{suffix}"
        for size in ("1b", "2b", "4b", "8b", "26b", "38b", "78b")
        for suffix in ("", "-mpo", "-awq")
        if suffix != "-awq" or size not in ("1b", "2b")
    } | {"internvl2_5-38b-mpo-awq"}
    assert find_model("brandonbeiler/InternVL2_5-78B") is None  # somebody else's of the same name
    assert MODELS["internvl2_5-78b-awq"].repo == "OpenGVLab/InternVL2_5-78B-AWQ"
    assert MODELS["internvl2_5-1b"].gguf == "ggml-org/InternVL2_5-1B-GGUF"
    assert MODELS["internvl2_5-1b-mpo"].gguf is None
    assert "Qwen" in MODELS["internvl2_5-78b"].licence
    assert "not commercial" in MODELS["internvl2_5-4b"].licence
    fp8 = find_model("brandonbeiler/InternVL3_5-8B-FP8-Dynamic")
    assert fp8 is find_model("internvl3_5-8b-fp8-dynamic") is not None


@pytest.mark.parametrize(
    ("engine", "runs", "not_"),
    [
        (
            "lmdeploy-0.7.3",
            ["internvl2_5-78b", "internvl2_5-78b-awq", "internvl3-78b-instruct"],
            ["internvl3-9b", "internvl3-1b-hf", "internvl3_5-1b", "internvl3-8b-fp8-dynamic"],
        ),
        (
            "lmdeploy",
            [
                "internvl2_5-78b-awq",
                "internvl3-9b",
                "internvl3_5-241b-a28b-hf",
                "internvl3_5-8b-flash",
            ],
            ["internvl3_5-gpt-oss-20b-a4b-preview", "internvl3_5-8b-fp8-dynamic"],
        ),
        (
            "vllm",
            [
                "internvl2_5-1b",
                "internvl3-78b-hf",
                "internvl3_5-30b-a3b-fp8-dynamic",
                "internvl3_5-gpt-oss-20b-a4b-preview-hf",
            ],
            ["internvl2_5-8b-awq", "internvl3_5-8b-flash"],
        ),
    ],
)
def test_each_engine_runs_what_it_is_known_to_run(engine, runs, not_):
    assert all(engine in engines_of(MODELS[name]) for name in runs)
    for name in not_:
        assert refusal(MODELS[name], engine).startswith(TITLES[engine])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_served_name_tells_how_the_model_is_asked(name):
    """By its short name, which a deployment is served by, and by its repository alike."""
    spec, family = MODELS[name], family_of(name)
    assert family == family_of(spec.repo) is not None
    assert (family.converted, family.flash) == (spec.converted, spec.flash)
    assert (family.system == SYSTEM_MESSAGE) == ("gpt-oss" not in name)
    # The templates of 2.5 and 3 write the message themselves; 3.5's and those of -HF do not.
    assert family.signs == (not name.startswith("internvl3_5") and not spec.converted)
    assert family.fewest_tokens == (64 if spec.flash else 256)


def test_a_repository_is_taken_for_the_family_that_is_named():
    made, base = of_family("someone/captions", "InternVL3_5-8B-HF"), MODELS["internvl3_5-8b-hf"]
    assert (made.repo, made.name) == ("someone/captions", "captions-internvl3_5-8b-hf")
    assert (made.llm, made.vit, made.context) == (base.llm, base.vit, base.context)
    assert family_of(made.name) == family_of(base.name)
    assert engines_of(made) == engines_of(base)
    assert of_family("me/InternVL3_5-2B-tuned", "internvl3_5-8b").name == "internvl3_5-2b-tuned"
    with pytest.raises(ConfigError, match="unknown model 'internvl9'"):
        of_family("someone/captions", "internvl9")


def test_every_model_has_an_engine_and_each_generation_its_default():
    assert all(engines_of(spec) for spec in MODELS.values())
    for name, engine in {
        "internvl2_5-78b": "lmdeploy-0.7.3",
        "internvl3-38b": "lmdeploy-0.7.3",
        "internvl3-9b": "lmdeploy",
        "internvl3-8b-hf": "lmdeploy",
        "internvl3_5-8b": "lmdeploy",
        "internvl3_5-8b-fp8-dynamic": "vllm",
        "internvl3_5-gpt-oss-20b-a4b-preview": "vllm",
    }.items():
        assert default_engine(MODELS[name]) == engine


def test_a_config_describes_the_model_the_catalog_knows():
    spec = spec_from_config("someone/InternVL2_5-8B-tuned", CONFIG)
    known = MODELS["internvl2_5-8b"]
    assert spec.name == "internvl2_5-8b-tuned"
    assert (spec.llm_bytes, spec.vision_bytes) == (known.llm_bytes, known.vision_bytes)
    assert spec.kv_bytes_per_token() == known.kv_bytes_per_token()
    assert not spec.awq


@pytest.mark.parametrize("place", ["", "llm_config"])
def test_a_config_tells_of_awq_and_files_tell_of_size(place):
    quantized = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    config = CONFIG | ({place: CONFIG[place] | quantized} if place else quantized)
    files = {"a.safetensors": 5_000_000_000, "b.safetensors": 900_000_000, "README.md": 7}
    spec = spec_from_config("someone/quantised", config, files)
    assert spec.awq
    assert spec.disk_bytes == 5_900_000_000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"architectures": ["LlavaForCausalLM"]}, PlanError, "not an InternVL model"),
        ({"architectures": ["InternVLForConditionalGeneration"]}, ConfigError, "no text_config"),
        ({"quantization_config": {"quant_method": "gptq"}}, PlanError, "quantised by 'gptq'"),
        ({"architectures": None}, PlanError, "unnamed architecture"),
        ({"llm_config": None}, ConfigError, "no llm_config"),
        ({"vision_config": {}}, ConfigError, "num_hidden_layers = None"),
        (
            {"llm_config": CONFIG["llm_config"] | {"vocab_size": 0}},
            ConfigError,
            "vocab_size = 0, not a positive integer",
        ),
    ],
)
def test_a_config_that_cannot_be_planned_says_why(change, error, message):
    with pytest.raises(error, match=message) as caught:
        spec_from_config("someone/model", CONFIG | change)
    assert "someone/model" in str(caught.value)


QWEN3 = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "vocab_size": 151936,
}


def test_a_config_tells_of_experts_and_of_the_heads_own_width():
    spec = spec_from_config("someone/moe", CONFIG | {"llm_config": QWEN3, "flash_mode": "x"})
    known = MODELS["internvl3_5-30b-a3b-flash"]
    assert spec.llm.head_dim == 128 != spec.llm.hidden // spec.llm.heads
    assert (spec.llm_bytes, spec.vision_bytes) == (known.llm_bytes, known.vision_bytes)
    assert engines_of(spec) == engines_of(known) == ("lmdeploy",)
    tied = spec_from_config(
        "someone/t", CONFIG | {"llm_config": QWEN3 | {"tie_word_embeddings": True}}
    )
    assert tied.llm_bytes == spec.llm_bytes  # LMDeploy keeps a copy
    assert spec.llm.params - tied.llm.params == spec.llm.embedding_params


def test_a_config_in_the_format_of_transformers():
    vision = {
        "attention_bias": True,
        "hidden_size": 1024,
        "image_size": [448, 448],
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": [14, 14],
        "use_qk_norm": False,
    }
    text = {key: value for key, value in QWEN3.items() if key != "architectures"}
    config = {
        "architectures": ["InternVLForConditionalGeneration"],
        "text_config": text | {"model_type": "qwen3_moe"},
        "vision_config": vision,
    }
    spec, known = spec_from_config("someone/x-HF", config), MODELS["internvl3_5-30b-a3b-hf"]
    assert spec.converted
    assert (spec.llm_bytes, spec.vision_bytes) == (known.llm_bytes, known.vision_bytes)
    assert engines_of(spec) == ("lmdeploy", "vllm")


@pytest.mark.parametrize(
    ("config", "quantization", "bits"),
    [
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, "fp8", 8),
        ({"quant_method": "fp8"}, "fp8", 8),
        ({"quant_method": "mxfp4"}, "mxfp4", 4.25),
        ({"quant_method": "awq"}, "awq", 4.25),
    ],
)
def test_quantised_matrices_take_their_bits(config, quantization, bits):
    """MXFP4 is of experts only, whose attention stays in 16 bits."""
    llm = {"llm_config": QWEN3}
    spec = spec_from_config("someone/q", CONFIG | llm | {"quantization_config": config})
    assert spec.quantization == quantization
    experts = 48 * 128 * 3 * 2048 * 768
    rest = 48 * 2048 * 128 * (32 + 8 + 32) * (16 if quantization == "mxfp4" else bits)
    assert spec.linear_bytes == (experts * bits + rest) / 8


# -- quality ------------------------------------------------------------------------------------


def test_a_model_without_published_figures_is_unranked():
    names = {spec.name for spec in ranked()}
    assert {"internvl2_5-78b", "internvl2_5-78b-mpo", "internvl3_5-8b"} <= names
    for name in ("internvl2_5-78b-awq", "internvl3-8b-instruct", "internvl3_5-8b-mpo"):
        assert quality_of(MODELS[name]) is None
        assert name not in names
    flash = quality_of(MODELS["internvl3_5-8b-flash"])
    assert (flash.mmbench, flash.ocrbench, flash.score) == (None, 830, None)
    # The same weights in another format have the same figures, and are not ranked twice.
    assert quality_of(MODELS["internvl3-8b-hf"]) == quality_of(MODELS["internvl3-8b"])
    assert not any(spec.converted for spec in ranked())
    assert quality_of(of_family("someone/captions", "internvl3_5-8b")) is None


def test_every_figure_has_a_source_and_lies_in_its_range():
    for spec in ranked():
        quality = quality_of(spec)
        assert 0 < quality.mmbench < 100
        assert 0 < quality.ocrbench < 1000
        assert quality.score == (quality.mmbench + quality.ocrbench / 10) / 2
        assert "InternVL" in quality.source


def test_the_page_of_the_models_is_what_the_script_makes():
    assert models_table.shown() == models_table.tables(), "run python -m tools.models_table"
    names = re.findall(r"^\| \[`([^`]+)`\]", models_table.shown(), flags=re.M)
    assert names == list(MODELS)
