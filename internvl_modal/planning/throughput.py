"""How fast a model can answer on a GPU, and so what a thousand pictures cost.

A roofline: arithmetic at a share of the tensor cores' peak, memory at a share of its bandwidth.
The two shares of each kind give a range, not a promise.

Why not a table of measurements: there are ten types of GPU, four counts and thirty models, and what
is published covers a handful. A roofline needs the data sheet and the shape, and its two constants
can be held against what is published (see below). It is meant to rank choices and to give the order
of magnitude of a bill.
"""

from __future__ import annotations

from dataclasses import dataclass

from internvl_modal.models.shapes import ModelSpec
from internvl_modal.models.support import EngineName
from internvl_modal.planning.gpus import Gpu

__all__ = ["Load", "request_seconds", "startup_seconds"]


@dataclass(frozen=True)
class Efficiency:
    """Shares of the data sheet's peak, and CPU seconds of one picture on LMDeploy's one thread.

    ``vision``, ``prefill`` and ``bandwidth`` are shares of 1. With ``overlap`` the ViT works on the
    next request while the LLM answers the last one, as it does when requests keep coming.
    """

    vision: float
    prefill: float
    bandwidth: float
    cpu: float
    overlap: bool


# Prefill and bandwidth bracket what others measured for a 72B model on 4 x A100 and 4 x H100
# (1,461 and about 5,020 tokens/s, 8k in and 0.9k out). The ViT runs eagerly.
BEST = Efficiency(vision=0.5, prefill=0.6, bandwidth=0.8, cpu=0.05, overlap=True)
WORST = Efficiency(vision=0.25, prefill=0.3, bandwidth=0.4, cpu=0.15, overlap=False)

# Weights: read from a Volume, converted and copied by one thread; then container, imports, CUDA.
_LOAD_BYTES_PER_SECOND = (1.5e9, 0.75e9)
_BOOT_SECONDS = (60.0, 150.0)


@dataclass(frozen=True)
class Load:
    """One request, and how many of them run together.

    ``tiles`` are of one picture and count the thumbnail, ``prompt_tokens`` those of the pictures
    too, ``kv_bytes_per_token`` are of all GPUs together. ``engine`` decides how the ViT is shared.
    """

    images: int
    tiles: int
    prompt_tokens: int
    output_tokens: int
    batch: int
    kv_bytes_per_token: int
    engine: EngineName = "lmdeploy-0.7.3"


def request_seconds(
    spec: ModelSpec, gpu: Gpu, tp: int, load: Load, efficiency: Efficiency
) -> float:
    """Machine time of one request when ``load.batch`` of them are always under way.

    In seconds, of the whole machine: divided by ``load.images`` and times the hourly price it is
    what a picture costs. One step of decoding serves the whole batch, hence the division.
    """
    vision = load.images * (_vision_seconds(spec, gpu, tp, load, efficiency) + efficiency.cpu)
    text = _prefill_seconds(spec, gpu, tp, load, efficiency)
    text += load.output_tokens * _step_seconds(spec, gpu, tp, load, efficiency) / load.batch
    # The slower of the two is the bottleneck where they overlap.
    return max(vision, text) if efficiency.overlap else vision + text


def startup_seconds(spec: ModelSpec) -> tuple[float, float]:
    """Cold container to first answer, weights in a Volume: best and worst case."""
    best, worst = (
        boot + spec.disk_bytes / rate
        for boot, rate in zip(_BOOT_SECONDS, _LOAD_BYTES_PER_SECOND, strict=True)
    )
    return best, worst


def _vision_seconds(
    spec: ModelSpec, gpu: Gpu, tp: int, load: Load, efficiency: Efficiency
) -> float:
    """2 FLOP for each weight and token, and 4 times tokens squared times width a layer for the
    scores and their use.

    LMDeploy 0.7.3 spreads the ViT's layers over the GPUs, so they work one after the other and more
    GPUs make it no faster. Later engines share out each layer: its MLP, and its attention where the
    heads divide.
    """
    vit = spec.vit
    shares = 1 if load.engine == "lmdeploy-0.7.3" else tp
    whole = 1 if vit.heads % shares else shares
    rest = spec.vision_params - vit.mlp_params - vit.attention_params
    weights = rest + vit.mlp_params / shares + vit.attention_params / whole
    attention = 4 * vit.layers * vit.tokens**2 * vit.hidden / whole
    work = load.tiles * (2 * weights * vit.tokens + attention)
    return work / (gpu.tflops * 1e12 * efficiency.vision)


def _prefill_seconds(
    spec: ModelSpec, gpu: Gpu, tp: int, load: Load, efficiency: Efficiency
) -> float:
    """Reading the prompt: bound by arithmetic, or with many experts by reading them. Attention is
    causal, so half of the scores are computed.
    """
    width = spec.llm.heads * spec.llm.head_dim
    matrices = 2 * spec.llm.active_params * load.prompt_tokens
    attention = 2 * spec.llm.layers * load.prompt_tokens**2 * width
    compute = (matrices + attention) / (tp * gpu.tflops * 1e12 * efficiency.prefill)
    read = spec.read_bytes(load.prompt_tokens) / (tp * gpu.bandwidth * 1e9 * efficiency.bandwidth)
    exchange = _exchange_seconds(spec, gpu, tp, load.prompt_tokens, efficiency)
    return max(compute, read) + exchange


def _step_seconds(spec: ModelSpec, gpu: Gpu, tp: int, load: Load, efficiency: Efficiency) -> float:
    """One token of every request in the batch: weights and caches are read once.

    Reading dominates as long as the batch is small. The context is taken at half of the answer, its
    mean over all steps.
    """
    context = load.prompt_tokens + load.output_tokens // 2
    read = spec.read_bytes(load.batch) + load.batch * context * load.kv_bytes_per_token
    compute = 2 * spec.llm.active_params * load.batch
    return _exchange_seconds(spec, gpu, tp, load.batch, efficiency) + max(
        read / (tp * gpu.bandwidth * 1e9 * efficiency.bandwidth),
        compute / (tp * gpu.tflops * 1e12 * efficiency.prefill),
    )


def _exchange_seconds(
    spec: ModelSpec, gpu: Gpu, tp: int, tokens: int, efficiency: Efficiency
) -> float:
    """Two all-reduces a layer; a ring sends each byte 2 (tp - 1) / tp times.

    The last factor of ``size`` is the 2 bytes of a half; nothing is exchanged where ``tp`` is 1.
    """
    size = 2 * spec.llm.layers * tokens * spec.llm.hidden * 2
    return size * 2 * (tp - 1) / tp / (gpu.link * 1e9 * efficiency.bandwidth)
