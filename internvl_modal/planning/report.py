"""Rows of a plan as text and as a notebook table, and the bars of its picture.

It knows tables and bars, and nothing of plans. ``Row`` is a tuple of strings that are formatted
already: numbers get their units where they are known, in ``plan``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

__all__ = ["SHOWN", "Bar", "Report", "Row", "as_html", "as_text"]

Row: TypeAlias = "tuple[str, ...]"

SHOWN = 8
"""Choices in a report; the cheapest come first."""


@dataclass(frozen=True)
class Report:
    """What a plan says: each table is a list of rows, the first its heading."""

    headline: str
    tables: tuple[list[Row], ...]
    notes: tuple[str, ...]
    choices: list[Row]
    """Empty where nothing works."""
    ranking: list[Row]
    """Of models, where only a budget was given."""


@dataclass(frozen=True)
class Bar:
    """Memory of one GPU in bytes, by what takes it, and what the GPU has."""

    name: str
    parts: Mapping[str, int]
    total: int


def as_text(report: Report) -> str:
    """The whole plan, for a terminal."""
    sections = [[report.headline], *map(aligned, report.tables)]
    sections.append([f"- {each}" for each in report.notes])
    if report.choices:
        heading = "What works, cheapest picture first (by the middle of the range):"
        sections.append([heading, *aligned(report.choices)])
    if report.ranking:
        heading = "What the budget pays for; those that cost more and are no better come last:"
        sections.append([heading, *aligned(report.ranking)])
    return "\n\n".join("\n".join(lines) for lines in sections)


def as_html(report: Report) -> str:
    """The whole plan, for a notebook."""
    tables = [*report.tables, *filter(None, (report.choices, report.ranking))]
    notes = "".join(f"<li>{escape(each)}</li>" for each in report.notes)
    body = "".join(_html_table(rows) for rows in tables)
    return f"<p><b>{escape(report.headline)}</b></p>{body}<ul>{notes}</ul>"


def aligned(rows: Sequence[Row]) -> list[str]:
    """Columns: the first flush left, the others flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _html_table(rows: Sequence[Row]) -> str:
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in body]
    return f"<table>{''.join(lines)}</table>"
