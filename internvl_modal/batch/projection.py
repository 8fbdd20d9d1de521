"""From a part of a source to all of it: what the whole would take, and cost."""

from __future__ import annotations

from dataclasses import dataclass

PER = 1000
"""Pictures that are told of where nobody knows how many there are."""


@dataclass(frozen=True)
class Projection:
    """What so many pictures would take at the pace of those that were described.

    A start of a machine is not part of it, and neither is a model that writes longer about others.
    """

    pictures: int
    seconds: float
    completion_tokens: int
    usd: float | None = None
    """Where the price of the machine is known."""

    def __str__(self) -> str:
        cost = "" if self.usd is None else f", {self.usd:.2f} USD"
        return (
            f"{self.pictures:,} pictures would take {lasting(self.seconds)}"
            f" and {self.completion_tokens:,} tokens{cost}"
        )


def project(
    done: int, seconds: float, tokens: int, whole: int | None, usd_per_hour: float | None
) -> Projection | None:
    """From ``done`` pictures to ``whole``, or to a thousand; None where none is done."""
    if not done:
        return None
    pictures = PER if whole is None else whole
    long = seconds / done * pictures
    usd = None if usd_per_hour is None else usd_per_hour * long / 3600
    return Projection(pictures, long, round(tokens / done * pictures), usd)


def lasting(seconds: float) -> str:
    """A length of time for people.

    >>> lasting(48), lasting(1500), lasting(11_100), lasting(400_000)
    ('48 s', '25 min', '3 h 05 min', '4 d 15 h')
    """
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if hours < 72:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{hours // 24} d {hours % 24} h"
