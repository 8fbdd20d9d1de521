"""A plan: what was asked, what fits, and the rows that a report shows.

``report`` lays rows out without knowing what they mean, so that neither imports the other.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_modal._utils.signatures import showing
from internvl_modal.engines.registry import engine_of
from internvl_modal.errors import ConfigError, PlanError
from internvl_modal.models.shapes import TILE_TOKENS, ModelSpec
from internvl_modal.models.support import ENGINES, EngineName
from internvl_modal.planning.cost import CORES, HOST_GIB, Cost, picture_cost
from internvl_modal.planning.gpus import Gpu
from internvl_modal.planning.memory import MARGIN, MIB, Memory
from internvl_modal.planning.options import PlanOptions
from internvl_modal.planning.report import SHOWN, Bar, Report, Row, as_html, as_text, draw
from internvl_modal.planning.throughput import Load, startup_seconds

if TYPE_CHECKING:
    from pathlib import Path


def _headline(plan: Plan) -> str:
    if plan.on_any_gpu:
        return f"{plan.spec.name} cannot be served so: {plan.reason}"
    verdict = "fits" if plan.fits else f"does not fit: {plan.reason}"
    return f"{plan.spec.name} on {plan.count} x {plan.gpu.name} {verdict}"


def _memory_rows(plan: Plan) -> list[Row]:
    memory = plan.memory
    rows: list[Row] = [("Each GPU", "MiB")]
    rows += [(part, _mib(size)) for part, size in memory.parts.items()]
    rows += [
        ("used", _mib(memory.used)),
        ("of", _mib(memory.total)),
        (f"left (at least {_mib(MARGIN)} is kept)", _mib(memory.spare)),
    ]
    return rows


def _fact_rows(plan: Plan) -> list[Row]:
    capacity, cost, memory = plan.capacity, plan.cost, plan.memory
    start = plan.startup_seconds
    return [
        ("Service", ""),
        ("KV cache share", f"{memory.ratio:g} of {_mib(memory.free_after_weights)} MiB"),
        ("KV cache", f"{capacity.kv_tokens:,} tokens"),
        ("session", f"{capacity.session_len:,} tokens"),
        ("one request", f"{capacity.request_tokens:,} tokens"),
        ("requests at once", f"{capacity.sessions:,} fit, {capacity.max_batch_size} planned"),
        ("cold start", f"{start[0] / 60:.1f}-{start[1] / 60:.1f} min"),
        ("USD an hour", f"{cost.per_hour:.2f}"),
        ("USD an idle window", f"{cost.idle_window:.2f}"),
        ("USD a cold start", _range(cost.start)),
        ("USD 1,000 pictures", _range(cost.per_1000)),
        ("licence", plan.spec.licence),
    ]


def _choice_rows(plan: Plan) -> list[Row]:
    rows: list[Row] = [("GPU", "requests", "USD/h", "USD/1,000 pictures")]
    for choice in plan.choices[:SHOWN]:
        cost, requests = choice.cost, str(choice.capacity.max_batch_size)
        rows.append((choice.gpu_string, requests, f"{cost.per_hour:.2f}", _range(cost.per_1000)))
    return rows


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f}"


def _range(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f}-{pair[1]:.2f}"


USEFUL_SESSION = 16384  # tokens InternVL 2.5 was trained to; the documents serve half of it

MAX_BATCH = 64  # requests at once: more only queue behind the ViT, which is one thread

# On several GPUs LMDeploy 0.7.3 has hung with 16 and more picture requests under way, and not with
# fewer: https://github.com/InternLM/lmdeploy/issues/3529 (InternVL2.5-78B), also 2743 and 3057.
MAX_BATCH_SEVERAL = 12

MOST_OF_ALL = 0.98  # of a GPU's memory, for vLLM; what does not fit is deployed by force only

LEAST_RATIO = 0.05  # for whoever starts a plan that does not fit; LMDeploy takes no 0

LONGEST_WINDOW = 3600  # seconds that Modal lets a container idle

IMAGE_MARKUP_TOKENS = 8  # "Image-1: <img></img>\n"

AT_LEAST_ONE = (
    *("images_per_request", "max_tiles", "output_tokens", "vision_max_batch_size"),
    *("cpu", "memory_gib"),
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a deployment must be able to answer, and what may be fixed of its settings.

    None leaves a setting to the planner. Its fields are those of ``PlanOptions``.
    """

    engine: EngineName | None = None
    images_per_request: int = 1
    max_tiles: int = 12
    prompt_tokens: int = 100
    output_tokens: int = 200
    session_len: int | None = None
    max_batch_size: int | None = None
    cache_max_entry_count: float | None = None
    quant_policy: int = 0
    vision_max_batch_size: int = 1
    scaledown_window: int | None = None
    cpu: float = CORES
    memory_gib: float = HOST_GIB

    def __post_init__(self) -> None:
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be at least 1")
        # The most that InternVL is documented for at inference (a 4K picture).
        if self.max_tiles > 40:
            raise ConfigError(f"max_tiles = {self.max_tiles}: it must be at most 40")
        # What LMDeploy calls it: the bits of a key or value, 0 for those of the weights.
        if self.quant_policy not in (0, 4, 8):
            raise ConfigError(f"quant_policy = {self.quant_policy}: it must be 0, 4 or 8")
        if self.engine is not None and self.engine not in ENGINES:
            raise ConfigError(
                f"unknown engine {self.engine!r}", hint=f"one of {', '.join(ENGINES)}"
            )
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

    def window(self, start: tuple[float, float]) -> int:
        """Idle seconds until a container stops, which takes ``start`` to be back."""
        return self.scaledown_window or min(LONGEST_WINDOW, round(sum(start) / 2))

    def session(self, context: int) -> int:
        """The session length asked for, else a useful one in which the request fits."""
        return self.session_len or min(context, max(USEFUL_SESSION, round_up(self.tokens, 1024)))


with_plan_options = showing(PlanOptions, {each.name: each.default for each in fields(Request)})
"""Shows ``**options: Unpack[PlanOptions]`` as keywords."""


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

    >>> from internvl_modal.planning.api import plan
    >>> plan("internvl2_5-8b", gpu="L40S", prices="catalogue").require()
    Plan('internvl2_5-8b', 'L40S', fits=True)
    """

    spec: ModelSpec
    engine: EngineName
    gpu: Gpu
    count: int
    request: Request
    reason: str
    memory: Memory
    capacity: Capacity
    cost: Cost
    choices: tuple[Plan, ...] = ()
    on_any_gpu: bool = False
    """Whether nobody named a GPU, and the request is more than any can answer."""
    remedy: str = ""
    """Where nothing works: what works without one of the wishes."""

    @property
    def fits(self) -> bool:
        """Whether it works."""
        return not self.reason

    @property
    def gpu_string(self) -> str:
        """As Modal wants it."""
        return self.gpu.name if self.count == 1 else f"{self.gpu.name}:{self.count}"

    @property
    def idle_window(self) -> int:
        """Seconds that a container waits for its next request before it stops.

        Where nobody says otherwise, as long as a start takes: waiting has then cost what the next
        start costs, and no other length can cost more than twice the least that was possible.
        """
        return self.request.window(self.startup_seconds)

    @property
    def startup_seconds(self) -> tuple[float, float]:
        """Cold container to first answer, best and worst case."""
        return startup_seconds(self.spec)

    def picture_cost(self, tiles: int) -> tuple[float, float]:
        """USD for one picture of so many tiles on a busy machine, best and worst case."""
        # The client asks with a picture's own tiles, and counts the thumbnail among them.
        alone = replace(self.request, images_per_request=1, max_tiles=max(1, tiles - 1))
        load = load_of(self.spec, alone, self.capacity)
        return picture_cost(self.spec, self.gpu, self.count, load, self.cost.per_hour)

    @property
    def settings(self) -> dict[str, Any]:
        """Of the engine's server, by the names of its options."""
        common = {
            "model": self.spec.repo,
            "model_name": self.spec.name,
            "tp": self.count,
            "session_len": self.capacity.session_len,
            "max_batch_size": self.capacity.max_batch_size,
            "quant_policy": self.request.quant_policy,
        }
        if self.engine == "vllm":
            # Rounded up: what is planned must find room in it.
            share = math.ceil(self.memory.used / self.memory.total * 1000) / 1000
            return {**common, "gpu_memory_utilization": min(MOST_OF_ALL, share)}
        return {
            **common,
            "model_format": "awq" if self.spec.awq else None,
            # A forced deploy of what does not fit must still give LMDeploy a share that it takes.
            "cache_max_entry_count": self.memory.ratio or LEAST_RATIO,
            "vision_max_batch_size": self.request.vision_max_batch_size,
        }

    @property
    def argv(self) -> list[str]:
        """The command that serves the model so."""
        return engine_of(self.engine).parse(**self.settings).argv()

    def require(self) -> Plan:
        """Return the plan itself; raise PlanError, naming choices that work, if it does not fit."""
        if self.fits:
            return self
        where = f"{self.spec.name} does not fit on {self.count} x {self.gpu.name}"
        if self.on_any_gpu:
            where = f"{self.spec.name} cannot be served so"
        raise PlanError(f"{where}: {self.reason}", hint=self._hint())

    def _hint(self) -> str:
        """What works: the nearest choices, and the cheapest."""
        if not self.choices:
            general = "a smaller model, an -AWQ one or a shorter session_len needs less"
            told = [self.remedy, general] if self.request.session_len is None else [self.remedy]
            return "; ".join(filter(None, told)) or general
        # The same type in another number comes before other types: who named it had a reason.
        near = sorted(self.choices, key=lambda choice: choice.gpu is not self.gpu)[:3]
        best = min(self.choices, key=lambda choice: choice.cost.per_hour)
        return (
            f"what works: {', '.join(choice.gpu_string for choice in near)}; the cheapest by the "
            f"hour is {best.gpu_string}, {best.cost.per_hour:.2f} USD"
        )

    def to_dict(self) -> dict[str, object]:
        """All numbers, ready for JSON."""
        return {
            "model": self.spec.name,
            "repo": self.spec.repo,
            "licence": self.spec.licence,
            "engine": self.engine,
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
        return as_text(self._report())

    def _repr_html_(self) -> str:
        return as_html(self._report())

    def _report(self) -> Report:
        return Report(
            _headline(self),
            (_memory_rows(self), _fact_rows(self)),
            tuple(self.cost.assumptions),
            _choice_rows(self) if self.choices else [],
        )

    def plot(self, path: str | Path | None = None) -> object:
        """Draw memory per GPU of this plan and its choices; return matplotlib's Figure.

        Needs the extra ``plot``.
        """
        others = [choice for choice in self.choices if choice.gpu_string != self.gpu_string]
        bars = [
            Bar(
                each.gpu_string + ("" if each.fits else " (does not fit)"),
                each.memory.parts,
                each.memory.total,
            )
            for each in (self, *others[: SHOWN - 1])
        ]
        return draw(self.spec.name, bars, path)


def load_of(spec: ModelSpec, request: Request, capacity: Capacity) -> Load:
    """What one request of this size asks of the GPUs."""
    return Load(
        images=request.images_per_request,
        tiles=request.tiles,
        prompt_tokens=request.input_tokens,
        output_tokens=request.output_tokens,
        batch=capacity.max_batch_size,
        kv_bytes_per_token=spec.kv_bytes_per_token(request.quant_policy),
    )


def round_up(value: int, step: int) -> int:
    """The next multiple of ``step``."""
    return -(-value // step) * step
