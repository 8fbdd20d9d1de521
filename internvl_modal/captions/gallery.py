"""A page to look captions over: one file of HTML that needs no network and no server.

Texts in it are of models and of strangers. They are data for the page's script, which sets them as
text; the page's policy runs no other script, whatever a caption holds.
"""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from importlib.resources import files

__all__ = ["Caption", "Row", "Table", "grid", "page"]


LONGEST = 240
"""Characters of a text that a notebook shows."""


@dataclass(frozen=True)
class Caption:
    """One answer about a picture, or the error in its place; ``name`` is a model's or prompt's."""

    text: str = ""
    flags: Sequence[str] = ()
    error: str = ""
    name: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    """Shown with the large picture: tokens, seconds, attempts."""


@dataclass(frozen=True)
class Row:
    """A picture by its key, where it can be loaded from, and what was said of it.

    ``source``: a URL, one relative to the page, or a data URL; "" for none.
    """

    key: str
    answers: Sequence[Caption]
    source: str = ""


@dataclass(frozen=True)
class Table:
    """Figures above the pictures; the first row is the head."""

    title: str
    rows: Sequence[Sequence[str]]

    @property
    def html(self) -> str:
        """For notebooks, which give tables their own colours."""
        rows = ([f"<td>{html.escape(cell)}</td>" for cell in row] for row in self.rows)
        body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
        return f"<b>{html.escape(self.title)}</b><table>{body}</table>"


def page(
    title: str, rows: Iterable[Row], *, tables: Iterable[Table] = (), facts: Sequence[str] = ()
) -> str:
    """The page; ``facts`` stand beside the count of pictures."""
    data = {
        "rows": [asdict(row) for row in rows],
        "tables": [asdict(table) for table in tables],
        "facts": list(facts),
    }
    style, script = _asset("gallery.css"), _asset("gallery.js")
    parts = {
        "title": html.escape(title),
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        "data": _json(data),
    }
    pieces = _asset("gallery.html").split("{{")
    # Each mark once, in order: what is put in may hold such marks itself.
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def grid(rows: Iterable[Row], note: str = "") -> str:
    """A few pictures with their captions for a notebook: no script, and nothing from elsewhere."""
    cards = "".join(_card(row) for row in rows)
    end = f'<div style="opacity:.7;margin-top:.5em">{html.escape(note)}</div>' if note else ""
    columns = "repeat(auto-fill,minmax(180px,1fr))"
    return f'<div style="display:grid;grid-template-columns:{columns};gap:12px">{cards}</div>{end}'


def _card(row: Row) -> str:
    image = ""
    if row.source.startswith("data:image/"):
        source = html.escape(row.source, quote=True)
        style = "width:100%;height:140px;object-fit:contain"
        image = f'<img src="{source}" alt="" style="{style}">'
    words = "".join(_words(caption) for caption in row.answers)
    key = f'<div style="opacity:.6;font-size:.8em">{html.escape(row.key[:120])}</div>'
    frame = (
        "border:1px solid #8886;border-radius:8px;padding:8px;overflow-wrap:anywhere;"
        "font-size:.9em;line-height:1.4"
    )
    return f'<div style="{frame}">{image}{words}{key}</div>'


def _words(caption: Caption) -> str:
    name = f"<b>{html.escape(caption.name)}</b> " if caption.name else ""
    text = caption.text or caption.error
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    colour = ' style="color:#c33"' if caption.error else ""
    told = f"<div{colour}>{name}{html.escape(shown)}</div>"
    if caption.flags:
        told += f'<div style="color:#b7791f">⚑ {html.escape(", ".join(caption.flags))}</div>'
    return told


def _json(data: object) -> str:
    """JSON that may stand in a script element: nothing in it can end the element or open one."""
    text = json.dumps(data, ensure_ascii=False, default=str)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    # A name of a file that is no Unicode is half a character, which JSON may hold as an escape.
    return text.encode("utf-8", "backslashreplace").decode()


@cache
def _asset(name: str) -> str:
    folder = files("internvl_modal.captions").joinpath("page")
    return folder.joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()
