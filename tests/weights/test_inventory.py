"""What is listed and what goes: models, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from internvl_modal.errors import ConfigError
from internvl_modal.weights import WeightsCache
from internvl_modal.weights.manifest import MANIFEST
from tests.weights.conftest import REPO

SNAPSHOT = "models--a--b/snapshots/" + "c" * 40


@pytest.mark.parametrize(
    "name", ["src/pkg/sub/thesis.txt", ".partial/a/b/c/d", f"{SNAPSHOT}/x", f"a/b/{'C' * 40}/x"]
)
def test_what_is_no_model_stays(cache: WeightsCache, root: Path, name: str) -> None:
    """Files of the user's, and huggingface_hub's own cache."""
    cache.ensure(REPO, progress=None)
    other = root / name
    other.parent.mkdir(parents=True)
    other.write_text("precious")
    assert [entry.model for entry in cache.list()] == [REPO]
    assert [entry.model for entry in cache.prune(keep=0)] == [REPO]
    assert other.read_text() == "precious"


def test_prune_keeps_no_negative_number(cache: WeightsCache) -> None:
    cache.ensure(REPO, progress=None)
    with pytest.raises(ConfigError, match="keep=-1"):
        cache.prune(keep=-1)
    assert cache.verify(REPO).ok


def test_an_empty_folder_is_not_the_current_one() -> None:
    with pytest.raises(ConfigError, match="has no folder"):
        WeightsCache("")


def test_last_used_is_when_it_was_asked_for(cache: WeightsCache) -> None:
    snapshot = cache.ensure(REPO, progress=None)
    for path in snapshot.path.iterdir():
        os.utime(path, (1e9, 1e9))
    assert cache.list()[0].last_used.timestamp() == 1e9
    os.utime(snapshot.file(MANIFEST), (1.5e9, 1.5e9))
    assert cache.list()[0].last_used.timestamp() == 1.5e9
    cache.ensure(REPO, offline=True)
    assert cache.list()[0].last_used.timestamp() > 1.6e9
