"""Names with braces: ``shard-{000..010}.tar`` and ``{cats,dogs}.tar``.

As bash expands them, since WebDataset's users write their shards so.

>>> list(braces("s-{08..10}.tar"))
['s-08.tar', 's-09.tar', 's-10.tar']
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BRACES = re.compile(r"\{([^{}]*(?:,[^{}]*)+|(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?)\}")


def has_braces(text: str) -> bool:
    """Whether ``text`` stands for several names, as shells have it."""
    return _BRACES.search(text) is not None


def braces(text: str) -> Iterator[str]:
    """The names, one by one; numbers are as wide as they are written."""
    found = _BRACES.search(text)
    if found is None:
        yield text
        return
    before, after = text[: found.start()], text[found.end() :]
    for choice in _choices(found):
        yield from braces(f"{before}{choice}{after}")


def _choices(found: re.Match[str]) -> Iterator[str]:
    if found[2] is None:
        yield from found[1].split(",")
        return
    first, last = int(found[2]), int(found[3])
    # "{08..10}" is padded, "{8..10}" is not: bash's rule.
    padded = any(re.match(r"-?0\d", number) for number in (found[2], found[3]))
    width = max(len(found[2]), len(found[3])) if padded else 0
    step = abs(int(found[4] or 1)) or 1
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    for number in numbers:
        yield f"{number:0{width}}"
