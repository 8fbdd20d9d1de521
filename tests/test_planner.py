"""The planner against published measurements, known outcomes and properties that must hold."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from internvl_modal.engines.lmdeploy import LMDeployOptions
from internvl_modal.errors import ConfigError, PlanError
from internvl_modal.models.catalogue import MODELS
from internvl_modal.models.llms import VITS
from internvl_modal.models.shapes import LlmShape, ModelSpec
from internvl_modal.models.support import ENGINES
from internvl_modal.planning.footprint import Work
from internvl_modal.planning.gpus import COUNTS, GPUS, parse_gpu
from internvl_modal.planning.memory import MARGIN, MIB, measure
from internvl_modal.planning.plan import Plan
from internvl_modal.planning.planner import make_plan
from internvl_modal.planning.prices import CATALOGUE_PRICES
from internvl_modal.planning.ranking import best_within
from internvl_modal.planning.request import Request
from internvl_modal.planning.throughput import BEST, WORST, Load, request_seconds

A100 = GPUS["A100-80GB"]

# InternVL2-40B and -76B, which the published table lists as 38B and 78B.
YI = LlmShape("Yi-34B", 60, 7168, 20480, 56, 8, 128, 64009, "LlamaForCausalLM")
LLAMA = LlmShape("Llama-3-70B", 80, 8192, 28672, 64, 8, 128, 128265, "LlamaForCausalLM")
MEASURED = {
    "8B": MODELS["internvl2_5-8b"],
    "8B-AWQ": MODELS["internvl2_5-8b-awq"],
    "26B": MODELS["internvl2_5-26b"],
    "26B-AWQ": MODELS["internvl2_5-26b-awq"],
    "40B": ModelSpec("40b", "40B", YI, VITS["6B"], ""),
    "40B-AWQ": ModelSpec("40b-awq", "40B-AWQ", YI, VITS["6B"], "", quantization="awq"),
    "76B": ModelSpec("76b", "76B", LLAMA, VITS["6B"], ""),
    "76B-AWQ": ModelSpec("76b-awq", "76B-AWQ", LLAMA, VITS["6B"], "", quantization="awq"),
}
# MiB on each A100-80GB by GPUs and cache_max_entry_count; None: it ran out of memory or gave no
# output. https://internvl.readthedocs.io/en/latest/internvl2.0/deployment.html
TABLE = {
    "8B": {
        (1, 0.8): 69_708,
        (1, 0.2): 30_624,
        (1, 0.1): 24_108,
        (1, 0.05): 20_832,
        (2, 0.05): 14_570,
        (4, 0.05): 11_378,
    },
    "8B-AWQ": {(1, 0.2): 22_440, (1, 0.05): 11_528},
    "26B": {
        (1, 0.8): 77_310,
        (1, 0.2): 58_302,
        (2, 0.2): 39_750,
        (4, 0.2): 30_512,
        (8, 0.2): 25_806,
    },
    "26B-AWQ": {(1, 0.8): 72_104, (1, 0.2): 37_448, (1, 0.1): 31_656, (1, 0.05): 28_712},
    "40B": {
        (1, 0.8): None,
        (1, 0.2): 79_892,
        (1, 0.1): None,
        (1, 0.05): None,
        (2, 0.2): 50_156,
        (4, 0.2): 34_990,
        (8, 0.2): 28_052,
    },
    "40B-AWQ": {(1, 0.8): 72_964, (1, 0.2): 42_628, (1, 0.1): 37_572, (1, 0.05): 33_636},
    "76B": {
        (1, 0.8): None,
        (1, 0.2): None,
        (1, 0.1): None,
        (1, 0.05): None,
        (2, 0.2): 78_698,
        (4, 0.2): 50_477,
        (8, 0.2): 36_268,
    },
    "76B-AWQ": {(1, 0.8): 77_138, (1, 0.2): 58_738, (1, 0.1): 55_698, (1, 0.05): 54_130},
}
CELLS = [(row, *cell, used) for row, cells in TABLE.items() for cell, used in cells.items()]


def planned(model: str | ModelSpec, gpu: str | None = None, **request: object) -> Plan:
    spec = model if isinstance(model, ModelSpec) else MODELS[model]
    chosen = parse_gpu(gpu) if gpu else None
    return make_plan(spec, Request(**request), CATALOGUE_PRICES, gpu=chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(("row", "count", "ratio", "used"), CELLS)
def test_published_memory_is_reproduced(row, count, ratio, used):
    """That image had flash-attn, batches of 128, and one picture to describe."""
    spec, gpu = MEASURED[row], GPUS["A100-80GB"]
    work = Work(count, batch=128, session_len=3456, tiles=13, flash_attention=True)
    memory = measure(spec, gpu.memory, work, ratio=ratio)
    tokens = memory.kv * count // spec.kv_bytes_per_token(0)
    assert (memory.spare < MARGIN or tokens < 3456) == (used is None)
    if used is not None:
        assert memory.used / MIB == pytest.approx(used, rel=0.04)


@pytest.mark.parametrize(
    ("model", "gpu", "fits"),
    [
        ("internvl2_5-78b", "A100-80GB", False),
        ("internvl2_5-78b", "A100-80GB:2", False),
        ("internvl2_5-78b", "H200", False),
        ("internvl2_5-78b", "A100-80GB:4", True),
        ("internvl2_5-78b", "H100:4", True),
        ("internvl2_5-78b", "H200:2", True),
        ("internvl2_5-78b-awq", "A100-80GB", True),
        ("internvl2_5-38b", "A100-80GB", False),
        ("internvl2_5-38b", "A100-80GB:2", True),
        ("internvl2_5-8b", "L4", True),
        ("internvl2_5-8b", "T4", False),
        ("internvl2_5-1b", "T4", True),
        # InternVL's own deployment pages of 3 and 3.5 (tp 2 for 38B, 4 for 78B; up to 30B on one
        # A100-80GB, 38B on two, 241B on eight), and vllm#16749.
        ("internvl3-38b", "A100-80GB:2", True),
        ("internvl3-78b", "A100-80GB:4", True),
        ("internvl3_5-30b-a3b", "A100-80GB", True),
        ("internvl3_5-38b", "A100-80GB", False),
        ("internvl3_5-38b", "A100-80GB:2", True),
        ("internvl3_5-241b-a28b", "A100-80GB:4", False),
        ("internvl3_5-241b-a28b", "A100-80GB:8", True),
    ],
)
def test_known_outcomes(model, gpu, fits):
    plan = planned(model, gpu)
    assert plan.fits == fits, plan.reason
    assert gpu in [choice.gpu_string for choice in plan.choices] or not fits


@pytest.mark.parametrize(
    ("model", "gpu", "fits"),
    [
        ("internvl3-78b", "A100-40GB:4", False),  # vllm#16749: out of memory
        ("internvl3-78b-fp8-dynamic", "A100-80GB:2", True),
        ("internvl3_5-8b", "L4", False),
        ("internvl3_5-8b-fp8-dynamic", "L4", True),
        ("internvl3_5-gpt-oss-20b-a4b-preview", "A100-80GB", True),
        ("internvl3_5-gpt-oss-20b-a4b-preview", "A100-40GB", False),
    ],
)
def test_known_outcomes_of_vllm(model, gpu, fits):
    plan = planned(model, gpu, engine="vllm")
    assert plan.fits == fits, plan.reason


def test_experts_lie_in_memory_and_only_some_are_read():
    spec = MODELS["internvl3_5-30b-a3b"]
    assert spec.llm.params / 1e9 == pytest.approx(30.5, rel=0.002)
    assert spec.llm.active_params + spec.llm.embedding_params == pytest.approx(3.03e9, rel=0.01)
    assert planned(spec, "H100").memory.llm / 1e9 == pytest.approx(61.1, rel=0.01)
    dense = planned("internvl3_5-38b-fp8-dynamic", "H100")
    assert planned(spec, "H100").cost.per_1000[0] < dense.cost.per_1000[0]
    # One token reads its own eight experts, a batch nearly all of them.
    assert spec.read_bytes(1) < spec.llm_bytes / 8
    assert spec.llm_bytes * 0.98 < spec.read_bytes(64) < spec.llm_bytes


def test_78b_does_not_fit_on_two_80gb_gpus_with_any_session():
    plan = planned("internvl2_5-78b", "A100-80GB:2", session_len=4096)
    assert not plan.fits
    assert plan.capacity.sessions == 0


def test_38b_on_one_80gb_gpu_fits_half_a_useful_session():
    assert planned("internvl2_5-38b", "A100-80GB", session_len=8192).fits
    assert "less than one session of 16,384" in planned("internvl2_5-38b", "A100-80GB").reason


def test_a_b200_has_the_memory_but_the_engine_lacks_its_kernels():
    plan = planned("internvl2_5-78b", "B200")
    assert plan.memory.spare > MARGIN
    assert plan.capacity.sessions > 20
    assert "would do, but LMDeploy 0.7.3 has no kernels for sm_100" in plan.reason


@pytest.mark.parametrize(
    ("model", "gpu", "request_", "reason"),
    [
        ("internvl2_5-78b", "H100:3", {}, "64 heads and 8 key-value heads"),
        ("internvl2_5-1b", "L4:4", {}, "14 heads and 2 key-value heads"),
        ("internvl2_5-4b", "L4:3", {}, "16 heads and 2 key-value heads"),
        ("internvl2_5-8b", "A10:8", {}, "at most 4 A10"),
        ("internvl2_5-8b", "H100:16", {}, "at most 8 H100"),
        ("internvl2_5-1b", "H100", {"quant_policy": 8}, "these are 64 wide"),
        ("internvl2_5-8b", "H100", {"session_len": 65536}, "more than its 32,768 positions"),
        ("internvl2_5-8b", "H100", {"images_per_request": 12}, "one request takes"),
        ("internvl2_5-8b", "H100", {"session_len": 3000}, "one request takes 3,636 tokens"),
        ("internvl2_5-8b", "T4", {}, "nothing is left for the KV cache"),
        ("internvl2_5-8b", "L4", {"cache_max_entry_count": 0.9}, "a cache share of 0.9"),
        ("internvl2_5-8b", "H100", {"engine": "vllm", "quant_policy": 4}, "8 is the least"),
        ("internvl2_5-8b", "A100", {"engine": "vllm", "quant_policy": 8}, "A100-40GB (sm_80) has"),
        ("internvl2_5-8b-awq", "H100", {"engine": "vllm"}, "not known to load AWQ"),
        ("internvl3_5-8b", "H100", {"engine": "lmdeploy-0.7.3"}, "no reader for Qwen3ForCausalLM"),
        ("internvl3_5-1b-flash", "H100", {"engine": "vllm"}, "LMDeploy 0.18 does"),
    ],
)
def test_refusals_name_the_numbers(model, gpu, request_, reason):
    plan = planned(model, gpu, **request_)
    assert reason in plan.reason
    with pytest.raises(PlanError, match="does not fit on") as caught:
        plan.require()
    assert plan.reason in str(caught.value)


def test_heads_of_other_widths_are_refused():
    llm = LlmShape("odd", 24, 1920, 4096, 24, 8, 80, 92553, "LlamaForCausalLM")
    assert (
        "these are 80 wide" in planned(ModelSpec("odd", "odd", llm, VITS["6B"], ""), "H100").reason
    )


def test_require_names_the_nearest_choices_first():
    with pytest.raises(PlanError, match="2 x A100-80GB") as caught:
        planned("internvl2_5-78b", "A100-80GB:2").require()
    assert "A100-80GB:4" in caught.value.hint
    fitting = planned("internvl2_5-8b", "L4")
    assert fitting.require() is fitting


def test_choices_are_ranked_by_the_price_of_a_picture():
    plan = planned("internvl2_5-78b")
    prices = [sum(choice.cost.per_1000) for choice in plan.choices]
    assert prices == sorted(prices)
    assert plan.gpu_string == plan.choices[0].gpu_string == "H200:2"
    assert all(choice.fits for choice in plan.choices)


def test_a_budget_leaves_out_what_costs_more_an_hour():
    spec, request = MODELS["internvl2_5-78b"], Request()
    plan = make_plan(spec, request, CATALOGUE_PRICES, budget=10)
    assert [choice.gpu_string for choice in plan.choices] == ["H200:2", "L40S:4"]
    none = make_plan(spec, request, CATALOGUE_PRICES, budget=2)
    assert none.choices == ()
    assert "over the budget of 2.00" in none.reason
    with pytest.raises(PlanError, match="budget"):
        none.require()


def test_over_the_budget_the_cheapest_hour_is_named():
    spec = MODELS["internvl2_5-78b"]
    hours = {p.gpu_string: p.cost.per_hour for p in planned(spec).choices}
    cheapest = min(hours, key=hours.get)
    for gpu in (None, parse_gpu("H200:2")):
        over = make_plan(spec, Request(), CATALOGUE_PRICES, gpu=gpu, budget=2)
        assert over.over_budget
        assert gpu or over.gpu_string == cheapest
        with pytest.raises(PlanError) as caught:
            over.require()
        told = f"lmdeploy-0.7.3 on {cheapest}, {hours[cheapest]:.2f} USD an hour"
        assert caught.value.hint == f"without budget=2: {told}"


def test_an_engine_that_does_not_run_the_model_is_refused_with_what_does():
    with pytest.raises(PlanError, match="no reader for Qwen3ForCausalLM") as caught:
        planned("internvl3_5-8b", engine="lmdeploy-0.7.3").require()
    hours = {p.gpu_string: p.cost.per_hour for p in planned("internvl3_5-8b").choices}
    cheapest = min(hours, key=hours.get)
    told = f"lmdeploy on {cheapest}, {hours[cheapest]:.2f} USD an hour"
    assert caught.value.hint == f"without engine=lmdeploy-0.7.3: {told}"


# -- which model --------------------------------------------------------------------------------


def test_a_budget_alone_is_spent_on_the_best_model():
    best = best_within(3.0, Request(), CATALOGUE_PRICES)
    assert best.fits
    assert best.cost.per_hour <= 3
    first, *others = best.alternatives
    assert (first.spec, first.gpu_string) == (best.spec, best.gpu_string)
    assert all(other.fits and other.cost.per_hour <= 3 for other in others)
    assert all(best.quality.score >= other.quality.score for other in others)
    # Each model once, by its cheapest picture that the budget pays for.
    assert len({plan.spec.name for plan in best.alternatives}) == len(best.alternatives)
    for plan in best.alternatives:
        alone = make_plan(plan.spec, Request(), CATALOGUE_PRICES, budget=3.0)
        assert (alone.gpu_string, alone.engine) == (plan.gpu_string, plan.engine)


def value(plan: Plan) -> tuple[float, float]:
    return plan.quality.score, -sum(plan.cost.per_1000)


@given(st.floats(0.1, 40), st.sampled_from([None, *ENGINES]), st.integers(1, 24))
@settings(max_examples=25)
def test_a_ranking_is_by_quality_and_what_is_beaten_comes_last(budget, engine, tiles):
    best = best_within(budget, Request(engine=engine, max_tiles=tiles), CATALOGUE_PRICES)
    ranking = best.alternatives
    if not ranking:
        assert best.over_budget
        assert f"over the budget of {budget:.2f}" in best.reason
        return
    assert {plan.engine for plan in ranking} <= {engine or plan.engine for plan in ranking}
    beaten = [
        any(a != b and all(x >= y for x, y in zip(a, b, strict=True)) for a in map(value, ranking))
        for b in map(value, ranking)
    ]
    assert beaten == sorted(beaten)
    scores = [plan.quality.score for plan in ranking]
    last = beaten.count(False)
    assert scores[:last] == sorted(scores[:last], reverse=True)
    assert scores[last:] == sorted(scores[last:], reverse=True)
    prices = [sum(plan.cost.per_1000) for plan in ranking[:last]]
    assert prices == sorted(prices, reverse=True)  # the better, the dearer: nobody beats them


def test_a_larger_budget_never_buys_a_worse_model():
    scores = [
        best_within(budget, Request(), CATALOGUE_PRICES).quality.score
        for budget in (1.5, 2, 3, 5, 8, 13, 30)
    ]
    assert scores == sorted(scores)


def test_what_no_model_can_answer_is_refused_by_name():
    plan = best_within(3.0, Request(images_per_request=40), CATALOGUE_PRICES)
    with pytest.raises(PlanError, match="one request takes"):
        plan.require()


def test_nothing_works_for_a_request_longer_than_the_context():
    plan = planned("internvl2_5-8b", images_per_request=12)
    assert not plan.fits
    assert plan.choices == ()
    with pytest.raises(PlanError, match="a shorter session_len"):
        plan.require()


def test_a_session_too_short_is_no_gpus_fault():
    plan = planned("internvl2_5-8b", session_len=1000)
    with pytest.raises(PlanError, match="cannot be served so: one request takes 3,636") as caught:
        plan.require()
    assert not any(gpu in caught.value.message for gpu in GPUS)
    working = planned("internvl2_5-8b")
    cheapest = min(working.choices, key=lambda choice: choice.cost.per_hour)
    best = f"lmdeploy-0.7.3 on {cheapest.gpu_string}, {cheapest.cost.per_hour:.2f} USD an hour"
    assert caught.value.hint == f"without session_len=1000: {best}"
    assert "cannot be served so" in str(plan)


def test_the_cheapest_that_works_is_named():
    with pytest.raises(PlanError) as caught:
        planned("internvl2_5-78b", "A100-80GB").require()
    choices = planned("internvl2_5-78b").choices
    cheapest = min(choices, key=lambda choice: choice.cost.per_hour)
    assert f"{cheapest.gpu_string}, {cheapest.cost.per_hour:.2f} USD" in caught.value.hint


def test_more_gpus_than_key_value_heads():
    """TurboMind repeats the heads (turbomind/deploy/target_model/base.py): each GPU has one."""
    plan = planned("internvl2_5-4b", "L4:4")
    assert plan.fits
    assert plan.spec.llm.kv_heads == 2
    assert LMDeployOptions.parse(**plan.settings).tp == 4
    tokens = plan.memory.kv // (plan.spec.kv_bytes_per_token(0) // 2)
    assert plan.capacity.kv_tokens <= tokens < plan.capacity.kv_tokens + 64


def test_recommended_settings_have_the_names_of_lmdeploys_options():
    plan = planned("internvl2_5-78b-awq", "A100-80GB", quant_policy=8, vision_max_batch_size=2)
    assert plan.settings == {
        "model": "OpenGVLab/InternVL2_5-78B-AWQ",
        "model_name": "internvl2_5-78b-awq",
        "model_format": "awq",
        "tp": 1,
        "session_len": 16384,
        "max_batch_size": plan.capacity.max_batch_size,
        "cache_max_entry_count": plan.memory.ratio,
        "quant_policy": 8,
        "vision_max_batch_size": 2,
    }
    assert 1 < plan.capacity.max_batch_size <= plan.capacity.sessions
    assert planned("internvl2_5-78b", "H200:2").settings["model_format"] is None
    assert planned("internvl2_5-78b", "L4").settings["cache_max_entry_count"] == 0.05


VLLMS_NAMES = {
    "model_name": "--served-model-name",
    "tp": "--tensor-parallel-size",
    "session_len": "--max-model-len",
    "max_batch_size": "--max-num-seqs",
}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_command_carries_the_recommended_settings(model):
    plan = planned(model)
    argv, vllm = plan.argv, plan.engine == "vllm"
    begin = ["vllm", "serve"] if vllm else ["lmdeploy", "serve", "api_server"]
    assert argv[: len(begin) + 1] == [*begin, plan.spec.repo]
    for name, value in plan.settings.items():
        flag = (VLLMS_NAMES if vllm else {}).get(name, f"--{name.replace('_', '-')}")
        if vllm and name == "quant_policy":
            continue
        if name != "model" and value is not None:
            assert argv[argv.index(flag) + 1] == str(value)
        assert value is not None or flag not in argv


def test_several_gpus_get_the_small_batch_that_does_not_hang():
    assert planned("internvl2_5-8b", "H100").capacity.max_batch_size == 64
    assert planned("internvl2_5-78b", "H200:2").capacity.max_batch_size == 12
    assert planned("internvl2_5-78b", "H200:2", max_batch_size=32).capacity.max_batch_size == 32
    assert planned("internvl2_5-38b", "A100-80GB", session_len=8192).capacity.max_batch_size == 3


def test_a_session_grows_with_the_request_up_to_the_context():
    assert planned("internvl2_5-8b", images_per_request=4).capacity.session_len == 16384
    assert planned("internvl2_5-8b", images_per_request=6).capacity.session_len == 20480
    assert planned("internvl2_5-8b", images_per_request=9).capacity.session_len == 30720


@pytest.mark.parametrize(
    "wrong",
    [
        {"images_per_request": 0},
        {"max_tiles": 41},
        {"output_tokens": 0},
        {"vision_max_batch_size": 0},
        {"quant_policy": 6},
        {"cache_max_entry_count": 1.0},
        {"cache_max_entry_count": 0.0},
    ],
)
def test_requests_that_make_no_sense_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Request(**wrong)


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("H200:2", "H200", 2),
        ("2 x h200", "H200", 2),
        ("4xA100-80GB", "A100-80GB", 4),
        ("a100", "A100-40GB", 1),
        ("H100!", "H100", 1),
        ("A10G:4", "A10", 4),
        ("RTX-PRO-6000", "RTX-PRO-6000", 1),
    ],
)
def test_gpus_are_read_in_modals_form_and_the_spoken_one(text, name, count):
    assert parse_gpu(text) == (GPUS[name], count)


@pytest.mark.parametrize("text", ["", "V100", "H100:0", "2xH100:2", "H100:two", "gpu"])
def test_unknown_gpus_are_refused_with_the_known_ones(text):
    with pytest.raises(ConfigError, match="one of T4, L4"):
        parse_gpu(text)


def test_plans_are_plain_data():
    plan = planned("internvl2_5-78b", "A100-80GB:2")
    assert pickle.loads(pickle.dumps(plan)).reason == plan.reason
    read = json.loads(json.dumps(plan.to_dict()))
    assert read["fits"] is False
    assert read["memory"]["used"] == plan.memory.used
    assert read["choices"][0]["gpu"] == "H200:2"
    assert repr(plan) == "Plan('internvl2_5-78b', 'A100-80GB:2', fits=False)"


# -- cost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gpu", "tokens_per_second"), [("A100-80GB", 1461), ("H100", 5020)])
def test_speeds_others_measured_lie_in_the_range(gpu, tokens_per_second):
    """Qwen2.5-VL-72B on four GPUs, 8k tokens in and 0.9k out, with vLLM; no pictures counted."""
    spec = MODELS["internvl2_5-78b"]
    load = Load(0, 1, 8000, 900, 16, spec.kv_bytes_per_token())
    best, worst = (request_seconds(spec, GPUS[gpu], 4, load, each) for each in (BEST, WORST))
    assert best < 8900 / tokens_per_second < worst


def test_cost_adds_up():
    plan = planned("internvl2_5-78b", "H200:2", scaledown_window=600)
    cost = plan.cost
    assert cost.per_hour == pytest.approx(2 * 4.54 + 8 * 0.0473 + 32 * 0.008)
    assert cost.idle_window == pytest.approx(cost.per_hour / 6)
    assert cost.start[0] == pytest.approx(cost.per_hour * plan.startup_seconds[0] / 3600)
    assert cost.per_1000[0] < cost.per_1000[1]
    assert cost.of(1000) == pytest.approx(
        [s + p + cost.idle_window for s, p in zip(cost.start, cost.per_1000, strict=True)]
    )
    assert "2026-09-20" in cost.assumptions[0]


def test_a_cold_start_of_the_largest_model_takes_minutes():
    low, high = planned("internvl2_5-78b").startup_seconds
    assert 120 < low < 200
    assert 300 < high < 400


# -- properties ---------------------------------------------------------------------------------

models = st.sampled_from(sorted(MODELS))
gpus = st.sampled_from(sorted(GPUS))


engines = st.sampled_from(ENGINES)


@given(models, engines, gpus, st.sampled_from([0, 4, 8]), st.integers(1, 6))
def test_more_gpus_never_plan_less_capacity(model, engine, gpu, quant_policy, images):
    how = {"engine": engine, "quant_policy": quant_policy, "images_per_request": images}
    plans = [planned(model, f"{gpu}:{n}", **how) for n in COUNTS]
    shared = [plan for plan in plans if plan.count <= plan.spec.llm.kv_heads]  # not repeated
    working = [plan for plan in shared if plan.fits]
    for fewer, more in pairwise(working):
        assert more.capacity.kv_tokens >= fewer.capacity.kv_tokens
        assert more.capacity.sessions >= fewer.capacity.sessions


@given(
    models,
    engines,
    gpus,
    st.sampled_from(COUNTS),
    st.integers(4000, 32000),
    st.integers(1, 10000),
)
def test_a_larger_session_never_fits_more(model, engine, gpu, count, session, more):
    assume(session + more <= 32768)
    small = planned(model, f"{gpu}:{count}", engine=engine, session_len=session)
    large = planned(model, f"{gpu}:{count}", engine=engine, session_len=session + more)
    assert large.capacity.sessions <= small.capacity.sessions
    assert small.fits or not large.fits


@given(models, engines, gpus, st.integers(1, 40), st.integers(1, 40), st.integers(1, 2000))
def test_a_larger_request_never_fits_more(model, engine, gpu, tiles, more_tiles, output):
    assume(tiles + more_tiles <= 40)
    small = planned(model, gpu, engine=engine, max_tiles=tiles, output_tokens=output)
    more = {"max_tiles": tiles + more_tiles, "output_tokens": output + 1}
    large = planned(model, gpu, engine=engine, **more)
    assert large.capacity.sessions <= small.capacity.sessions


@given(
    st.sampled_from(sorted(name for name in MODELS if name.endswith("-awq"))),
    gpus,
    st.sampled_from(COUNTS),
    st.sampled_from([0.05, 0.2, 0.8]),
)
def test_awq_never_needs_more_than_bf16(model, gpu, count, ratio):
    total = GPUS[gpu].memory
    work = Work(count, batch=64, session_len=8192, tiles=13)
    awq, bf16 = (
        measure(MODELS[name], total, work, ratio=ratio)
        for name in (model, model.removesuffix("-awq"))
    )
    assert awq.used - awq.kv <= bf16.used - bf16.kv
    assert awq.kv >= bf16.kv
    if planned(model.removesuffix("-awq"), f"{gpu}:{count}").fits:
        assert planned(model, f"{gpu}:{count}").fits


@given(models, engines, gpus, st.sampled_from(COUNTS))
def test_a_plan_that_fits_keeps_its_margin_and_its_promise(model, engine, gpu, count):
    plan = planned(model, f"{gpu}:{count}", engine=engine)
    assume(plan.fits)
    assert plan.memory.spare >= MARGIN
    assert plan.capacity.kv_tokens >= plan.capacity.session_len >= plan.capacity.request_tokens
    if engine == "vllm":
        assert plan.settings["gpu_memory_utilization"] <= 0.92
        assert plan.settings["gpu_memory_utilization"] * plan.memory.total >= plan.memory.used
    else:
        assert 0 < plan.memory.ratio <= 0.8


@given(
    st.sampled_from(sorted(name for name in MODELS if name.endswith("-fp8-dynamic"))),
    gpus,
    st.sampled_from(COUNTS),
)
def test_fp8_weights_never_plan_less_than_bf16(model, gpu, count):
    fp8, bf16 = (
        planned(name, f"{gpu}:{count}", engine="vllm")
        for name in (model, model.removesuffix("-fp8-dynamic"))
    )
    assert fp8.memory.llm < bf16.memory.llm
    assert fp8.memory.vision == bf16.memory.vision
    assert fp8.fits or not bf16.fits
    assert fp8.capacity.kv_tokens >= bf16.capacity.kv_tokens


@given(models, st.sampled_from(["lmdeploy", "vllm"]), gpus, st.sampled_from(COUNTS))
def test_a_tensor_parallel_vit_lies_between_a_share_and_the_whole(model, engine, gpu, count):
    spec, memory = MODELS[model], planned(model, f"{gpu}:{count}", engine=engine).memory
    assert spec.vision_bytes / count <= memory.vision <= spec.vision_bytes
    if count == 1:
        assert memory.vision == spec.vision_bytes


@given(models, gpus, st.sampled_from(COUNTS))
def test_an_fp8_cache_holds_twice_the_tokens(model, gpu, count):
    full = planned(model, f"{gpu}:{count}", engine="vllm")
    half = planned(model, f"{gpu}:{count}", engine="vllm", quant_policy=8)
    assert half.memory == full.memory
    assert 0 <= half.capacity.kv_tokens - 2 * full.capacity.kv_tokens <= 32
