"""``plan``: look the model and the prices up, then plan."""

from __future__ import annotations

from typing import Literal

from typing_extensions import Unpack

from internvl_modal.errors import ConfigError
from internvl_modal.planning.cost import Prices
from internvl_modal.planning.gpus import parse_gpu
from internvl_modal.planning.model_lookup import model_spec
from internvl_modal.planning.options import PlanOptions
from internvl_modal.planning.plan import Plan, Request, with_plan_options
from internvl_modal.planning.planner import make_plan
from internvl_modal.planning.prices import CATALOGUE_PRICES, live_prices

__all__ = ["plan"]


@with_plan_options
def plan(
    model: str = "internvl2_5-78b",
    *,
    revision: str | None = None,
    gpu: str | None = None,
    budget: float | None = None,
    prices: Literal["auto", "catalogue"] | Prices = "auto",
    **options: Unpack[PlanOptions],
) -> Plan:
    """Say whether a model runs on ``gpu``, or without it which GPUs serve it cheapest.

    ``model`` is a short name or a repository id, read at ``revision``, ``gpu`` Modal's string
    (``"H200:2"``), ``budget`` USD an hour. ``prices="auto"`` asks Modal when there are
    credentials. The plan returned may not fit: see ``.fits`` and ``.require()``. Raises
    ConfigError for an unknown model, GPU or option, WeightsError where the Hub cannot be asked for
    one that is not in the catalog, PlanError where LMDeploy could not load it.
    """
    if unknown := set(options) - set(PlanOptions.__annotations__):
        raise ConfigError(
            f"plan() has no option {', '.join(sorted(unknown))}",
            hint=f"options: {', '.join(PlanOptions.__annotations__)}",
        )
    request = Request(**options)
    chosen = parse_gpu(gpu) if gpu else None
    spec = model_spec(model, revision=revision)
    if not isinstance(prices, Prices):
        prices = live_prices() if prices == "auto" else CATALOGUE_PRICES
    return make_plan(spec, request, prices, gpu=chosen, budget=budget)
