"""Whether a model runs on a choice of GPUs, how many pictures at once, and at what cost.

No I/O: models come from :mod:`internvl_modal.models`, prices as an argument.

Every choice of GPUs is evaluated in full, also those that do not fit: there are some forty, the
arithmetic of each takes microseconds, and the reasons of what fails are what a user needs to see.
Nothing is searched for and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from internvl_modal.models.shapes import ModelSpec
from internvl_modal.models.support import EngineName, default_engine
from internvl_modal.planning.cost import Prices, idle_window, price
from internvl_modal.planning.footprint import Work
from internvl_modal.planning.gpus import COUNTS, GPUS, Gpu
from internvl_modal.planning.limits import MAX_SM, misfit, overlong, shortage
from internvl_modal.planning.memory import (
    Capacity,
    Memory,
    kv_block,
    kv_bytes_per_token,
    measure,
)
from internvl_modal.planning.plan import Plan, load_of
from internvl_modal.planning.request import Request, round_up
from internvl_modal.planning.throughput import startup_seconds

__all__ = ["best_of", "make_plan"]


def best_of(
    spec: ModelSpec,
    request: Request,
    prices: Prices,
    *,
    gpus: Sequence[tuple[Gpu, int]],
    budget: float | None = None,
) -> Plan:
    """``make_plan`` on each of ``gpus``: the cheapest per picture of those that work.

    They are its ``choices``. The plan of the first where none works, and of all GPUs where none is
    named.
    """
    plans = [
        make_plan(spec, request, prices, gpu=each, budget=budget) for each in (*gpus,) or (None,)
    ]
    working = sorted((plan for plan in plans if plan.fits), key=_price_of_pictures)
    if len(gpus) < 2 or not working:
        return plans[0]
    return replace(working[0], choices=tuple(replace(plan, choices=()) for plan in working))


def make_plan(
    spec: ModelSpec,
    request: Request,
    prices: Prices,
    *,
    gpu: tuple[Gpu, int] | None = None,
    budget: float | None = None,
) -> Plan:
    """Plan ``gpu`` (a type and how many), or else the cheapest per picture of all that work.

    ``budget`` is in USD an hour.

    Raises nothing for what does not fit: the plan returned says so in ``reason``. One over the
    budget is refused in the same way, and stays among no choices.
    """
    plans = [_evaluate(spec, *each, request, prices) for each in _candidates()]
    working = sorted((plan for plan in plans if plan.fits), key=_price_of_pictures)
    choices = tuple(plan for plan in working if budget is None or plan.cost.per_hour <= budget)
    if gpu is not None:
        chosen = _evaluate(spec, *gpu, request, prices)
    else:
        # Within the budget, else the least over it (and said so below), else the one that came
        # nearest: a plan that does not fit is of use where it shows how much is missing.
        over = sorted(working, key=_price_of_hour) or [max(plans, key=_nearest)]
        chosen = (choices or over)[0]
    if chosen.fits and budget is not None and chosen.cost.per_hour > budget:
        reason = f"{chosen.cost.per_hour:.2f} USD/h is over the budget of {budget:.2f}"
        chosen = replace(chosen, reason=reason, over_budget=True)
    remedy = "" if working else _remedy(spec, request, prices)
    if working and not choices:
        remedy = f"without budget={budget:g}: {_priced(min(working, key=_price_of_hour))}"
    # With a GPU named, the headline is about that one, even where no other would do.
    on_any_gpu = gpu is None and chosen.on_any_gpu
    return replace(chosen, choices=choices, remedy=remedy, on_any_gpu=on_any_gpu)


def _nearest(plan: Plan) -> tuple[bool, int]:
    """Of plans that do not work: what could run there at all, with the most memory to spare."""
    fitting = not misfit(plan.spec, plan.engine, plan.gpu, plan.count, plan.request)
    return plan.gpu.sm <= MAX_SM[plan.engine] and fitting, plan.memory.spare


def _remedy(spec: ModelSpec, request: Request, prices: Prices) -> str:
    """The first of what was fixed that, left out, lets a choice of GPUs work; and the cheapest.

    One option at a time, as two that are wrong together have two messages anyway. It is asked for
    only when nothing works, since it plans everything again for each option that was set.
    """
    for field in fields(Request):
        # What is at its default was not wished for, so leaving it out changes nothing.
        if getattr(request, field.name) != field.default:
            usual: dict[str, Any] = {field.name: field.default}
            freed = replace(request, **usual)
            plans = [_evaluate(spec, *each, freed, prices) for each in _candidates()]
            if working := [plan for plan in plans if plan.fits]:
                best = min(working, key=_price_of_hour)
                return f"without {field.name}={getattr(request, field.name)}: {_priced(best)}"
    return ""


def _priced(plan: Plan) -> str:
    return f"{plan.engine} on {plan.gpu_string}, {plan.cost.per_hour:.2f} USD an hour"


def _candidates() -> Iterator[tuple[Gpu, int]]:
    """Every type in every number of ``COUNTS`` that Modal puts into one machine."""
    for gpu in GPUS.values():
        for count in COUNTS:
            if count <= gpu.max_count:
                yield gpu, count


def _price_of_hour(plan: Plan) -> float:
    return plan.cost.per_hour


def _price_of_pictures(plan: Plan) -> float:
    """What choices are ordered by: twice the middle of the range, as its ends alone would favour
    GPUs whose range is wide.
    """
    return sum(plan.cost.per_1000)


def _evaluate(spec: ModelSpec, gpu: Gpu, count: int, request: Request, prices: Prices) -> Plan:
    """The whole plan of one choice. The first reason wins: lengths, then heads, then memory, then
    kernels, because a message about memory is of no use to somebody whose request is too long.
    """
    engine = request.engine or default_engine(spec)
    session_len = request.session(spec.context)
    tiles = request.tiles * request.vision_max_batch_size
    work = Work(count, request.batch(count, engine), session_len, tiles)
    ratio = request.cache_max_entry_count
    memory = measure(spec, gpu.memory, work, engine=engine, ratio=ratio)
    capacity = _capacity(spec, engine, request, memory, work)
    limit = overlong(spec, engine, request, session_len)
    reason = (
        limit
        or misfit(spec, engine, gpu, count, request)
        or shortage(gpu, engine, memory, capacity)
    )
    load = load_of(spec, engine, request, capacity)
    host = (request.cpu, request.memory_gib)
    window = request.scaledown_window or idle_window(startup_seconds(spec))
    cost = price(spec, gpu, count, load, prices, window, host)
    return Plan(
        spec, engine, gpu, count, request, reason, memory, capacity, cost, on_any_gpu=bool(limit)
    )


def _capacity(
    spec: ModelSpec, engine: EngineName, request: Request, memory: Memory, work: Work
) -> Capacity:
    """What the cache holds, in tokens and in requests of the size asked for.

    A request takes whole blocks; a batch of 0 is shown as 1 so that costs stay finite.
    """
    # Above the number of KV heads, engines repeat them: each GPU holds one whole.
    shares = min(work.tp, spec.llm.kv_heads)
    tokens = kv_block(engine)
    block = tokens * kv_bytes_per_token(spec, engine, request.quant_policy) // shares
    kv_tokens = memory.kv // block * tokens
    sessions = kv_tokens // round_up(request.tokens, tokens)
    # More at once than fit would be queued inside the engine while their pictures wait in memory.
    batch = max(1, min(sessions, work.batch))
    return Capacity(kv_tokens, request.tokens, sessions, work.session_len, batch)
