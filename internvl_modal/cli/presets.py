"""``--preset``, and what goes with one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from internvl_modal.errors import ConfigError

if TYPE_CHECKING:
    from internvl_modal.captions.presets.base import Preset

__all__ = ["lora_or"]


def lora_or(
    name: str | None,
    trigger: str | None,
    leave_out: Sequence[str] | None,
    tokens: int | None,
) -> str | Preset | None:
    """The preset called so, a ``lora`` with what belongs to it; raises ConfigError for the rest."""
    given = {"--trigger": trigger, "--leave-out": leave_out, "--tokens": tokens}
    said = [flag for flag, value in given.items() if value is not None]
    if name != "lora":
        if said:
            raise ConfigError(f"{said[0]} belongs to --preset lora", hint="leave it out")
        return name
    from internvl_modal.captions.presets.lora import CLIP, lora

    return lora(trigger or "", leave_out=leave_out or (), tokens=CLIP if tokens is None else tokens)
