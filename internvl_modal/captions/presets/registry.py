"""The presets by their names."""

from __future__ import annotations

from internvl_modal.captions.presets import alt_text, caption, dense, lora, ocr, tags
from internvl_modal.captions.presets.base import Preset
from internvl_modal.errors import ConfigError

_MODULES = (alt_text, caption, dense, tags, ocr, lora)
PRESETS: dict[str, Preset] = {each.PRESET.name: each.PRESET for each in _MODULES}


def preset_of(given: object) -> Preset | None:
    """The preset meant by a name or a ``Preset``; None for None; raises ConfigError."""
    if given is None or isinstance(given, Preset):
        return given
    found = PRESETS.get(given) if isinstance(given, str) else None
    if found is None:
        raise ConfigError(
            f"there is no preset {given!r}", hint=f"{', '.join(PRESETS)}, or a Preset of your own"
        )
    return found
