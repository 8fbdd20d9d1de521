"""Lets torchvision be imported beside a torch without CUDA, in every process of the server.

The build of torchvision that is easiest to have holds operators for CUDA, which then fail to load.
Nothing here calls them, but torchvision registers their shapes at import.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

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
