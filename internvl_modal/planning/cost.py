"""What a plan costs by the hour and by the picture.

Modal bills a machine by the second, GPU, cores and memory added up, and goes on billing while a
container waits for its next request. So there are four figures that must not be mixed: the hour,
the idle window, the cold start and the picture on a busy machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from internvl_modal.models.shapes import ModelSpec
from internvl_modal.planning.gpus import Gpu
from internvl_modal.planning.throughput import BEST, WORST, Load, request_seconds, startup_seconds

CORES = 8  # LMDeploy decodes and cuts pictures on one thread; the rest feed TurboMind and HTTP


HOST_GIB = 32  # weights are read one file (5 GB) at a time


LONGEST_WINDOW = 3600  # seconds that Modal lets a container idle


def idle_window(start: tuple[float, float]) -> int:
    """Seconds to wait for the next request before a container stops that takes ``start`` to start.

    As long as a start takes: waiting has then cost what the next start costs, so that no other
    length, whenever the next request comes, costs less than half of this one.

    >>> idle_window((100.0, 200.0))
    150
    """
    return min(LONGEST_WINDOW, round(sum(start) / 2))


@dataclass(frozen=True)
class Prices:
    """USD an hour: of each GPU type, of a CPU core, of a GiB of memory.

    ``gpus`` has every type of ``gpus.GPUS``: a missing one is a KeyError when it is priced, which
    is why ``live_prices`` lays what it has read over the catalogue. ``source`` goes into the
    report, so that a reader can tell today's prices from those of the catalogue.

    >>> prices = Prices({"H200": 4.54}, core=0.05, gib=0.01, source="an example")
    >>> round(prices.per_hour("H200", 2, cores=8, gib=32), 2)
    9.8
    """

    gpus: Mapping[str, float]
    core: float
    gib: float
    source: str

    def per_hour(self, gpu: str, count: int, cores: float, gib: float) -> float:
        """USD of one machine.

        ``count`` GPUs share the ``cores`` and the ``gib``: those are of the machine, not of each
        GPU.
        """
        return self.gpus[gpu] * count + self.core * cores + self.gib * gib


@dataclass(frozen=True)
class Cost:
    """USD. ``per_1000`` is for pictures on a machine that is kept busy.

    ``idle_window`` is what the last request of a burst costs after it is answered; ``start`` the
    time in which a cold container loads. Pairs are the best and the worst case. ``assumptions`` are
    sentences for the report: a figure without them would be taken for a promise.
    """

    per_hour: float
    idle_window: float
    start: tuple[float, float]
    per_1000: tuple[float, float]
    assumptions: tuple[str, ...]

    @property
    def per_picture(self) -> tuple[float, float]:
        """On a busy machine, best and worst case; a single picture pays the start and the idle
        window too.
        """
        return self.per_1000[0] / 1000, self.per_1000[1] / 1000

    def of(self, pictures: int) -> tuple[float, float]:
        """One burst of pictures: the cold start, the work, and the idle window at its end."""
        low, high = (each * pictures for each in self.per_picture)
        return self.start[0] + low + self.idle_window, self.start[1] + high + self.idle_window


def picture_cost(
    spec: ModelSpec, gpu: Gpu, tp: int, load: Load, per_hour: float
) -> tuple[float, float]:
    """USD for one picture on a busy machine, best and worst case.

    The machine's time is shared by ``load.images`` of one request, and all its GPUs are paid for
    while the ViT works on one of them.
    """
    best, worst = (
        request_seconds(spec, gpu, tp, load, efficiency) / load.images * per_hour / 3600
        for efficiency in (BEST, WORST)
    )
    return best, worst


def price(
    spec: ModelSpec,
    gpu: Gpu,
    tp: int,
    load: Load,
    prices: Prices,
    scaledown_window: float,
    host: tuple[float, float],
) -> Cost:
    """Put a price on a machine under ``load``.

    ``scaledown_window`` is in seconds, ``host`` its CPU cores and GiB of memory.
    """
    # One share of each GPU: ``tp`` is their number, as LMDeploy splits the model over all of them.
    per_hour = prices.per_hour(gpu.name, tp, *host)
    start_low, start_high = startup_seconds(spec)
    low, high = (each * 1000 for each in picture_cost(spec, gpu, tp, load, per_hour))
    return Cost(
        per_hour=per_hour,
        idle_window=per_hour * scaledown_window / 3600,
        start=(start_low * per_hour / 3600, start_high * per_hour / 3600),
        per_1000=(low, high),
        assumptions=(
            f"{prices.source}, {host[0]:g} cores and {host[1]:g} GiB of host memory",
            f"{load.batch} requests always under way, {load.images} x {load.tiles} tiles "
            f"in and {load.output_tokens} tokens out each",
            f"{WORST.prefill:.0%}-{BEST.prefill:.0%} of peak TFLOPS in the LLM, "
            f"{WORST.vision:.0%}-{BEST.vision:.0%} in the ViT ({_shared(load)}), "
            f"{WORST.bandwidth:.0%}-{BEST.bandwidth:.0%} of memory and link bandwidth",
            f"{BEST.cpu * 1000:.0f}-{WORST.cpu * 1000:.0f} ms of CPU a picture; low: ViT and LLM "
            "overlap, high: they take turns",
        ),
    )


def _shared(load: Load) -> str:
    return "one GPU at a time" if load.engine == "lmdeploy-0.7.3" else "on all GPUs"
