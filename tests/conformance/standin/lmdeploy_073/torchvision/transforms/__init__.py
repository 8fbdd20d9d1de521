"""Compose, Lambda, Resize, ToTensor and Normalize for Pillow images, as in torchvision."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from .functional import InterpolationMode


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: list[Callable]) -> None:
        self.transforms = transforms

    def __call__(self, image: object) -> object:
        for transform in self.transforms:
            image = transform(image)
        return image


class Lambda:
    """Any function."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, image: object) -> object:
        return self.function(image)


class Resize:
    """To a size given as (height, width)."""

    def __init__(self, size: tuple[int, int], interpolation: InterpolationMode) -> None:
        self.size = size
        self.interpolation = interpolation

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.resize(self.size[::-1], self.interpolation.value)


class ToTensor:
    """(height, width, 3) bytes to (3, height, width) floats from 0 to 1."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255


class Normalize:
    """Subtract the mean and divide by the deviation of each channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return (tensor - self.mean) / self.std
