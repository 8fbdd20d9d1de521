"""The GPUs Modal rents: memory, speed, dated prices.

A table and the reader of its names; prices are dated and lie in ``prices``. A new type needs a row
in ``GPUS``, one in ``CATALOGUE_PRICES`` and, where Modal spells it otherwise, in the aliases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from internvl_modal.errors import ConfigError

__all__ = ["COUNTS", "GPUS", "Gpu", "parse_gpu", "parse_gpus"]

COUNTS = (1, 2, 4, 8)
"""Powers of two, which is what TurboMind's ``tp`` takes, up to the eight that Modal offers.
"""


@dataclass(frozen=True)
class Gpu:
    """One GPU type.

    ``memory_gib`` is what a CUDA program finds (``cudaMemGetInfo``), less than nvidia-smi's total;
    ``tflops`` are dense 16-bit tensor core TFLOPS; ``bandwidth`` of its memory and ``link`` to the
    other GPUs, one way, are GB/s.

    ``sm`` is the compute capability without its dot (sm_80 is Ampere, sm_90 Hopper). It decides
    whether LMDeploy 0.7.3 has kernels at all and whether flash-attn runs. ``max_count`` is the most
    that Modal offers in one machine. ``link`` is NVLink where the type has one and PCIe where it
    has not, a factor of ten and more in what a token costs on several GPUs.
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

# What people write for a type. Modal takes "A100" as the smaller one, and "H100!" to say that no
# H200 may stand in for it; for memory and speed it is an H100 all the same.
_ALIASES = {"A100": "A100-40GB", "A10G": "A10", "H100!": "H100"}


def parse_gpus(named: str | Sequence[str]) -> list[tuple[Gpu, int]]:
    """One or several, in a list or with commas between them; raises ConfigError."""
    listed = named.split(",") if isinstance(named, str) else named
    if not isinstance(listed, Sequence) or not all(isinstance(each, str) for each in listed):
        raise ConfigError(f"gpu = {named!r}", hint='a name such as "H200:2", or a list of them')
    return [parse_gpu(each) for each in listed]


def parse_gpu(text: str) -> tuple[Gpu, int]:
    """Read Modal's form (``H200:2``) or the spoken one (``2 x H200``).

    Raises ConfigError for a type that Modal does not rent and where both forms give a number; the
    count is not held against ``max_count`` here, as the plan says that in its reason.

    >>> gpu, count = parse_gpu("2 x h200")
    >>> gpu.name, count, parse_gpu("A100")[0].name
    ('H200', 2, 'A100-40GB')
    """
    match = re.fullmatch(r"(?:(\d+)\s*X\s*)?([A-Z0-9!-]+?)(?::(\d+))?", text.strip().upper())
    name = _ALIASES.get(match[2], match[2]) if match else ""
    count = int(match[1] or match[3] or 1) if match else 0
    # "2 x H200:2" could mean two or four: refuse it rather than rent the wrong number.
    if match is None or name not in GPUS or count < 1 or (match[1] and match[3]):
        raise ConfigError(
            f"unknown GPU {text!r}", hint=f"one of {', '.join(GPUS)}, with :n for n of them"
        )
    return GPUS[name], count
