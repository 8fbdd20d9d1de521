"""Whether a model runs on a choice of GPUs, how many pictures at once, and at what cost.

No I/O: models come from :mod:`internvl_modal.models`, prices as an argument.

Every choice of GPUs is evaluated in full, also those that do not fit: there are some forty, the
arithmetic of each takes microseconds, and the reasons of what fails are what a user needs to see.
Nothing is searched for and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import chain
from typing import Any

from internvl_modal.models.shapes import ModelSpec
from internvl_modal.models.support import default_engine, refusal
from internvl_modal.planning.cost import Prices, price
from internvl_modal.planning.gpus import COUNTS, GPUS, Gpu
from internvl_modal.planning.memory import KV_BLOCK, MARGIN, MIB, Memory, measure
from internvl_modal.planning.plan import Capacity, Plan, Request, load_of, round_up
from internvl_modal.planning.throughput import startup_seconds

__all__ = ["make_plan"]


MAX_SM = 90  # LMDeploy 0.7.3's CMakeLists.txt ends at 90-real, and "real" leaves no PTX behind

HEAD_DIMS = (64, 128)  # TurboMind's attention kernels


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
        # Within the budget, else over it (and said so below), else the one that came nearest: a
        # plan that does not fit is of use where it shows how much is missing.
        chosen = (choices or working or [max(plans, key=_nearest)])[0]
    if chosen.fits and budget is not None and chosen.cost.per_hour > budget:
        chosen = replace(
            chosen, reason=f"{chosen.cost.per_hour:.2f} USD/h is over the budget of {budget:.2f}"
        )
    remedy = "" if working else _remedy(spec, request, prices)
    # With a GPU named, the headline is about that one, even where no other would do.
    on_any_gpu = gpu is None and chosen.on_any_gpu
    return replace(chosen, choices=choices, remedy=remedy, on_any_gpu=on_any_gpu)


def _nearest(plan: Plan) -> tuple[bool, int]:
    """Of plans that do not work: what could run there at all, with the most memory to spare."""
    runs = plan.gpu.sm <= MAX_SM and not any(_misfits(plan.spec, plan.gpu, plan.count))
    return runs, plan.memory.spare


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
                best = min(working, key=_price_of_pictures)
                return f"without {field.name}={getattr(request, field.name)}: {_priced(best)}"
    return ""


def _priced(plan: Plan) -> str:
    return f"{plan.gpu_string}, {plan.cost.per_hour:.2f} USD an hour"


def _candidates() -> Iterator[tuple[Gpu, int]]:
    """Every type in every number of ``COUNTS`` that Modal puts into one machine."""
    for gpu in GPUS.values():
        for count in COUNTS:
            if count <= gpu.max_count:
                yield gpu, count


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
    memory = measure(
        spec,
        gpu.memory,
        tp=count,
        batch=request.batch(count),
        session_len=session_len,
        tiles=request.tiles * request.vision_max_batch_size,
        ratio=request.cache_max_entry_count,
    )
    capacity = _capacity(spec, count, request, memory, session_len)
    load = load_of(spec, request, capacity)
    limit = refusal(spec, engine) or next(_overlong(spec, request, session_len), "")
    refusals = chain(_misfits(spec, gpu, count), _shortages(gpu, memory, capacity))
    reason = limit or next(refusals, "")
    host = (request.cpu, request.memory_gib)
    window = request.window(startup_seconds(spec))
    cost = price(spec, gpu, count, load, prices, window, host)
    return Plan(
        spec, engine, gpu, count, request, reason, memory, capacity, cost, on_any_gpu=bool(limit)
    )


def _capacity(
    spec: ModelSpec, count: int, request: Request, memory: Memory, session_len: int
) -> Capacity:
    """What the cache holds, in tokens and in requests of the size asked for.

    A request takes whole blocks of 64 tokens; a batch of 0 is shown as 1 so that costs stay finite.
    """
    # Above the number of KV heads, TurboMind repeats them: each GPU holds one whole.
    shares = min(count, spec.llm.kv_heads)
    block = KV_BLOCK * spec.kv_bytes_per_token(request.quant_policy) // shares
    kv_tokens = memory.kv // block * KV_BLOCK
    sessions = kv_tokens // round_up(request.tokens, KV_BLOCK)
    # More at once than fit would be queued inside TurboMind while their pictures wait in memory.
    batch = max(1, min(sessions, request.batch(count)))
    return Capacity(kv_tokens, request.tokens, sessions, session_len, batch)


def _misfits(spec: ModelSpec, gpu: Gpu, count: int) -> Iterator[str]:
    """Say why the model cannot be shared out over these GPUs."""
    llm = spec.llm
    if count > gpu.max_count:
        yield f"Modal offers at most {gpu.max_count} {gpu.name} in one machine"
    if llm.heads % count or (llm.kv_heads % count and count % llm.kv_heads):
        yield (
            f"its {llm.heads} heads and {llm.kv_heads} key-value heads "
            f"cannot be shared out evenly over {count} GPUs"
        )
    if llm.head_dim not in HEAD_DIMS:
        yield f"TurboMind needs heads of 64 or 128, and these are {llm.head_dim} wide"


def _overlong(spec: ModelSpec, request: Request, session_len: int) -> Iterator[str]:
    """Say why the request cannot be answered, however much memory there is."""
    head_dim = spec.llm.head_dim
    if request.quant_policy and head_dim != 128:
        yield f"TurboMind quantises the KV cache of 128-wide heads, and these are {head_dim} wide"
    if session_len > spec.context:
        yield f"a session of {session_len:,} tokens is more than its {spec.context:,} positions"
    if request.tokens > session_len:
        yield f"one request takes {request.tokens:,} tokens, and the session is {session_len:,}"


def _shortages(gpu: Gpu, memory: Memory, capacity: Capacity) -> Iterator[str]:
    """Say what is missing in memory, then in the engine."""
    fixed = memory.llm + memory.vision + memory.runtime
    work = memory.engine + memory.vision_work + MARGIN
    of_total = f"of the {_mib(memory.total)} of each GPU"
    if fixed + work >= memory.total:
        yield (
            f"weights and runtime take {_mib(fixed)} {of_total} and work needs {_mib(work)}: "
            "nothing is left for the KV cache"
        )
    if fixed + work + memory.kv > memory.total:
        yield (
            f"a cache share of {memory.ratio:g} takes {_mib(memory.kv)}, weights and runtime "
            f"{_mib(fixed)} {of_total}, and work needs {_mib(work)}"
        )
    if capacity.kv_tokens < capacity.session_len:
        yield (
            f"the KV cache holds {capacity.kv_tokens:,} tokens, less than one session of "
            f"{capacity.session_len:,}; weights and runtime take {_mib(fixed)} {of_total}, "
            f"work {_mib(work)}"
        )
    if gpu.sm > MAX_SM:
        yield (
            f"{_mib(memory.used)} {of_total} would do, but LMDeploy 0.7.3 has no kernels "
            f"for sm_{gpu.sm}: it is compiled up to sm_{MAX_SM}"
        )


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"
