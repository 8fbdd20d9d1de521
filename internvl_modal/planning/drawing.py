"""The memory of a plan and its choices as a picture; needs matplotlib, the extra ``plot``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from internvl_modal.planning.report import Bar

__all__ = ["Drawing", "draw"]


class Drawing(Figure):
    """A figure that notebooks show, though nobody has imported pyplot."""

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        self.savefig(written, format="png")
        return written.getvalue()


def draw(title: str, bars: Sequence[Bar], path: str | Path | None = None) -> Drawing:
    """Stack memory per GPU, one bar a choice; save it to ``path`` if given, return the figure.

    It is made without pyplot: no backend is chosen and no window is registered, so it works in a
    thread, on a server and in a notebook alike.
    """
    figure = Drawing(figsize=(8, 1 + 0.5 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    names = [bar.name for bar in bars]
    left = [0.0] * len(bars)
    # All bars have the same parts, in the same order: one colour each.
    for part in bars[0].parts:
        widths = [bar.parts[part] / 2**30 for bar in bars]
        axes.barh(names, widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, bar in enumerate(bars):
        axes.plot([bar.total / 2**30] * 2, [row - 0.4, row + 0.4], color="black")
    axes.invert_yaxis()
    axes.set_xlabel("GiB on each GPU; black: what it has")
    axes.set_title(title)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    if path is not None:
        figure.savefig(path)
    return figure
