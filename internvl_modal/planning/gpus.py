"""The GPUs Modal rents: memory, speed, dated prices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from internvl_modal.errors import ConfigError

__all__ = ["COUNTS", "GPUS", "Gpu", "parse_gpu"]

COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Gpu:
    """One GPU type.

    ``memory_gib`` is what a CUDA program finds (``cudaMemGetInfo``), less than nvidia-smi's total;
    ``tflops`` are dense 16-bit tensor core TFLOPS; ``bandwidth`` of its memory and ``link`` to the
    other GPUs, one way, are GB/s.
    """

    name: str
    memory_gib: float
    tflops: float
    bandwidth: float
    link: float
    sm: int
    max_count: int = 8

    @property
    def memory(self) -> int:
        """Bytes a CUDA program finds."""
        return int(self.memory_gib * 2**30)

    @property
    def flash_attention(self) -> bool:
        """Whether flash-attn 2 runs there: it needs Ampere (sm_80)."""
        return self.sm >= 80


# Memory: the lowest total that PyTorch reports for the type ("GPU 0 has a total capacity of ...").
# Speed: NVIDIA's data sheets, SXM with NVLink where there is one, else PCIe; Modal's A10 is billed
# as an A10G, whose figures are AWS's for the G5.
GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("T4", 14.56, 65, 320, 16, 75),
        Gpu("L4", 22.03, 121, 300, 32, 89),
        Gpu("A10", 22.03, 70, 600, 32, 86, max_count=4),
        Gpu("L40S", 44.34, 362, 864, 32, 89),
        Gpu("A100-40GB", 39.38, 312, 1555, 300, 80),
        Gpu("A100-80GB", 79.14, 312, 2039, 300, 80),
        Gpu("RTX-PRO-6000", 94.97, 504, 1597, 64, 120),
        Gpu("H100", 79.10, 989, 3350, 450, 90),
        Gpu("H200", 139.72, 989, 4800, 450, 90),
        Gpu("B200", 178.35, 2250, 8000, 900, 100),
    )
}

_ALIASES = {"A100": "A100-40GB", "A10G": "A10", "H100!": "H100"}


def parse_gpu(text: str) -> tuple[Gpu, int]:
    """Read Modal's form (``H200:2``) or the spoken one (``2 x H200``)."""
    match = re.fullmatch(r"(?:(\d+)\s*X\s*)?([A-Z0-9!-]+?)(?::(\d+))?", text.strip().upper())
    name = _ALIASES.get(match[2], match[2]) if match else ""
    count = int(match[1] or match[3] or 1) if match else 0
    if match is None or name not in GPUS or count < 1 or (match[1] and match[3]):
        raise ConfigError(
            f"unknown GPU {text!r}", hint=f"one of {', '.join(GPUS)}, with :n for n of them"
        )
    return GPUS[name], count
