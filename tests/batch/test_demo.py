"""Typed batches over generated scenes, end to end: the bundled model behind llama.cpp.

The model follows no instruction, so its values prove nothing; that every outcome fits its schema,
once and no more, is what is shown. ``INTERNVL_MODAL_TEST_SCENES=1000`` takes a thousand.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest
from pyarrow import parquet
from pydantic import BaseModel

import internvl_modal as ivl

pytest.importorskip("xllamacpp")

SCENES = int(os.environ.get("INTERNVL_MODAL_TEST_SCENES", "200"))
TOOLS = Path(__file__).parents[2] / "tools" / "demo_model"


class Colour(str, Enum):
    red = "red"
    green = "green"
    blue = "blue"


class Scene(BaseModel):
    shape: Literal["circle", "square", "triangle"]
    colour: Colour
    large: bool


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(TOOLS))
    try:
        from scenes import make_scene, render  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(TOOLS))
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(SCENES):
        render(make_scene(900_000_000 + number, 1 + number % 3), 96).save(
            folder / f"{number:04}.png"
        )
    return folder


def test_every_outcome_is_valid_by_its_schema(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "scenes.parquet"
    with ivl.Client("local", model="demo") as client:
        half = client.describe_many(scenes, schema=Scene, out=out, limit=SCENES // 2)
        outcomes = list(half)
        rest = client.describe_many(scenes, schema=Scene, out=out)
        outcomes += rest
        assert rest.summary.skipped == SCENES // 2
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
    assert len({outcome.key for outcome in outcomes}) == len(outcomes) == SCENES
    assert all(isinstance(outcome.value, Scene) for outcome in outcomes)
    rows = parquet.read_table(out).to_pylist()
    assert Counter(row["key"] for row in rows) == Counter(outcome.key for outcome in outcomes)
    for row in rows:
        Scene.model_validate({name: row[name] for name in Scene.model_fields})
