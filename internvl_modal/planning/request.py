"""What a deployment must be able to answer, and what may be fixed of its settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from internvl_modal._utils.signatures import showing
from internvl_modal.errors import ConfigError
from internvl_modal.models.shapes import TILE_TOKENS
from internvl_modal.models.support import ENGINES, EngineName
from internvl_modal.planning.cost import CORES, HOST_GIB
from internvl_modal.planning.options import PlanOptions

__all__ = ["Request", "is_number", "round_up", "with_plan_options"]

USEFUL_SESSION = 16384  # tokens InternVL 2.5 was trained to; the documents serve half of it

MAX_BATCH = 64  # requests at once: more only queue behind the ViT, which is one thread

# On several GPUs LMDeploy 0.7.3 has hung with 16 and more picture requests under way, and not with
# fewer: https://github.com/InternLM/lmdeploy/issues/3529 (InternVL2.5-78B), also 2743 and 3057.
MAX_BATCH_SEVERAL = 12

IMAGE_MARKUP_TOKENS = 8  # "Image-1: <img></img>\n"

LEAST = {
    **dict.fromkeys(
        (
            *("images_per_request", "max_tiles", "output_tokens", "vision_max_batch_size"),
            *("session_len", "max_batch_size", "scaledown_window", "cpu", "memory_gib"),
        ),
        1,
    ),
    "prompt_tokens": 0,
}
"""The least that each number may be, where it is given."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a deployment must be able to answer, and what may be fixed of its settings.

    None leaves a setting to the planner. Its fields are those of ``PlanOptions``.
    """

    engine: EngineName | None = None
    images_per_request: int = 1
    max_tiles: int = 12
    prompt_tokens: int = 100
    output_tokens: int = 200
    session_len: int | None = None
    max_batch_size: int | None = None
    cache_max_entry_count: float | None = None
    quant_policy: int = 0
    vision_max_batch_size: int = 1
    scaledown_window: int | None = None
    cpu: float = CORES
    memory_gib: float = HOST_GIB

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not is_number(value):
                raise ConfigError(f"{name} = {value!r}: it must be a number")
            if value is not None and value < least:
                raise ConfigError(f"{name} = {value}: it must be at least {least}")
        # The most that InternVL is documented for at inference (a 4K picture).
        if self.max_tiles > 40:
            raise ConfigError(f"max_tiles = {self.max_tiles}: it must be at most 40")
        # What LMDeploy calls it: the bits of a key or value, 0 for those of the weights.
        if self.quant_policy not in (0, 4, 8):
            raise ConfigError(f"quant_policy = {self.quant_policy}: it must be 0, 4 or 8")
        if self.engine is not None and self.engine not in ENGINES:
            raise ConfigError(
                f"unknown engine {self.engine!r}", hint=f"one of {', '.join(ENGINES)}"
            )
        ratio = self.cache_max_entry_count
        if ratio is not None and not (is_number(ratio) and 0 < ratio < 1):
            raise ConfigError(f"cache_max_entry_count = {ratio}: it must lie between 0 and 1")

    @property
    def tiles(self) -> int:
        """Of one picture at most, the thumbnail included."""
        return self.max_tiles + 1 if self.max_tiles > 1 else 1

    @property
    def input_tokens(self) -> int:
        """Pictures and text."""
        image = self.tiles * TILE_TOKENS + IMAGE_MARKUP_TOKENS
        return self.images_per_request * image + self.prompt_tokens

    @property
    def tokens(self) -> int:
        """Of one request from beginning to end."""
        return self.input_tokens + self.output_tokens

    def batch(self, count: int, engine: EngineName = "lmdeploy-0.7.3") -> int:
        """Most requests at once on ``count`` GPUs."""
        several = count > 1 and engine == "lmdeploy-0.7.3"
        return self.max_batch_size or (MAX_BATCH_SEVERAL if several else MAX_BATCH)

    def session(self, context: int) -> int:
        """The session length asked for, else a useful one in which the request fits."""
        return self.session_len or min(context, max(USEFUL_SESSION, round_up(self.tokens, 1024)))


def is_number(value: object) -> bool:
    """Whether it can be reckoned with: a text of digits cannot, nor can infinity.

    >>> is_number(3), is_number("3"), is_number(float("inf"))
    (True, False, False)
    """
    return isinstance(value, int | float) and math.isfinite(value)


with_plan_options = showing(PlanOptions, {each.name: each.default for each in fields(Request)})
"""Shows ``**options: Unpack[PlanOptions]`` as keywords."""


def round_up(value: int, step: int) -> int:
    """The next multiple of ``step``."""
    return -(-value // step) * step
