"""Whether a model runs on a choice of GPUs, how many pictures at once, and at what cost.

No I/O: models come from :mod:`internvl_modal.catalog`, prices as an argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from internvl_modal.catalog import TILE_TOKENS, ModelSpec
from internvl_modal.costs import (
    CORES,
    HOST_GIB,
    Cost,
    Load,
    picture_cost,
    price,
    startup_seconds,
)
from internvl_modal.errors import ConfigError, PlanError
from internvl_modal.gpus import COUNTS, GPUS, Gpu, Prices
from internvl_modal.memory import KV_BLOCK, MARGIN, MIB, Memory, measure

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Capacity", "Plan", "Request", "make_plan"]

USEFUL_SESSION = 16384  # tokens InternVL 2.5 was trained to; the documents serve half of it
MAX_BATCH = 64  # requests at once: more only queue behind the ViT, which is one thread
# On several GPUs LMDeploy 0.7.3 has hung with 16 and more picture requests under way, and not with
# fewer: https://github.com/InternLM/lmdeploy/issues/3529 (InternVL2.5-78B), also 2743 and 3057.
MAX_BATCH_SEVERAL = 12
MAX_SM = 90  # LMDeploy 0.7.3's CMakeLists.txt ends at 90-real, and "real" leaves no PTX behind
LEAST_RATIO = 0.05  # for whoever starts a plan that does not fit; LMDeploy takes no 0
HEAD_DIMS = (64, 128)  # TurboMind's attention kernels
IMAGE_MARKUP_TOKENS = 8  # "Image-1: <img></img>\n"
AT_LEAST_ONE = (
    *("images_per_request", "max_tiles", "output_tokens", "vision_max_batch_size"),
    *("cpu", "memory_gib"),
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a deployment must be able to answer, and what may be fixed of its settings.

    None leaves a setting to the planner. ``flash_attention`` is for an image of one's own: the
    published one has no flash-attn.
    """

    images_per_request: int = 1
    max_tiles: int = 12
    prompt_tokens: int = 100
    output_tokens: int = 200
    session_len: int | None = None
    max_batch_size: int | None = None
    cache_max_entry_count: float | None = None
    quant_policy: int = 0
    vision_max_batch_size: int = 1
    scaledown_window: int = 300
    cpu: float = CORES
    memory_gib: float = HOST_GIB
    flash_attention: bool = False

    def __post_init__(self) -> None:
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be at least 1")
        if self.max_tiles > 40:
            raise ConfigError(f"max_tiles = {self.max_tiles}: it must be at most 40")
        if self.quant_policy not in (0, 4, 8):
            raise ConfigError(f"quant_policy = {self.quant_policy}: it must be 0, 4 or 8")
        ratio = self.cache_max_entry_count
        if ratio is not None and not 0 < ratio < 1:
            raise ConfigError(f"cache_max_entry_count = {ratio}: it must lie between 0 and 1")

    @property
    def tiles(self) -> int:
        """Of one picture at most, the thumbnail included."""
        return self.max_tiles + 1 if self.max_tiles > 1 else 1

    @property
    def input_tokens(self) -> int:
        """Pictures and text."""
        image = self.tiles * TILE_TOKENS + IMAGE_MARKUP_TOKENS
        return self.images_per_request * image + self.prompt_tokens

    @property
    def tokens(self) -> int:
        """Of one request from beginning to end."""
        return self.input_tokens + self.output_tokens

    def batch(self, count: int) -> int:
        """Most requests at once on ``count`` GPUs."""
        return self.max_batch_size or (MAX_BATCH if count == 1 else MAX_BATCH_SEVERAL)

    def session(self, context: int) -> int:
        """The session length asked for, else a useful one in which the request fits."""
        return self.session_len or min(context, max(USEFUL_SESSION, _up(self.tokens, 1024)))


@dataclass(frozen=True)
class Capacity:
    """Tokens, and requests of the planned size.

    ``sessions`` fit into the KV cache; the server takes ``max_batch_size`` at once, no more.
    """

    kv_tokens: int
    request_tokens: int
    sessions: int
    session_len: int
    max_batch_size: int


@dataclass(frozen=True, repr=False)
class Plan:
    """One model on one choice of GPUs.

    ``reason`` says why it does not fit, ``choices`` are the plans that do, cheapest picture (in the
    middle of its range) first.
    """

    spec: ModelSpec
    gpu: Gpu
    count: int
    request: Request
    reason: str
    memory: Memory
    capacity: Capacity
    cost: Cost
    choices: tuple[Plan, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether it works."""
        return not self.reason

    @property
    def gpu_string(self) -> str:
        """As Modal wants it."""
        return self.gpu.name if self.count == 1 else f"{self.gpu.name}:{self.count}"

    @property
    def startup_seconds(self) -> tuple[float, float]:
        """Cold container to first answer, best and worst case."""
        return startup_seconds(self.spec)

    def picture_cost(self, tiles: int) -> tuple[float, float]:
        """USD for one picture of so many tiles on a busy machine, best and worst case."""
        alone = replace(self.request, images_per_request=1, max_tiles=max(1, tiles - 1))
        load = _load(self.spec, alone, self.capacity)
        return picture_cost(self.spec, self.gpu, self.count, load, self.cost.per_hour)

    @property
    def settings(self) -> dict[str, Any]:
        """Of the LMDeploy server, by the names of its options."""
        return {
            "model": self.spec.repo,
            "model_name": self.spec.name,
            "model_format": "awq" if self.spec.awq else None,
            "tp": self.count,
            "session_len": self.capacity.session_len,
            "max_batch_size": self.capacity.max_batch_size,
            "cache_max_entry_count": self.memory.ratio or LEAST_RATIO,
            "quant_policy": self.request.quant_policy,
            "vision_max_batch_size": self.request.vision_max_batch_size,
        }

    @property
    def argv(self) -> list[str]:
        """The command that serves the model so."""
        from internvl_modal.lmdeploy_server import LMDeployOptions

        return LMDeployOptions.parse(**self.settings).argv()

    def require(self) -> Plan:
        """Return the plan itself; raise PlanError, naming choices that work, if it does not fit."""
        if self.fits:
            return self
        near = sorted(self.choices, key=lambda choice: choice.gpu is not self.gpu)[:3]
        raise PlanError(
            f"{self.spec.name} does not fit on {self.count} x {self.gpu.name}: {self.reason}",
            hint=f"what works: {', '.join(choice.gpu_string for choice in near)}"
            if near
            else "a smaller model, an -AWQ one or a shorter session_len needs less",
        )

    def to_dict(self) -> dict[str, object]:
        """All numbers, ready for JSON."""
        return {
            "model": self.spec.name,
            "repo": self.spec.repo,
            "licence": self.spec.licence,
            "gpu": self.gpu_string,
            "fits": self.fits,
            "reason": self.reason,
            "memory": asdict(self.memory) | {"used": self.memory.used, "spare": self.memory.spare},
            "capacity": asdict(self.capacity),
            "cost": asdict(self.cost),
            "startup_seconds": self.startup_seconds,
            "settings": self.settings,
            "choices": [
                {
                    "gpu": choice.gpu_string,
                    "sessions": choice.capacity.sessions,
                    "max_batch_size": choice.capacity.max_batch_size,
                    "usd_per_hour": choice.cost.per_hour,
                    "usd_per_1000": choice.cost.per_1000,
                }
                for choice in self.choices
            ],
        }

    def __repr__(self) -> str:
        return f"Plan({self.spec.name!r}, {self.gpu_string!r}, fits={self.fits})"

    def __str__(self) -> str:
        from internvl_modal.plan_report import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from internvl_modal.plan_report import as_html

        return as_html(self)

    def plot(self, path: str | Path | None = None) -> object:
        """Draw memory per GPU of this plan and its choices; return matplotlib's Figure.

        Needs the extra ``plot``.
        """
        from internvl_modal.plan_report import draw

        return draw(self, path)


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
    """
    plans = [_evaluate(spec, *each, request, prices) for each in _candidates()]
    working = sorted((plan for plan in plans if plan.fits), key=_price_of_pictures)
    choices = tuple(plan for plan in working if budget is None or plan.cost.per_hour <= budget)
    if gpu is not None:
        chosen = _evaluate(spec, *gpu, request, prices)
    else:
        chosen = (choices or working or [max(plans, key=lambda plan: plan.memory.spare)])[0]
    if chosen.fits and budget is not None and chosen.cost.per_hour > budget:
        chosen = replace(
            chosen, reason=f"{chosen.cost.per_hour:.2f} USD/h is over the budget of {budget:.2f}"
        )
    return replace(chosen, choices=choices)


def _candidates() -> Iterator[tuple[Gpu, int]]:
    for gpu in GPUS.values():
        for count in COUNTS:
            if count <= gpu.max_count:
                yield gpu, count


def _price_of_pictures(plan: Plan) -> float:
    return sum(plan.cost.per_1000)


def _load(spec: ModelSpec, request: Request, capacity: Capacity) -> Load:
    return Load(
        images=request.images_per_request,
        tiles=request.tiles,
        prompt_tokens=request.input_tokens,
        output_tokens=request.output_tokens,
        batch=capacity.max_batch_size,
        kv_bytes_per_token=spec.kv_bytes_per_token(request.quant_policy),
    )


def _evaluate(spec: ModelSpec, gpu: Gpu, count: int, request: Request, prices: Prices) -> Plan:
    session_len = request.session(spec.context)
    memory = measure(
        spec,
        gpu.memory,
        tp=count,
        batch=request.batch(count),
        session_len=session_len,
        tiles=request.tiles * request.vision_max_batch_size,
        ratio=request.cache_max_entry_count,
        flash_attention=request.flash_attention,
    )
    capacity = _capacity(spec, count, request, memory, session_len)
    load = _load(spec, request, capacity)
    refusals = chain(
        _misfits(spec, gpu, count),
        _overlong(spec, request, session_len),
        _shortages(gpu, memory, capacity),
    )
    reason = next(refusals, "")
    host = (request.cpu, request.memory_gib)
    cost = price(spec, gpu, count, load, prices, request.scaledown_window, host)
    return Plan(spec, gpu, count, request, reason, memory, capacity, cost)


def _capacity(
    spec: ModelSpec, count: int, request: Request, memory: Memory, session_len: int
) -> Capacity:
    block = KV_BLOCK * spec.kv_bytes_per_token(request.quant_policy) // count
    kv_tokens = memory.kv // block * KV_BLOCK
    sessions = kv_tokens // _up(request.tokens, KV_BLOCK)
    batch = max(1, min(sessions, request.batch(count)))
    return Capacity(kv_tokens, request.tokens, sessions, session_len, batch)


def _misfits(spec: ModelSpec, gpu: Gpu, count: int) -> Iterator[str]:
    """Say why the model cannot be shared out over these GPUs."""
    llm = spec.llm
    if count > gpu.max_count:
        yield f"Modal offers at most {gpu.max_count} {gpu.name} in one machine"
    if llm.heads % count or llm.kv_heads % count:
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


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
