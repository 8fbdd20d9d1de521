"""Why a plan does not work, in words and numbers: lengths, engines and types, heads, memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from internvl_modal.models.shapes import ModelSpec
from internvl_modal.models.support import TITLES, EngineName, refusal
from internvl_modal.planning.gpus import Gpu
from internvl_modal.planning.memory import MARGIN, MIB, Capacity, Memory
from internvl_modal.planning.request import Request

__all__ = ["misfit", "overlong", "shortage"]

MAX_SM: dict[EngineName, int] = {"lmdeploy-0.7.3": 90, "lmdeploy": 120, "vllm": 120}
"""LMDeploy 0.7.3's CMakeLists.txt ends at 90-real, and "real" leaves no PTX behind; the library in
0.18's wheel has code for sm_70 to sm_120. vLLM's images are built for all types that Modal rents.
"""
HEAD_DIMS = (64, 128)  # TurboMind's attention kernels
FP8_SM = 89  # Ada and later convert fp8 in hardware; vLLM's caches of it need that


def overlong(spec: ModelSpec, engine: EngineName, request: Request, session_len: int) -> str:
    """Why the request cannot be answered by the engine on any GPU; empty where it can."""
    return refusal(spec, engine) or next(_too_much(spec, engine, request, session_len), "")


def misfit(spec: ModelSpec, engine: EngineName, gpu: Gpu, count: int, request: Request) -> str:
    """Why the model cannot be shared out over these GPUs; empty where it can."""
    return next(_misfits(spec, engine, gpu, count, request), "")


def shortage(gpu: Gpu, engine: EngineName, memory: Memory, capacity: Capacity) -> str:
    """What is missing in memory, then in the engine; empty where nothing is."""
    return next(chain(_shortages(memory, capacity), _kernels(gpu, engine, memory)), "")


def _too_much(
    spec: ModelSpec, engine: EngineName, request: Request, session_len: int
) -> Iterator[str]:
    head_dim, bits = spec.llm.head_dim, request.quant_policy
    if engine == "vllm" and bits == 4:
        yield "vLLM has no KV cache of 4 bits, 8 is the least"
    if engine == "vllm" and request.vision_max_batch_size > 1:
        yield "vLLM itself decides how many pictures go through its ViT in one pass"
    if engine != "vllm" and bits and head_dim != 128:
        yield f"TurboMind quantises the KV cache of 128-wide heads, and these are {head_dim} wide"
    if session_len > spec.context:
        yield f"a session of {session_len:,} tokens is more than its {spec.context:,} positions"
    if request.tokens > session_len:
        yield f"one request takes {request.tokens:,} tokens, and the session is {session_len:,}"


def _misfits(
    spec: ModelSpec, engine: EngineName, gpu: Gpu, count: int, request: Request
) -> Iterator[str]:
    llm = spec.llm
    if count > gpu.max_count:
        yield f"Modal offers at most {gpu.max_count} {gpu.name} in one machine"
    if llm.heads % count or (llm.kv_heads % count and count % llm.kv_heads):
        yield (
            f"its {llm.heads} heads and {llm.kv_heads} key-value heads "
            f"cannot be shared out evenly over {count} GPUs"
        )
    if engine != "vllm" and llm.head_dim not in HEAD_DIMS:
        yield f"TurboMind needs heads of 64 or 128, and these are {llm.head_dim} wide"
    if engine == "vllm" and request.quant_policy and gpu.sm < FP8_SM:
        yield f"vLLM's KV cache of 8 bits is fp8, and a {gpu.name} (sm_{gpu.sm}) has none"


def _shortages(memory: Memory, capacity: Capacity) -> Iterator[str]:
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


def _kernels(gpu: Gpu, engine: EngineName, memory: Memory) -> Iterator[str]:
    """Last, as this one alone would go away with another engine."""
    most = MAX_SM[engine]
    if gpu.sm > most:
        yield (
            f"{_mib(memory.used)} of the {_mib(memory.total)} of each GPU would do, but "
            f"{TITLES[engine]} has no kernels for sm_{gpu.sm}: it is compiled up to sm_{most}"
        )


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"
