"""Which model to take: the best of those that a budget pays for.

By the quality that was published, against what 1,000 pictures cost. A model is *beaten* where
another is as good and costs no more; nobody has a reason to take it but its licence or its engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from internvl_modal.models.quality import quality_of, ranked
from internvl_modal.planning.cost import Prices
from internvl_modal.planning.gpus import Gpu
from internvl_modal.planning.plan import Plan
from internvl_modal.planning.planner import best_of
from internvl_modal.planning.request import Request

__all__ = ["best_within"]


def best_within(
    budget: float, request: Request, prices: Prices, *, gpus: Sequence[tuple[Gpu, int]] = ()
) -> Plan:
    """The best model's cheapest plan within ``budget`` USD an hour, with all in ``.alternatives``.

    Those that nobody beats come first, the best of them first, which is the plan itself. Models
    without both figures are not among them. Where nothing costs so little, the plan is the one that
    costs least an hour, and says so.
    """
    plans = [best_of(spec, request, prices, gpus=gpus, budget=budget) for spec in ranked()]
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        return min(plans, key=lambda plan: (not plan.over_budget, plan.cost.per_hour))
    order = sorted(fitting, key=lambda plan: (_beaten(plan, fitting), -_score(plan), _price(plan)))
    return replace(order[0], alternatives=tuple(order))


def _beaten(plan: Plan, others: Iterable[Plan]) -> bool:
    score, price = _score(plan), _price(plan)
    return any(
        _score(other) >= score and _price(other) <= price
        for other in others
        if (_score(other), _price(other)) != (score, price)
    )


def _score(plan: Plan) -> float:
    quality = quality_of(plan.spec)
    return (quality and quality.score) or 0.0


def _price(plan: Plan) -> float:
    """Twice the middle of the range, as elsewhere."""
    return sum(plan.cost.per_1000)
