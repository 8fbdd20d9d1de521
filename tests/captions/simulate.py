"""A batch with a spend guard, on a clock that is simulated: python -m tests.captions.simulate 500.

Prices, speeds, lines of pictures and what goes wrong are drawn at random: servers that answer
slower and slower, hang, fail and make everything wait, and start cold.
"""

from __future__ import annotations

import heapq
import random
import sys
from dataclasses import dataclass

from internvl_modal.captions.spend import Bill, SpendMeter
from internvl_modal.errors import SpendLimitError


@dataclass(frozen=True)
class Ran:
    """What a simulated batch came to, in USD and pictures."""

    max_usd: float
    cost: float
    """Of the machine, from the first request to the end of the idle window."""
    in_flight: float
    """USD of the time that what was under way at the end took beyond the last request."""
    answered: int
    pictures: int
    refused: bool = False

    @property
    def excess(self) -> float:
        return self.cost - self.max_usd


def run(seed: int) -> Ran:
    rng = random.Random(seed)
    now = [0.0]
    per_hour = rng.choice([0.5, 4, 30]) * rng.uniform(0.5, 2)
    pictures, at_once = rng.randrange(1, 400), rng.randrange(1, 33)
    mean = 10 ** rng.uniform(-1, 1.3)
    bill = Bill(
        per_hour,
        idle_usd=per_hour * rng.choice([0, 60, 300]) / 3600,
        start_usd=per_hour * rng.choice([0, 90]) / 3600,
        per_picture=rng.choice([None, (mean / at_once * per_hour / 3600,) * 2]),
    )
    whole = pictures * mean / at_once * per_hour / 3600 + bill.idle_usd + bill.start_usd
    meter = SpendMeter(whole * 10 ** rng.uniform(-1, 0.5), bill, clock=lambda: now[0])
    try:
        bill.check(meter.max_usd, pictures)
    except SpendLimitError:
        return Ran(meter.max_usd, 0.0, 0.0, 0, pictures, refused=True)
    slower, failing = rng.choice([0, 0, 0.01]), rng.choice([0, 0.1, 0.5])
    crash = rng.choice([None, rng.uniform(0, mean * pictures / at_once)])

    def seconds() -> float:
        cold = bill.start_usd * 3600 / per_hour if now[0] == 0 else 0.0
        if rng.random() < 0.01:
            return 600.0  # it hangs until the timeout
        return cold + rng.expovariate(1 / mean) * (1 + slower * answered)

    waiting, answered, last = pictures, 0, 0.0
    under_way: list[tuple[float, float]] = []  # end, begin
    resume_at = 0.0
    while waiting or under_way:
        ended = crash is not None and now[0] >= crash
        if waiting and len(under_way) < at_once and now[0] >= resume_at and not ended:
            if not meter.may_send():
                break
            last = now[0]
            heapq.heappush(under_way, (now[0] + seconds(), meter.sent()))
            waiting -= 1
            continue
        if under_way:
            now[0], since = heapq.heappop(under_way)
            meter.answered(since)
            if rng.random() < failing:
                waiting += 1  # it is sent again, after everything has waited
                resume_at = now[0] + rng.expovariate(1 / 5)
            else:
                answered += 1
        elif ended:
            break
        else:
            now[0] = resume_at
    for end, since in sorted(under_way):
        now[0] = end
        meter.answered(since)
    usd = per_hour / 3600
    cost = now[0] * usd + bill.idle_usd if last or answered else 0.0
    return Ran(meter.max_usd, cost, (now[0] - last) * usd, answered, pictures)


def main(batches: int) -> None:
    runs = [run(seed) for seed in range(batches)]
    refused = sum(each.refused for each in runs)
    stopped = sum(each.answered < each.pictures for each in runs) - refused
    over = [each for each in runs if each.excess > 1e-9]
    beyond = sum(each.excess > each.in_flight + 1e-9 for each in runs)
    print(f"{batches} batches: {refused} refused beforehand, {stopped} stopped before their end")
    print(f"{len(over)} ended above max_usd, {beyond} by more than what was in flight")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
