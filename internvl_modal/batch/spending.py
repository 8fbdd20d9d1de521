"""The spend guard of a batch: from its options and what is known of the server."""

from __future__ import annotations

import math

from internvl_modal.batch.options import Job
from internvl_modal.batch.sinks.base import SeenKeys, Sink
from internvl_modal.captions.spend import Bill, SpendMeter, bill_of
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.schema.options import DETAIL_TILES

__all__ = ["guard", "left_of", "price_of"]


def guard(job: Job, endpoint: Endpoint, most: int, pictures: int | None) -> SpendMeter | None:
    """What ``max_usd`` asks before each request; None without it.

    ``most`` requests may be under way at once, ``pictures`` are to be asked about, None where
    nobody knows. Raises ConfigError where no price is known, SpendLimitError where even the best
    case costs more.
    """
    if job.settings.max_usd is None:
        return None
    bill = _bill(job, endpoint, most)
    bill.check(job.settings.max_usd, pictures)
    return SpendMeter(job.settings.max_usd, bill)


def left_of(whole: int | None, sink: Sink) -> int | None:
    """Inputs that no earlier run has settled, about."""
    settled = sink.settled if isinstance(sink, SeenKeys) else 0
    return None if whole is None else max(0, whole - settled)


def price_of(job: Job, endpoint: Endpoint) -> float | None:
    """USD an hour: what the caller says, else what is known of the machine."""
    return job.settings.usd_per_hour or endpoint.usd_per_hour


def _bill(job: Job, endpoint: Endpoint, most: int) -> Bill:
    # What does not fit one machine makes an autoscaler start another.
    machines = math.ceil(most / endpoint.sessions) if endpoint.sessions else 1
    one = bill_of(price_of(job, endpoint), endpoint.idle_usd, endpoint.start_usd)
    per_picture = None
    # A price of the caller's own is not what the plan reckons with.
    if endpoint.price is not None and job.settings.usd_per_hour is None:
        detail = job.checked.detail
        tiles = (
            DETAIL_TILES.get(detail, DETAIL_TILES["medium"]) if isinstance(detail, str) else detail
        )
        low, high = endpoint.price.picture_cost(tiles + 1)  # with the thumbnail
        per_picture = low, high
    return Bill(
        one.usd_per_hour * machines,
        one.idle_usd * machines,
        one.start_usd * machines,
        per_picture,
    )
