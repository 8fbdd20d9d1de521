"""``plan``: look the model and the prices up, then plan.

The only file of the folder that does I/O on behalf of the pure ones: it may read a ``config.json``
from the Hub and the prices from Modal, and hands both to ``make_plan``, which asks nobody. So a
plan can be made again from the same model and prices, and the tests of the arithmetic need no
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from typing_extensions import Unpack

from internvl_modal._utils.short_errors import short_errors
from internvl_modal.errors import ConfigError
from internvl_modal.planning.cost import Prices
from internvl_modal.planning.gpus import parse_gpus
from internvl_modal.planning.model_lookup import model_spec
from internvl_modal.planning.options import PlanOptions
from internvl_modal.planning.plan import Plan
from internvl_modal.planning.planner import best_of
from internvl_modal.planning.prices import CATALOGUE_PRICES, live_prices
from internvl_modal.planning.ranking import best_within
from internvl_modal.planning.request import Request, is_number, with_plan_options

__all__ = ["plan"]

DEFAULT_MODEL = "internvl2_5-78b"


@short_errors
@with_plan_options
def plan(
    model: str | None = None,
    *,
    revision: str | None = None,
    family: str | None = None,
    gpu: str | Sequence[str] | None = None,
    budget: float | None = None,
    prices: Literal["auto", "catalogue"] | Prices = "auto",
    **options: Unpack[PlanOptions],
) -> Plan:
    """Say whether a model runs on ``gpu``, or without it which GPUs serve it cheapest.

    ``model`` is a short name or a repository id, read at ``revision``; with ``family``, the name of
    the listed model that it was made from, nothing is read. With a ``budget`` (USD an hour) and no
    model: the best model that it pays for, by published quality, the others in ``.alternatives``;
    with neither, internvl2_5-78b. ``gpu`` is Modal's string (``"H200:2"``) or several of them: then
    the cheapest per picture is taken, and ``.choices`` holds those that work. ``prices="auto"``
    asks Modal when there are credentials. The plan returned may not fit: see ``.fits`` and
    ``.require()``. Raises ConfigError for an unknown model, GPU or option, WeightsError where the
    Hub cannot be asked for one that is not in the catalog, PlanError for what is no InternVL.

    >>> tight = plan("internvl2_5-78b", gpu="A100-80GB:2", prices="catalogue")
    >>> tight.fits, tight.choices[0].gpu_string
    (False, 'H200:2')
    """
    # A TypedDict checks keywords for type checkers only; at run time a misspelt option would arrive
    # in ``Request`` as a TypeError that names a class which the caller has never heard of.
    if unknown := set(options) - set(PlanOptions.__annotations__):
        raise ConfigError(
            f"plan() has no option {', '.join(sorted(unknown))}",
            hint=f"options: {', '.join(PlanOptions.__annotations__)}",
        )
    if budget is not None and not (is_number(budget) and budget > 0):
        raise ConfigError(f"budget = {budget!r}: it must be more than 0 USD an hour")
    if model is None and (revision or family):
        raise ConfigError(
            "revision and family are of a repository, and no model is named", hint="name the model"
        )
    request = Request(**options)
    # Read before the model is looked up: a mistyped GPU should not first cost a question to the
    # Hub.
    gpus = parse_gpus(gpu) if gpu else []
    if model is None and budget is not None:
        return best_within(budget, request, _prices(prices), gpus=gpus)
    spec = model_spec(model or DEFAULT_MODEL, revision=revision, family=family)
    return best_of(spec, request, _prices(prices), gpus=gpus, budget=budget)


def _prices(prices: Literal["auto", "catalogue"] | Prices) -> Prices:
    if isinstance(prices, Prices):
        return prices
    return live_prices() if prices == "auto" else CATALOGUE_PRICES
