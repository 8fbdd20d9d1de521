"""What an engine puts on each GPU for a model, the KV cache included.

In the order in which it happens: the ViT and the language model, then the KV cache as a share of
what is free (LMDeploy) or what is left of a share of everything (vLLM), then buffers and, with the
first picture, the ViT's activations. The last two must fit into what the cache left.

Two constants are fitted, to InternVL's published memory table of LMDeploy (A100-80GB, nvidia-smi's
figures); the engines' own files, ``turbomind`` and ``vllm``, say where the rest is from. That
table's rows for 38B and 78B carry the numbers of the older 40B and 76B, so they are compared with
those shapes. Every byte here is of one GPU; ``tp`` is the number of GPUs that share the model.
"""

from __future__ import annotations

from dataclasses import dataclass

from internvl_modal.models.shapes import ModelSpec
from internvl_modal.models.support import EngineName
from internvl_modal.planning import turbomind, vllm
from internvl_modal.planning.footprint import Footprint, Work

__all__ = ["MIB", "Capacity", "Memory", "kv_block", "kv_bytes_per_token", "measure"]

MIB = 2**20

MAX_RATIO = 0.8  # cache_max_entry_count's default: never plan for a larger share

# CUDA context, cuBLAS handles and loaded kernels of one process on one GPU. With it the one-GPU
# cells of InternVL's published memory table come out between 4% low and 3% high.
CONTEXT = 500 * MIB

# NCCL's buffers, peer mappings and the ViT's uneven spread, taken 2, 3 and 4 times on 2, 4 and 8
# GPUs. Fitted to the eleven cells of that table with several GPUs, which need 1.2 to 4.1 GiB.
PEERS = 850 * MIB

# Kept free, for fragmentation and what is not modelled: the most that still accepts the table's
# tightest cell that ran (40B on one GPU with a cache share of 0.2), to the nearest 256 MiB.
MARGIN = 768 * MIB


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU.

    ``llm``, ``vision`` and ``runtime`` are there before the cache is taken; ``engine`` and
    ``vision_work`` come after it and out of what it left. That order is why a larger ``ratio`` can
    break a server that has started well: the first picture finds no room.

    A plan that does not fit has its bytes all the same, with a negative ``spare``, so that a report
    can show by how much it misses.
    """

    total: int
    llm: int
    vision: int
    runtime: int
    engine: int
    vision_work: int
    kv: int
    ratio: float
    """The cache's share of ``free_after_weights``, LMDeploy's ``cache_max_entry_count``; 0.0 where
    not even the weights and buffers find room.
    """

    @property
    def free_after_weights(self) -> int:
        """What ``cache_max_entry_count`` is a share of."""
        return max(0, self.total - self.llm - self.vision - self.runtime)

    @property
    def used(self) -> int:
        """What nvidia-smi will show under load."""
        return self.llm + self.vision + self.runtime + self.kv + self.engine + self.vision_work

    @property
    def share(self) -> float:
        """Of all memory, rounded up: what vLLM is told to take, so that all of this finds room."""
        return -(-self.used * 1000 // self.total) / 1000

    @property
    def spare(self) -> int:
        """Negative when it does not fit; the margin is not counted in."""
        return self.total - self.used

    @property
    def parts(self) -> dict[str, int]:
        """The bytes by what they hold, for tables and pictures."""
        return {
            "language model": self.llm,
            "vision model": self.vision,
            "CUDA and NCCL": self.runtime,
            "KV cache": self.kv,
            "engine buffers": self.engine,
            "vision activations": self.vision_work,
        }


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


def measure(
    spec: ModelSpec,
    total: int,
    work: Work,
    *,
    engine: EngineName = "lmdeploy-0.7.3",
    ratio: float | None = None,
) -> Memory:
    """Add up one GPU of ``work.tp``; without ``ratio``, the largest that leaves the rest its room.

    ``total`` is what a CUDA program finds, in bytes.
    """
    taken = _FOOTPRINTS[engine](spec, work)
    # ``bit_length`` of 2, 4 and 8 is 2, 3 and 4: the factors that ``PEERS`` was fitted with.
    runtime = CONTEXT + (PEERS * work.tp.bit_length() if work.tp > 1 else 0)
    free = max(0, total - taken.llm - taken.vision - runtime)
    if ratio is None:
        ratio = largest_ratio(free, _reserved(engine, total, taken), _most(engine))
    return Memory(
        total,
        taken.llm,
        taken.vision,
        runtime,
        taken.engine,
        taken.vision_work,
        int(free * ratio),
        ratio,
    )


_FOOTPRINTS = {
    "lmdeploy-0.7.3": turbomind.footprint_073,
    "lmdeploy": turbomind.footprint_018,
    "vllm": vllm.footprint,
}


def _reserved(engine: EngineName, total: int, taken: Footprint) -> int:
    """What the cache must leave: room to work, a margin, and what vLLM never takes."""
    kept = total - int(total * vllm.MAX_SHARE) if engine == "vllm" else 0
    return taken.engine + taken.vision_work + max(MARGIN, kept)


def _most(engine: EngineName) -> float:
    return 1.0 if engine == "vllm" else MAX_RATIO


def largest_ratio(free: int, reserved: int, most: float = MAX_RATIO) -> float:
    """The largest cache share, in thousandths, that leaves ``reserved`` bytes of ``free``.

    Rounded down, so that the share on LMDeploy's command line never takes a byte more than planned.

    >>> largest_ratio(free=50_000, reserved=20_000), largest_ratio(free=10, reserved=20)
    (0.6, 0.0)
    """
    if free <= reserved:
        return 0.0
    return min(most, (free - reserved) * 1000 // free / 1000)


def kv_block(engine: EngineName) -> int:
    """Tokens in a block of the cache: a request takes whole ones."""
    return vllm.KV_BLOCK if engine == "vllm" else turbomind.KV_BLOCK


def kv_bytes_per_token(spec: ModelSpec, engine: EngineName, quant_policy: int) -> int:
    """Of all GPUs together, as the engine lays it out."""
    return spec.kv_bytes_per_token(quant_policy, scaled=engine != "vllm")
