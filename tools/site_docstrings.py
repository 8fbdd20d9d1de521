"""Show the examples of docstrings as code on the site.

An extension of griffe, which reads the docstrings for MkDocs (``extensions`` in mkdocs.yml).
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"(?:^>>> .*(?:\n(?!\n).*)*)", re.M)


class Fenced(griffe.Extension):
    """Puts fences around what a Python prompt begins."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            told = obj.docstring.value.replace("  # doctest: +SKIP", "")
            obj.docstring.value = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", told)
