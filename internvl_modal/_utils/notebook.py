"""A small card for notebooks: a text, a line of facts, and tables that unfold.

Plain HTML with the page's own colours, so that it is right in light and dark; nothing is loaded
from elsewhere, and every word is escaped, as captions and names of files are other people's.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

__all__ = ["card", "table"]

_FRAME = "border:1px solid #8886;border-radius:8px;padding:.6em .9em;max-width:60em"
_QUIET = "opacity:.7;font-size:.9em;margin-top:.4em"


def card(
    lead: str,
    facts: Sequence[str] = (),
    *,
    warnings: Sequence[str] = (),
    details: Mapping[str, str] | None = None,
    picture: str = "",
) -> str:
    """``lead`` large, ``facts`` in a line, warnings each in its own; all are plain text.

    ``details``: HTML by the title that unfolds it, from ``table``. ``picture``: a data URL.

    >>> card("A <cat>.", ["demo", "266 tokens"]).count("&lt;cat&gt;")
    1
    """
    parts = [f'<div style="white-space:pre-wrap">{html.escape(lead)}</div>']
    if picture:
        image = html.escape(picture, quote=True)
        parts.insert(0, f'<img src="{image}" alt="" style="max-width:280px;max-height:200px">')
    parts += [f'<div style="color:#b7791f">{html.escape(words)}</div>' for words in warnings]
    if facts:
        parts.append(f'<div style="{_QUIET}">{html.escape(" · ".join(facts))}</div>')
    parts += [
        f'<details style="{_QUIET}"><summary>{html.escape(title)}</summary>{inner}</details>'
        for title, inner in (details or {}).items()
    ]
    return f'<div style="{_FRAME}">{"".join(parts)}</div>'


def table(rows: Mapping[str, object]) -> str:
    """Names and values in two columns; values are shown as ``str`` has them."""
    cells = "".join(
        f'<tr><td style="text-align:left">{html.escape(name)}</td>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"
