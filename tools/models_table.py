"""Write the tables in docs/models.md: a row a model of the catalogue, computed or quoted.

What a model costs is planned with the catalogue's prices, so that the page does not depend on who
writes it. Run from the repository's root as ``python -m tools.models_table``.
"""

from __future__ import annotations

from pathlib import Path

from internvl_modal.models.catalogue import MODELS
from internvl_modal.models.quality import SOURCES, quality_of
from internvl_modal.models.shapes import ModelSpec
from internvl_modal.models.support import engines_of
from internvl_modal.planning.plan import Plan
from internvl_modal.planning.planner import make_plan
from internvl_modal.planning.prices import CATALOGUE_PRICES
from internvl_modal.planning.request import Request

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- models: begin -->\n", "<!-- models: end -->"
FAMILIES = {"internvl2_5": "InternVL 2.5", "internvl3": "InternVL3", "internvl3_5": "InternVL3.5"}
COLUMNS = (
    *("Model", "Engines", "Weights, GB", "Least an hour", "USD/h", "GiB without KV"),
    *("Cheapest picture", "USD/1,000", "MMBench", "OCRBench", "Source", "Licence"),
)


def row(spec: ModelSpec) -> str:
    """The row of a model on its default engine: cheapest by the hour, then by the picture."""
    plan = make_plan(spec, Request(), CATALOGUE_PRICES)
    assert plan.fits, spec.name
    hour = min(plan.choices, key=lambda choice: choice.cost.per_hour)
    taken = hour.memory.used - hour.memory.kv
    used, total = (size / 2**30 for size in (taken, hour.memory.total))
    low, high = plan.cost.per_1000
    cells = (
        f"[`{spec.name}`](https://huggingface.co/{spec.repo})",
        _engines(spec),
        f"{spec.disk_bytes / 1e9:.1f}",
        *(hour.gpu_string, f"{hour.cost.per_hour:.2f}", f"{used:.1f} of {total:.1f}"),
        *(plan.gpu_string, f"{low:.2f}-{high:.2f}"),
        *_figures(plan),
        spec.licence,
    )
    return f"| {' | '.join(cells)} |\n"


def _engines(spec: ModelSpec) -> str:
    names = ", ".join(f"`{engine}`" for engine in engines_of(spec))
    return f"{names}, local" if spec.gguf else names


def _figures(plan: Plan) -> tuple[str, str, str]:
    quality = quality_of(plan.spec)
    if quality is None:
        return "", "", ""
    figures = ("" if each is None else f"{each}" for each in (quality.mmbench, quality.ocrbench))
    mmbench, ocrbench = figures
    return mmbench, ocrbench, f"{list(SOURCES.values()).index(quality.source) + 1}"


def tables() -> str:
    """A table a family, then the sources by number."""
    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    text = ""
    for family, title in FAMILIES.items():
        rows = [row(s) for name, s in MODELS.items() if name.partition("-")[0] == family]
        text += f"## {title}\n\n{head}{''.join(rows)}\n"
    sources = "".join(f"{n}. {source}\n" for n, source in enumerate(SOURCES.values(), 1))
    return f"{text}## Sources\n\n{sources}\nPrices: {CATALOGUE_PRICES.source}.\n"


def shown() -> str:
    """What the page has between its marks."""
    return PAGE.read_text(encoding="utf-8").split(BEGIN)[1].partition(END)[0]


def main() -> None:
    """Put the tables between the marks of the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    page = before + BEGIN + tables() + END + rest.partition(END)[2]
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
