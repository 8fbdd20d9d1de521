"""How good a model is, as its authors published it. Nothing here is estimated.

Two figures that were published for every generation: MMBench v1.1 in English (of 100), questions
about pictures, and OCRBench (of 1,000), text in pictures. A model whose figures were not read has
none: variants in fewer bits, earlier stages of training. An ``-HF`` repository holds the weights of
the plain one.

>>> quality_of(find_model("internvl3_5-8b")).score
81.75
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from internvl_modal.models.catalogue import MODELS, find_model
from internvl_modal.models.shapes import ModelSpec

__all__ = ["SOURCES", "Quality", "quality_of", "ranked"]


@dataclass(frozen=True)
class Quality:
    """Published figures; None for one that was not read."""

    mmbench: float | None
    ocrbench: int | None
    source: str
    """Where they were read."""

    @property
    def score(self) -> float | None:
        """What models are ranked by, of 100: the mean of both; None where one is missing."""
        if self.mmbench is None or self.ocrbench is None:
            return None
        return (self.mmbench + self.ocrbench / 10) / 2


SOURCES = {
    "2.5": "InternVL2.5 announcement, tables 3 and 5 (arXiv 2412.05271)",
    "2.5-MPO": "InternVL2.5-MPO announcement, table 1",
    "3": "InternVL3 announcement, tables 3 and 6 (arXiv 2504.10479)",
    "3.5": "InternVL3.5 paper, tables 4 and 6 (arXiv 2508.18265)",
    "3.5-Flash": "InternVL3.5 paper, table 17 (arXiv 2508.18265)",
}
"""The runs of 2.5 and of its MPO were not one: the bases of the second differ by up to 2 points."""

_FIGURES: Mapping[str, Mapping[str, tuple[float | None, int | None]]] = {
    "2.5": {
        "internvl2_5-1b": (68.4, 785),
        "internvl2_5-2b": (72.2, 804),
        "internvl2_5-4b": (79.3, 828),
        "internvl2_5-8b": (83.2, 822),
        "internvl2_5-26b": (84.2, 852),
        "internvl2_5-38b": (85.5, 842),
        "internvl2_5-78b": (87.4, 854),
    },
    "2.5-MPO": {
        "internvl2_5-1b-mpo": (67.2, 836),
        "internvl2_5-2b-mpo": (71.6, 842),
        "internvl2_5-4b-mpo": (78.6, 880),
        "internvl2_5-8b-mpo": (82.4, 883),
        "internvl2_5-26b-mpo": (84.2, 907),
        "internvl2_5-38b-mpo": (85.6, 885),
        "internvl2_5-78b-mpo": (87.8, 907),
    },
    "3": {
        "internvl3-1b": (69.9, 790),
        "internvl3-2b": (78.6, 835),
        "internvl3-8b": (81.7, 880),
        "internvl3-9b": (81.7, 877),
        "internvl3-14b": (83.5, 875),
        "internvl3-38b": (86.9, 886),
        "internvl3-78b": (87.7, 906),
    },
    "3.5": {
        "internvl3_5-1b": (69.9, 795),
        "internvl3_5-2b": (76.6, 836),
        "internvl3_5-4b": (80.3, 822),
        "internvl3_5-8b": (79.5, 840),
        "internvl3_5-14b": (81.5, 836),
        "internvl3_5-38b": (87.3, 870),
        "internvl3_5-30b-a3b": (84.8, 880),
        "internvl3_5-241b-a28b": (87.4, 907),
        "internvl3_5-gpt-oss-20b-a4b-preview": (85.2, 870),
    },
    "3.5-Flash": {
        "internvl3_5-8b-flash": (None, 830),
        "internvl3_5-38b-flash": (None, 865),
        "internvl3_5-30b-a3b-flash": (None, 878),
    },
}
_QUALITY = {
    name: Quality(*figures, SOURCES[source])
    for source, rows in _FIGURES.items()
    for name, figures in rows.items()
}


def quality_of(spec: ModelSpec) -> Quality | None:
    """The figures of a model of the catalogue; None where none was read, or of another's model."""
    known = find_model(spec.repo)
    if known is None:
        return None
    name = known.name.removesuffix("-hf") if known.converted else known.name
    return _QUALITY.get(name)


def ranked() -> tuple[ModelSpec, ...]:
    """The models with both figures, each once: an ``-HF`` repository is its plain one again."""
    scored = {name for name, quality in _QUALITY.items() if quality.score is not None}
    return tuple(spec for name, spec in MODELS.items() if name in scored)
