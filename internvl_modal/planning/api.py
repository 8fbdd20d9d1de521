"""``plan``: look the model and the prices up, then plan."""

from __future__ import annotations

from typing import Literal

from internvl_modal.planning.cost import CORES, HOST_GIB
from internvl_modal.planning.gpus import parse_gpu
from internvl_modal.planning.model_lookup import model_spec
from internvl_modal.planning.plan import Plan, Request
from internvl_modal.planning.planner import make_plan
from internvl_modal.planning.prices import CATALOGUE_PRICES, Prices, live_prices

__all__ = ["plan"]


def plan(
    model: str = "internvl2_5-78b",
    *,
    revision: str | None = None,
    gpu: str | None = None,
    images_per_request: int = 1,
    max_tiles: int = 12,
    prompt_tokens: int = 100,
    output_tokens: int = 200,
    session_len: int | None = None,
    max_batch_size: int | None = None,
    cache_max_entry_count: float | None = None,
    quant_policy: int = 0,
    vision_max_batch_size: int = 1,
    scaledown_window: int = 300,
    cpu: float = CORES,
    memory_gib: float = HOST_GIB,
    budget: float | None = None,
    prices: Literal["auto", "catalogue"] | Prices = "auto",
) -> Plan:
    """Say whether a model runs on ``gpu``, or without it which GPUs serve it cheapest.

    ``model`` is a short name or a repository id, read at ``revision``, ``gpu`` Modal's string
    (``"H200:2"``), ``budget`` USD an hour, ``scaledown_window`` seconds, ``cpu`` and ``memory_gib``
    the host's share of the machine. ``prices="auto"`` asks Modal when there are credentials. The
    plan returned may not fit: see ``.fits`` and ``.require()``. Raises ConfigError for an unknown
    model or GPU, WeightsError where the Hub cannot be asked for one that is not in the catalog,
    PlanError where LMDeploy could not load it.
    """
    request = Request(
        images_per_request=images_per_request,
        max_tiles=max_tiles,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        session_len=session_len,
        max_batch_size=max_batch_size,
        cache_max_entry_count=cache_max_entry_count,
        quant_policy=quant_policy,
        vision_max_batch_size=vision_max_batch_size,
        scaledown_window=scaledown_window,
        cpu=cpu,
        memory_gib=memory_gib,
    )
    chosen = parse_gpu(gpu) if gpu else None
    spec = model_spec(model, revision=revision)
    if not isinstance(prices, Prices):
        prices = live_prices() if prices == "auto" else CATALOGUE_PRICES
    return make_plan(spec, request, prices, gpu=chosen, budget=budget)
