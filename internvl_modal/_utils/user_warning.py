"""What somebody must see who has not set ``logging`` up: a warning of Python's, once.

``logging`` under ``internvl_modal`` is quiet by default, and what is told here costs money or makes
an answer worthless. A warning is shown in scripts and notebooks, once in a process, and can be
turned off, into an error or into a log record like any other.
"""

from __future__ import annotations

import warnings

__all__ = ["InternVLWarning", "shown", "warn_user"]

shown: set[str] = set()
"""Python itself forgets what it has shown whenever a library changes a filter for a moment."""


class InternVLWarning(UserWarning):
    """What should be seen and stops nothing: a setting that nobody reads, the model ``demo``.

    Python shows it once and goes on; ``warnings.simplefilter("error", InternVLWarning)`` has it
    raised instead.
    """


def warn_user(message: str) -> None:
    """Show ``message``, unless this process has shown it before.

    Without a place in the code: it is of the program as a whole, and often told from a thread that
    none of the caller's lines has called.
    """
    if message not in shown:
        package = __name__.partition(".")[0]
        warnings.warn_explicit(message, InternVLWarning, package, 1)
        shown.add(message)  # only now: where it is an error, it is one every time
