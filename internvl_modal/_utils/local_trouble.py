"""Which errors are this machine's own: they strike every picture, and no picture is to blame.

A batch that blamed the picture for a full disk would write a failure for every picture that is
left, and the next run would skip them. Such an error ends the batch instead.
"""

from __future__ import annotations

import errno

__all__ = ["is_local_trouble"]

_NUMBERS = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.ENOBUFS)
)


def is_local_trouble(error: BaseException | None) -> bool:
    """Whether memory, file descriptors or disk ran out, in ``error`` or in what caused it."""
    # Chains of causes can be circles, where what was caught is raised again.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in _NUMBERS:
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
