"""Interpolation modes by the names that LMDeploy uses."""

import enum

from PIL import Image


class InterpolationMode(enum.Enum):
    """As in torchvision, with Pillow's numbers as values."""

    BICUBIC = Image.Resampling.BICUBIC
