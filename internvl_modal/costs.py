"""How fast a model can answer on a GPU, and so what a thousand pictures cost.

A roofline: arithmetic at a share of the tensor cores' peak, memory at a share of its bandwidth.
The two shares of each kind give a range, not a promise.
"""

from __future__ import annotations

from dataclasses import dataclass

from internvl_modal.catalog import ModelSpec
from internvl_modal.gpus import Gpu, Prices

__all__ = ["CORES", "HOST_GIB", "Cost", "Load", "price", "request_seconds", "startup_seconds"]

CORES = 8  # LMDeploy decodes and cuts pictures on one thread; the rest feed TurboMind and HTTP
HOST_GIB = 32  # weights are read one file (5 GB) at a time


@dataclass(frozen=True)
class Efficiency:
    """Shares of the data sheet's peak, and CPU seconds of one picture on LMDeploy's one thread."""

    vision: float
    prefill: float
    bandwidth: float
    cpu: float
    overlap: bool


# Prefill and bandwidth bracket what others measured for a 72B model on 4 x A100 and 4 x H100
# (1,461 and about 5,020 tokens/s, 8k in and 0.9k out). The ViT runs eagerly, without flash-attn.
BEST = Efficiency(vision=0.5, prefill=0.6, bandwidth=0.8, cpu=0.05, overlap=True)
WORST = Efficiency(vision=0.25, prefill=0.3, bandwidth=0.4, cpu=0.15, overlap=False)

# Weights: read from a Volume, converted and copied by one thread; then container, imports, CUDA.
_LOAD_BYTES_PER_SECOND = (1.5e9, 0.75e9)
_BOOT_SECONDS = (60.0, 150.0)


@dataclass(frozen=True)
class Load:
    """One request, and how many of them run together."""

    images: int
    tiles: int
    prompt_tokens: int
    output_tokens: int
    batch: int
    kv_bytes_per_token: int


@dataclass(frozen=True)
class Cost:
    """USD. ``per_1000`` is for pictures on a machine that is kept busy."""

    per_hour: float
    idle_window: float
    start: tuple[float, float]
    per_1000: tuple[float, float]
    assumptions: tuple[str, ...]

    @property
    def per_picture(self) -> tuple[float, float]:
        """On a busy machine."""
        return self.per_1000[0] / 1000, self.per_1000[1] / 1000

    def of(self, pictures: int) -> tuple[float, float]:
        """One burst of pictures: the cold start, the work, and the idle window at its end."""
        low, high = (each * pictures for each in self.per_picture)
        return self.start[0] + low + self.idle_window, self.start[1] + high + self.idle_window


def request_seconds(
    spec: ModelSpec, gpu: Gpu, tp: int, load: Load, efficiency: Efficiency
) -> float:
    """Machine time of one request when ``load.batch`` of them are always under way."""
    vision = load.images * (_vision_seconds(spec, gpu, load.tiles, efficiency) + efficiency.cpu)
    text = _prefill_seconds(spec, gpu, tp, load, efficiency)
    text += load.output_tokens * _step_seconds(spec, gpu, tp, load, efficiency) / load.batch
    return max(vision, text) if efficiency.overlap else vision + text


def picture_cost(
    spec: ModelSpec, gpu: Gpu, tp: int, load: Load, per_hour: float
) -> tuple[float, float]:
    """USD for one picture on a busy machine, best and worst case."""
    best, worst = (
        request_seconds(spec, gpu, tp, load, efficiency) / load.images * per_hour / 3600
        for efficiency in (BEST, WORST)
    )
    return best, worst


def startup_seconds(spec: ModelSpec) -> tuple[float, float]:
    """Cold container to first answer, weights in a Volume: best and worst case."""
    best, worst = (
        boot + spec.disk_bytes / rate
        for boot, rate in zip(_BOOT_SECONDS, _LOAD_BYTES_PER_SECOND, strict=True)
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
            f"{WORST.vision:.0%}-{BEST.vision:.0%} in the ViT (one GPU at a time), "
            f"{WORST.bandwidth:.0%}-{BEST.bandwidth:.0%} of memory and link bandwidth",
            f"{BEST.cpu * 1000:.0f}-{WORST.cpu * 1000:.0f} ms of CPU a picture; low: ViT and LLM "
            "overlap, high: they take turns",
        ),
    )


def _vision_seconds(spec: ModelSpec, gpu: Gpu, tiles: int, efficiency: Efficiency) -> float:
    """The ViT's layers are spread over the GPUs, so they work one after the other."""
    vit = spec.vit
    matrices = 2 * spec.vision_params * vit.tokens
    attention = 4 * vit.layers * vit.tokens**2 * vit.hidden
    return tiles * (matrices + attention) / (gpu.tflops * 1e12 * efficiency.vision)


def _prefill_seconds(
    spec: ModelSpec, gpu: Gpu, tp: int, load: Load, efficiency: Efficiency
) -> float:
    matrices = 2 * spec.llm.linear_params * load.prompt_tokens
    attention = 2 * spec.llm.layers * load.prompt_tokens**2 * spec.llm.hidden
    compute = (matrices + attention) / (tp * gpu.tflops * 1e12 * efficiency.prefill)
    return compute + _exchange_seconds(spec, gpu, tp, load.prompt_tokens, efficiency)


def _step_seconds(spec: ModelSpec, gpu: Gpu, tp: int, load: Load, efficiency: Efficiency) -> float:
    """One token of every request in the batch: weights and caches are read once."""
    context = load.prompt_tokens + load.output_tokens // 2
    read = spec.llm_bytes + load.batch * context * load.kv_bytes_per_token
    compute = 2 * spec.llm.linear_params * load.batch
    return _exchange_seconds(spec, gpu, tp, load.batch, efficiency) + max(
        read / (tp * gpu.bandwidth * 1e9 * efficiency.bandwidth),
        compute / (tp * gpu.tflops * 1e12 * efficiency.prefill),
    )


def _exchange_seconds(
    spec: ModelSpec, gpu: Gpu, tp: int, tokens: int, efficiency: Efficiency
) -> float:
    """Two all-reduces a layer; a ring sends each byte 2 (tp - 1) / tp times."""
    size = 2 * spec.llm.layers * tokens * spec.llm.hidden * 2
    return size * 2 * (tp - 1) / tp / (gpu.link * 1e9 * efficiency.bandwidth)
