"""A plan as text, as a notebook table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from internvl_modal.catalog import MODELS
from internvl_modal.errors import MissingExtraError
from internvl_modal.memory import MARGIN, MIB
from internvl_modal.planner import Plan

__all__ = ["as_html", "as_text", "draw", "models_text"]

_SHOWN = 8  # choices in a table or a picture


def as_text(plan: Plan) -> str:
    """The whole plan, for a terminal."""
    sections = [[_headline(plan)], _aligned(_memory_rows(plan)), _aligned(_fact_rows(plan))]
    sections.append([f"- {each}" for each in plan.cost.assumptions])
    if plan.choices:
        heading = "What works, cheapest picture first (by the middle of the range):"
        sections.append([heading, *_aligned(_choice_rows(plan))])
    return "\n\n".join("\n".join(lines) for lines in sections)


def models_text() -> str:
    """The catalog: names, bytes of the weights, and which have files for this machine's CPU."""
    rows: list[tuple[str, ...]] = [("model", "GB", "local")]
    for spec in MODELS.values():
        rows.append((spec.name, f"{spec.disk_bytes / 1e9:.1f}", "yes" if spec.gguf else ""))
    return "\n".join(_aligned(rows))


def as_html(plan: Plan) -> str:
    """The whole plan, for a notebook."""
    tables = [_memory_rows(plan), _fact_rows(plan)]
    if plan.choices:
        tables.append(_choice_rows(plan))
    notes = "".join(f"<li>{escape(each)}</li>" for each in plan.cost.assumptions)
    body = "".join(_html_table(rows) for rows in tables)
    return f"<p><b>{escape(_headline(plan))}</b></p>{body}<ul>{notes}</ul>"


def draw(plan: Plan, path: str | Path | None = None) -> object:
    """Stack memory per GPU, one bar a choice; save it to ``path`` if given, return the Figure."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    others = [choice for choice in plan.choices if choice.gpu_string != plan.gpu_string]
    bars = [plan, *others[: _SHOWN - 1]]
    figure = Figure(figsize=(8, 1 + 0.5 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    names = [bar.gpu_string + ("" if bar.fits else " (does not fit)") for bar in bars]
    left = [0.0] * len(bars)
    for part in plan.memory.parts:
        widths = [bar.memory.parts[part] / 2**30 for bar in bars]
        axes.barh(names, widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, bar in enumerate(bars):
        axes.plot([bar.memory.total / 2**30] * 2, [row - 0.4, row + 0.4], color="black")
    axes.invert_yaxis()
    axes.set_xlabel("GiB on each GPU; black: what it has")
    axes.set_title(plan.spec.name)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    if path is not None:
        figure.savefig(path)
    return figure


def _headline(plan: Plan) -> str:
    verdict = "fits" if plan.fits else f"does not fit: {plan.reason}"
    return f"{plan.spec.name} on {plan.count} x {plan.gpu.name} {verdict}"


def _memory_rows(plan: Plan) -> list[tuple[str, ...]]:
    memory = plan.memory
    rows: list[tuple[str, ...]] = [("Each GPU", "MiB")]
    rows += [(part, _mib(size)) for part, size in memory.parts.items()]
    rows += [
        ("used", _mib(memory.used)),
        ("of", _mib(memory.total)),
        (f"left (at least {_mib(MARGIN)} is kept)", _mib(memory.spare)),
    ]
    return rows


def _fact_rows(plan: Plan) -> list[tuple[str, ...]]:
    capacity, cost, memory = plan.capacity, plan.cost, plan.memory
    start = plan.startup_seconds
    return [
        ("Service", ""),
        ("KV cache share", f"{memory.ratio:g} of {_mib(memory.free_after_weights)} MiB"),
        ("KV cache", f"{capacity.kv_tokens:,} tokens"),
        ("session", f"{capacity.session_len:,} tokens"),
        ("one request", f"{capacity.request_tokens:,} tokens"),
        ("requests at once", f"{capacity.sessions:,} fit, {capacity.max_batch_size} planned"),
        ("cold start", f"{start[0] / 60:.1f}-{start[1] / 60:.1f} min"),
        ("USD an hour", f"{cost.per_hour:.2f}"),
        ("USD an idle window", f"{cost.idle_window:.2f}"),
        ("USD a cold start", _range(cost.start)),
        ("USD 1,000 pictures", _range(cost.per_1000)),
        ("licence", plan.spec.licence),
    ]


def _choice_rows(plan: Plan) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("GPU", "requests", "USD/h", "USD/1,000 pictures")]
    for choice in plan.choices[:_SHOWN]:
        cost, requests = choice.cost, str(choice.capacity.max_batch_size)
        rows.append((choice.gpu_string, requests, f"{cost.per_hour:.2f}", _range(cost.per_1000)))
    return rows


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns: the first flush left, the others flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _html_table(rows: Sequence[tuple[str, ...]]) -> str:
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in body]
    return f"<table>{''.join(lines)}</table>"


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f}"


def _range(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f}-{pair[1]:.2f}"
