"""Which values of deep grey are black and white.

A 16-bit file says nothing about how many of its bits a sensor has filled. Pillow's own conversion
clips at 255, which shows a white square to the model. Every guess made here becomes a warning of
the description.

>>> sixteen_bit_range(1023)
(0, 1023, 'its 16-bit values end at 1023: shown from 0 to 1023')
"""

from __future__ import annotations

import math

from internvl_modal.errors import ImageError

TWELVE_BITS = 4_096
"""Above it a value cannot be of a 12-bit sensor; a 14-bit one is nearly full range anyway."""
FULL = 65_535


def sixteen_bit_range(high: float) -> tuple[float, float, str]:
    """Black, white and a warning for 16-bit pictures: sensors write 10, 12 or 14 bits into them.

    ``high`` is the largest value. From 4,096 on a picture is what it says: a dark one stays dark.
    """
    if high >= TWELVE_BITS or high <= 0:
        return 0, FULL, ""
    # All ones: a sensor's range is a power of two.
    white = (1 << int(high).bit_length()) - 1
    return 0, white, f"its 16-bit values end at {high:g}: shown from 0 to {white}"


def own_range(low: float, high: float, name: str, *, unit: bool) -> tuple[float, float, str]:
    """Black, white and a warning for 32-bit pictures; ``unit``: 0..1 is taken as it is."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("has pixels that are not numbers", source=name, hint="replace NaN and inf")
    if unit and low >= 0 and high <= 1:
        return 0, 1, ""
    if low == high:
        return (
            (low - 1, high + 1, f"all its values are {low:g}: shown as grey") if low else (0, 1, "")
        )
    return low, high, f"its values {low:g}..{high:g} are shown from the darkest to the lightest"
