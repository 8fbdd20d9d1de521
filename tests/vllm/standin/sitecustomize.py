"""What every process of the server needs on a small machine.

Its processes wait for each other in loops that only yield, which on two cores can keep a test from
running for as long as an answer takes: here they sleep for an instant.

And torchvision must be importable beside a torch without CUDA.

The build of torchvision that is easiest to have holds operators for CUDA, which then fail to load.
Nothing here calls them, but torchvision registers their shapes at import.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import version

os.sched_yield = lambda: time.sleep(0.0001)

OPERATOR = "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor"


class _BeforeTorchvision:
    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(cls)
            import torch

            cls.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                cls.library.define(operator + OPERATOR)


if "+" not in version("torchvision"):
    sys.meta_path.insert(0, _BeforeTorchvision)
