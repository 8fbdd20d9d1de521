"""What every program asks: of which gateway, with which picture, for which object."""

from __future__ import annotations

import enum
import os

from pydantic import BaseModel

URL, KEY, MODEL = (os.environ[f"GATEWAY_{name}"] for name in ("URL", "KEY", "MODEL"))
IMAGE = os.environ["GATEWAY_IMAGE"]
"""A data URL of a red circle."""
PROMPT = "Describe this image in detail."
SEEN = "red circle"
MESSAGES = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": PROMPT},
            {"type": "image_url", "image_url": {"url": IMAGE}},
        ],
    }
]


class Colour(str, enum.Enum):
    """What any model can fill in."""

    RED = "red"
    BLUE = "blue"


class Scene(BaseModel):
    """An answer that any model can give."""

    colour: Colour
