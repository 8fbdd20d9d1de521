"""What ``Deployment.map`` may cost: the GPU containers that answer, and the CPUs that ask them.

The parts run in containers that know nothing of one another, so money is shared out as time: all of
them stop when the machines together have cost what is allowed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from internvl_modal.batch.options import BatchOptions
from internvl_modal.captions.spend import HOUR, Bill
from internvl_modal.deployment.spec import DeploymentSpec
from internvl_modal.errors import SpendLimitError
from internvl_modal.planning.prices import CATALOGUE_PRICES

__all__ = ["MapBudget", "left_in"]


@dataclass(frozen=True)
class MapBudget:
    """``max_usd`` for the machines of a batch on Modal, at the prices of the plan."""

    max_usd: float
    bill: Bill

    @classmethod
    def of(
        cls, max_usd: float, spec: DeploymentSpec, containers: int, worker: Mapping[str, float]
    ) -> MapBudget:
        """For ``containers`` of ``worker`` (cores and MiB), each of which may keep a GPU busy."""
        cost, prices = spec.plan.cost, CATALOGUE_PRICES
        machines = min(spec.options.max_containers, containers)
        cpu = worker["cpu"] * prices.core + worker["memory"] / 1024 * prices.gib
        return cls(
            max_usd,
            Bill(
                cost.per_hour * machines + cpu * containers,
                cost.idle_window * machines,
                cost.start[0] * machines,
                cost.per_picture,
            ),
        )

    def check(self, pictures: int) -> None:
        """Raise SpendLimitError where they cost more even at best, before anything runs."""
        self.bill.check(self.max_usd, pictures)

    def part(self) -> dict[str, float]:
        """What a part is told: until when all may run, and what an hour of it costs."""
        seconds = (self.max_usd - self.bill.idle_usd) / self.bill.usd_per_hour * HOUR
        # Of the wall's clock, as it is read on other machines.
        return {"until": time.time() + seconds, "usd_per_hour": self.bill.usd_per_hour}

    def exhausted(self, left: int) -> SpendLimitError:
        """What is raised once the parts have stopped with ``left`` pictures not described."""
        return SpendLimitError(
            f"max_usd={self.max_usd:g} is reached; {left:,} pictures are left",
            hint="what was answered is in the parts; the same call goes on, with a budget of its"
            " own",
            spent=self.max_usd,
            max_usd=self.max_usd,
        )


def left_in(budget: Mapping[str, float] | None) -> BatchOptions | None:
    """The options of a part's batch that keep it within ``budget``; None where all is spent."""
    if budget is None:
        return {}
    seconds = budget["until"] - time.time()
    if seconds <= 0:
        return None
    per_hour = budget["usd_per_hour"]
    return {"max_usd": seconds * per_hour / HOUR, "usd_per_hour": per_hour}
