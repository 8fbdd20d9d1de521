"""The plan of what was chosen, and what is chosen where nobody said."""

from __future__ import annotations

from typing import Any, Literal

from internvl_modal.deployment.options import DeployOptions
from internvl_modal.errors import ConfigError, DeployError, PlanError
from internvl_modal.planning.api import plan
from internvl_modal.planning.options import PlanOptions
from internvl_modal.planning.plan import Plan

DEFAULT_GPUS = {"internvl2_5-78b": "A100-80GB:4", "internvl2_5-78b-mpo": "A100-80GB:4"}
"""InternVL documents ``--tp 4`` for its 78B, and measures on A100-80GB; others take the planner's
cheapest."""


def planned(
    options: DeployOptions, prices: Literal["auto", "catalogue"] = "auto"
) -> tuple[Plan, ...]:
    """Plan a deployment on each of its choices of GPUs, in order; they may not fit.

    Asks the Hub for a model that is not in the catalog, and Modal for its prices unless they are
    the catalogue's. Raises DeployError for what means nothing, WeightsError and PlanError.

    ``prices="catalogue"`` for what must not ask Modal: dry runs, lookups, putting back.
    """
    # Every planning option is an option of the deployment too, by the same name.
    names = ("revision", "family", *PlanOptions.__annotations__)
    wishes: dict[str, Any] = {name: getattr(options, name) for name in names}
    gpu = options.gpu or DEFAULT_GPUS.get(options.model.strip().lower().removeprefix("opengvlab/"))
    try:
        return tuple(
            plan(options.model, gpu=each, prices=prices, **wishes)
            for each in (gpu.split(",") if gpu else [None])
        )
    except ConfigError as error:
        raise DeployError(error.message, hint=error.hint) from error


def required(plans: tuple[Plan, ...]) -> tuple[Plan, ...]:
    """The plans themselves; raises PlanError for the first that does not fit.

    Modal takes whichever GPUs are free, so that one of a list that does not fit refuses the list.
    """
    for each in plans:
        try:
            each.require()
        except PlanError as error:
            if len(plans) == 1:
                raise
            listed = ", ".join(plan.gpu_string for plan in plans)
            raise PlanError(f"of {listed}: {error.message}", hint=error.hint) from error
    return plans
