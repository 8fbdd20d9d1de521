"""A plan: what was asked, what fits, and the rows that a report shows.

``report`` lays rows out without knowing what they mean, so that neither imports the other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from internvl_modal.engines.registry import engine_of
from internvl_modal.errors import MissingExtraError, PlanError
from internvl_modal.models.quality import Quality, quality_of
from internvl_modal.models.shapes import ModelSpec
from internvl_modal.models.support import EngineName
from internvl_modal.planning.cost import Cost, idle_window, picture_cost
from internvl_modal.planning.gpus import Gpu
from internvl_modal.planning.memory import MARGIN, MIB, Capacity, Memory, kv_bytes_per_token
from internvl_modal.planning.report import SHOWN, Bar, Report, Row, as_html, as_text
from internvl_modal.planning.request import Request
from internvl_modal.planning.server_settings import of_engine
from internvl_modal.planning.throughput import Load, startup_seconds


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
        ("engine", plan.engine),
        ("licence", plan.spec.licence),
    ]


def _choice_rows(plan: Plan) -> list[Row]:
    rows: list[Row] = [("GPU", "requests", "USD/h", "USD/1,000 pictures")]
    for choice in plan.choices[:SHOWN]:
        cost, requests = choice.cost, str(choice.capacity.max_batch_size)
        rows.append((choice.gpu_string, requests, f"{cost.per_hour:.2f}", _range(cost.per_1000)))
    return rows


def _ranking_rows(plan: Plan) -> list[Row]:
    rows: list[Row] = [("model", "GPU", "MMBench", "OCRBench", "USD/h", "USD/1,000 pictures")]
    for other in plan.alternatives:
        quality, cost = other.quality, other.cost
        figures = (f"{quality.mmbench}", f"{quality.ocrbench}") if quality else ("", "")
        money = (f"{cost.per_hour:.2f}", _range(cost.per_1000))
        rows.append((other.spec.name, other.gpu_string, *figures, *money))
    return rows


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f}"


def _range(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f}-{pair[1]:.2f}"


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
    over_budget: bool = False
    """Whether it would work, and costs more an hour than it may."""
    alternatives: tuple[Plan, ...] = ()
    """Where only a budget was given: a plan of each model that it pays for, this one the first."""

    @property
    def quality(self) -> Quality | None:
        """What was published of the model's quality; None where nothing was read."""
        return quality_of(self.spec)

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
        """Seconds that a container waits for its next request before it stops."""
        return self.request.scaledown_window or idle_window(self.startup_seconds)

    @property
    def startup_seconds(self) -> tuple[float, float]:
        """Cold container to first answer, best and worst case."""
        return startup_seconds(self.spec)

    def picture_cost(self, tiles: int) -> tuple[float, float]:
        """USD for one picture of so many tiles on a busy machine, best and worst case."""
        # The client asks with a picture's own tiles, and counts the thumbnail among them.
        alone = replace(self.request, images_per_request=1, max_tiles=max(1, tiles - 1))
        load = load_of(self.spec, self.engine, alone, self.capacity)
        return picture_cost(self.spec, self.gpu, self.count, load, self.cost.per_hour)

    @property
    def settings(self) -> dict[str, Any]:
        """Of the engine's server, by the names of its options."""
        batch = self.request.vision_max_batch_size
        return {
            "model": self.spec.repo,
            "model_name": self.spec.name,
            "tp": self.count,
            "session_len": self.capacity.session_len,
            "max_batch_size": self.capacity.max_batch_size,
            "quant_policy": self.request.quant_policy,
            **of_engine(self.engine, self.spec, self.memory, batch),
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
            # Where money, the engine or a session too short is the limit, less is no help.
            wished = self.over_budget or self.request.engine or self.request.session_len
            return "; ".join(filter(None, [self.remedy, "" if wished else general])) or general
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
            "quality": asdict(self.quality) if self.quality else None,
            "gpu": self.gpu_string,
            "fits": self.fits,
            "reason": self.reason,
            "memory": asdict(self.memory) | {"used": self.memory.used, "spare": self.memory.spare},
            "capacity": asdict(self.capacity),
            "cost": asdict(self.cost),
            "startup_seconds": self.startup_seconds,
            "settings": self.settings,
            "alternatives": [
                {
                    "model": other.spec.name,
                    "engine": other.engine,
                    "gpu": other.gpu_string,
                    "quality": asdict(other.quality) if other.quality else None,
                    "usd_per_hour": other.cost.per_hour,
                    "usd_per_1000": other.cost.per_1000,
                }
                for other in self.alternatives
            ],
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
            _ranking_rows(self) if self.alternatives else [],
        )

    def plot(self, path: str | Path | None = None) -> object:
        """Draw memory per GPU of this plan and its choices; return matplotlib's Figure.

        Notebooks show it. Raises MissingExtraError without the extra ``plot``.
        """
        try:
            from internvl_modal.planning.drawing import draw
        except ImportError as error:
            raise MissingExtraError("matplotlib", "plot") from error
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


def load_of(spec: ModelSpec, engine: EngineName, request: Request, capacity: Capacity) -> Load:
    """What one request of this size asks of the GPUs."""
    return Load(
        images=request.images_per_request,
        tiles=request.tiles,
        prompt_tokens=request.input_tokens,
        output_tokens=request.output_tokens,
        batch=capacity.max_batch_size,
        kv_bytes_per_token=kv_bytes_per_token(spec, engine, request.quant_policy),
        engine=engine,
    )
