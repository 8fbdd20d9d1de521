"""Every model of the catalogue on every engine, as a dry run; nothing is asked of Modal."""

from __future__ import annotations

import warnings

import pytest

from internvl_modal.deployment.api import deploy
from internvl_modal.deployment.machine import choose
from internvl_modal.engines.registry import ENGINES, engine_of
from internvl_modal.errors import ConfigError, DeployError, PlanError
from internvl_modal.models.catalogue import MODELS
from internvl_modal.models.support import default_engine, engines_of, refusal


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_on_every_engine(model: str, engine: str) -> None:
    """What would be made, or why it cannot be."""
    spec, chosen = MODELS[model], engine_of(engine)
    if why := refusal(spec, chosen.engine):
        with pytest.raises(PlanError) as caught:
            deploy(model, engine=chosen.engine, dry_run=True)
        assert why in caught.value.message
        return
    made = deploy(model, engine=chosen.engine, dry_run=True)
    serve = made.spec.function("serve")
    assert (made.options.engine, made.spec.container.engine) == (engine, engine)
    assert serve.image.base == chosen.image
    assert serve.image.commands == chosen.build(flash_attention=made.plan.gpu.flash_attention)
    assert made.spec.argv[0] == chosen.program
    assert spec.repo in made.spec.argv
    assert serve.caches == chosen.caches
    assert str(made.spec).startswith(f"app       multimodal-{model}\n")
    assert made.plan.fits


def test_the_engines_that_are_taken_where_nobody_names_one() -> None:
    engines = {model: deploy(model, dry_run=True).options.engine for model in MODELS}
    assert engines["internvl2_5-78b"] == engines["internvl3-8b"] == "lmdeploy-0.7.3"
    assert engines["internvl3-9b"] == engines["internvl3_5-8b"] == "lmdeploy"
    assert engines["internvl3_5-8b-flash"] == "lmdeploy"
    assert engines["internvl3_5-8b-fp8-dynamic"] == "vllm"
    assert engines == {name: default_engine(spec) for name, spec in MODELS.items()}
    assert all(engines_of(spec) for spec in MODELS.values())


def test_several_gpus_in_order_of_preference() -> None:
    """Each is planned; the dearest is what the bill is reckoned with."""
    made = deploy("internvl2_5-78b", gpu=["H100:4", "A100-80GB:4"], dry_run=True)
    serve, container = made.spec.function("serve"), made.spec.container
    assert serve.gpus == ("H100:4", "A100-80GB:4")
    assert made.options.gpu == "H100:4,A100-80GB:4"
    assert made.plan.gpu_string == "H100:4"
    assert [each["gpu"] for each in container.machines] == ["H100:4", "A100-80GB:4"]
    assert [each["settings"]["tp"] for each in container.machines] == [4, 4]
    assert "\n          on A100-80GB:4: 4 GPUs, 12 requests at once\n" in str(made.spec)
    assert made.cost().per_hour == made.plan.cost.per_hour
    alone = deploy("internvl2_5-78b", gpu="A100-80GB:4", dry_run=True)
    assert made.cost().per_hour > alone.cost().per_hour


def test_counts_of_a_list_may_differ() -> None:
    made = deploy("internvl2_5-38b", gpu=["A100-80GB:2", "H200"], dry_run=True)
    told = [(each["gpu"], each["settings"]["tp"]) for each in made.spec.container.machines]
    assert told == [("A100-80GB:2", 2), ("H200", 1)]
    batches = [each["settings"]["max_batch_size"] for each in made.spec.container.machines]
    web = made.spec.function("serve").web
    assert web is not None
    assert web.concurrency == max(batches)


@pytest.mark.parametrize("gpu", [["H100:4", "L4:4"], ("H100:4", "L4:4"), "H100:4, L4:4"])
def test_one_that_does_not_fit_refuses_the_list(gpu: list[str]) -> None:
    with pytest.raises(PlanError, match=r"^of H100:4, L4:4: .* does not fit on 4 x L4") as caught:
        deploy("internvl2_5-78b", gpu=gpu, dry_run=True)
    assert "what works" in (caught.value.hint or "")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        made = deploy("internvl2_5-78b", gpu=gpu, force=True, dry_run=True)
    assert "what should not work" in str(warned[0].message)
    assert made.spec.function("serve").gpus == ("H100:4", "L4:4")


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        (["H100:4", "GTX"], "GTX"),
        (["H100:4", ""], "has no name"),
        (["A10:8"], "at most 4 A10"),
        (4, "gpu"),
    ],
)
def test_lists_that_are_none(gpu: object, said: str) -> None:
    with pytest.raises((ConfigError, DeployError), match=said):
        deploy("internvl2_5-78b", gpu=gpu, dry_run=True)  # type: ignore[arg-type]


def test_an_engine_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="engine"):
        deploy("internvl2_5-78b", engine="sglang", dry_run=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tensor-parallel-size", "2"], "has a place of its own"),
        (["--quant-policy", "8"], "vLLM has no --quant-policy"),
    ],
)
def test_engine_args_are_the_engines(arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        deploy("internvl2_5-8b", engine="vllm", engine_args=arguments, dry_run=True)
    deploy("internvl2_5-8b", engine_args=["--communicator", "nccl"], dry_run=True)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"vision_max_batch_size": 4}, "vLLM itself decides how many pictures"),
        ({"quant_policy": 4}, "vLLM has no KV cache of 4 bits"),
    ],
)
def test_options_that_an_engine_has_not(option: dict[str, int], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        deploy("internvl3-8b", engine="vllm", dry_run=True, **option)  # type: ignore[arg-type]
    assert deploy("internvl3-8b", dry_run=True, **option).plan.fits  # type: ignore[arg-type]


MACHINES = [
    {"gpu": "H100:2", "memory": 79 * 2**30},
    {"gpu": "A100-80GB:2", "memory": 79 * 2**30},
    {"gpu": "A100-40GB:2", "memory": 39 * 2**30},
    {"gpu": "L40S:4", "memory": 44 * 2**30},
]
"""Bytes as programs find them; the driver tells a little more."""


@pytest.mark.parametrize(
    ("name", "gib", "count", "chosen"),
    [
        ("NVIDIA H100 80GB HBM3", 80, 2, "H100:2"),
        ("NVIDIA A100-SXM4-80GB", 80, 2, "A100-80GB:2"),
        ("NVIDIA A100 80GB PCIe", 80, 2, "A100-80GB:2"),
        ("NVIDIA A100-SXM4-40GB", 40, 2, "A100-40GB:2"),
        ("NVIDIA L40S", 45, 4, "L40S:4"),
        ("NVIDIA H200", 140, 2, "H100:2"),
        ("NVIDIA B200", 180, 4, "L40S:4"),
        ("NVIDIA L4", 22, 2, None),
        ("NVIDIA H100 80GB HBM3", 80, 8, None),
    ],
)
def test_the_container_finds_its_machine(
    name: str, gib: int, count: int, chosen: str | None
) -> None:
    """By the driver's names; one that Modal gave instead of what was asked for is as good."""
    found = [(name, gib * 2**30)] * count
    if chosen is None:
        with pytest.raises(DeployError, match=f"here is {count} x {name}"):
            choose(MACHINES, found)
    else:
        assert choose(MACHINES, found)["gpu"] == chosen


def test_without_a_gpu_there_is_no_machine() -> None:
    with pytest.raises(DeployError, match="here is 0 x no GPU"):
        choose(MACHINES, [])


def test_the_idle_window_follows_from_what_a_start_takes() -> None:
    small, large = (deploy(model, dry_run=True) for model in ("internvl2_5-1b", "internvl2_5-78b"))
    for made in (small, large):
        start = made.plan.startup_seconds
        window = made.spec.function("serve").scaledown_window
        assert start[0] <= window <= start[1]
        assert made.cost().start[0] <= made.cost().idle_window <= made.cost().start[1]
    assert small.plan.idle_window < large.plan.idle_window
    given = deploy("internvl2_5-1b", scaledown_window=77, dry_run=True)
    assert given.spec.function("serve").scaledown_window == 77
