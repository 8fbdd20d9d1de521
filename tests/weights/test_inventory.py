"""What is listed and what goes: models, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from internvl_modal.errors import ConfigError, WeightsError
from internvl_modal.weights import WeightsCache
from internvl_modal.weights.layout import MANIFEST
from tests.loopback_hub import LoopbackHub
from tests.weights.conftest import REPO, model_files, noise

GGUF = "ggml-org/InternVL2_5-1B-GGUF"
SNAPSHOT = "models--a--b/snapshots/" + "c" * 40


def test_list_remove_and_prune(hub: LoopbackHub, cache: WeightsCache, root: Path) -> None:
    commits = [cache.ensure(REPO, progress=None).commit]
    for number in range(2):
        hub.commit(REPO, {**model_files(), "config.json": b"%d" % number})
        commits.append(cache.ensure(REPO, hub.branches[REPO]["main"], progress=None).commit)
    left = root / ".partial" / "a/b" / ("0" * 40) / "x.safetensors.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    cache.ensure(REPO, commits[1])
    listed = cache.list()
    assert [(e.model, e.commit, e.complete) for e in listed] == [
        *((REPO, commit, True) for commit in sorted(commits)),
        ("a/b", "0" * 40, False),
    ]
    assert listed[-1].size == 4
    assert {entry.commit for entry in cache.remove(REPO, commits[2])} == {commits[2]}
    assert {entry.commit for entry in cache.prune()} == {commits[0], "0" * 40}
    assert [entry.commit for entry in cache.list()] == [commits[1]]
    assert cache.verify(REPO, deep=True).ok
    assert [entry.commit for entry in cache.prune(keep=0)] == [commits[1]]
    with pytest.raises(WeightsError, match="is not in"):
        cache.remove(REPO)


def test_only_what_git_calls_an_abbreviation_names_a_commit(
    hub: LoopbackHub, cache: WeightsCache, root: Path
) -> None:
    commit = cache.ensure(REPO, progress=None).commit
    left = root / ".partial" / REPO / ("0" * 40) / "x.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    for revision in ("", "0", commit[0], commit[:6]):
        with pytest.raises(WeightsError, match="is not in"):
            cache.remove(REPO, revision)
        with pytest.raises(WeightsError, match="is not in"):
            cache.verify(REPO, revision)
    assert cache.verify(REPO, commit[:7]).ok
    assert [entry.commit for entry in cache.remove(REPO, "0" * 7)] == ["0" * 40]
    assert [entry.commit for entry in cache.remove(REPO, commit[:7])] == [commit]


def test_a_name_of_the_catalog_finds_its_gguf_files(hub: LoopbackHub, cache: WeightsCache) -> None:
    hub.commit(GGUF, {"m-Q8_0.gguf": noise(2000, 1), "mmproj-m-Q8_0.gguf": noise(2000, 2)})
    cache.ensure("internvl2_5-1b", variant="gguf", progress=None)
    assert cache.verify("internvl2_5-1b").model == GGUF
    cache.ensure("internvl2_5-1b", progress=None)
    assert cache.verify("internvl2_5-1b", "main", deep=True).model == REPO
    assert [entry.model for entry in cache.remove("internvl2_5-1b")] == [REPO]
    with pytest.raises(WeightsError, match=f"{REPO} is not in"):
        cache.remove(REPO)
    assert [entry.model for entry in cache.remove("internvl2_5-1b")] == [GGUF]


def test_a_name_of_the_catalog_means_one_repository_at_every_revision(
    hub: LoopbackHub, cache: WeightsCache
) -> None:
    """The model's own, once it is there, though only the GGUF one was asked for as main."""
    hub.commit(GGUF, {"m-Q8_0.gguf": noise(2000, 1), "mmproj-m-Q8_0.gguf": noise(2000, 2)})
    cache.ensure("internvl2_5-1b", variant="gguf", progress=None)
    cache.ensure(REPO, hub.branches[REPO]["main"], progress=None)
    for call in (cache.verify, cache.remove):
        with pytest.raises(WeightsError, match="internvl2_5-1b at 'main' is not in"):
            call("internvl2_5-1b", "main")
    assert [entry.model for entry in cache.list()] == [REPO, GGUF]


def test_prune_removes_unfinished_downloads_of_what_it_keeps(
    cache: WeightsCache, root: Path
) -> None:
    commit = cache.ensure(REPO, progress=None).commit
    left = root / ".partial" / REPO / commit / "pytorch_model.bin.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert [(e.commit, e.size, e.complete) for e in cache.prune()] == [(commit, 4, False)]
    assert not (root / ".partial").exists()
    assert [entry.complete for entry in cache.list()] == [True]
    assert cache.prune() == ()


def test_prune_keeps_a_damaged_model_where_none_is_whole(
    hub: LoopbackHub, cache: WeightsCache, root: Path
) -> None:
    """So that one file is fetched again and not all."""
    damaged = cache.ensure(REPO, progress=None)
    damaged.file("config.json").unlink()
    left = root / ".partial" / REPO / ("0" * 40) / "x.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert [entry.commit for entry in cache.prune()] == ["0" * 40]
    whole = cache.ensure(REPO, hub.commit(REPO, {**model_files(), "config.json": b"{}"}))
    assert [entry.commit for entry in cache.prune()] == [damaged.commit]
    whole.file("config.json").unlink()
    assert [entry.commit for entry in cache.prune(keep=0)] == [whole.commit]


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
