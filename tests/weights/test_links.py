"""What lies at names in a cache that can be guessed: links, pipes, folders, wrong content."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from internvl_modal.errors import ConfigError, WeightsError
from internvl_modal.weights import WeightsCache
from internvl_modal.weights.layout import MANIFEST
from tests.loopback_hub import LoopbackHub
from tests.weights.conftest import NEEDED, REPO, model_files

SHARD = "model-00001-of-00002.safetensors"
PRECIOUS = b"PRECIOUS"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of somebody else, in a folder of theirs."""
    path = tmp_path / "theirs" / "victim"
    path.parent.mkdir()
    path.write_bytes(PRECIOUS)
    return path


def symbolic(link: Path, victim: Path) -> None:
    link.symlink_to(victim)


def hard(link: Path, victim: Path) -> None:
    link.hardlink_to(victim)


def dangling(link: Path, victim: Path) -> None:
    link.symlink_to(victim.parent / "not there yet")


def pipe(link: Path, _: Path) -> None:
    os.mkfifo(link)


def untouched(victim: Path) -> bool:
    return victim.read_bytes() == PRECIOUS and list(victim.parent.iterdir()) == [victim]


@pytest.mark.parametrize("put", [symbolic, hard, dangling, pipe])
@pytest.mark.parametrize("name", [f"{SHARD}.part", "config.json.part", SHARD, f"{MANIFEST}.new"])
def test_files_of_an_unfinished_download(
    hub: LoopbackHub,
    cache: WeightsCache,
    root: Path,
    victim: Path,
    name: str,
    put: Callable[[Path, Path], None],
) -> None:
    staging = root / ".partial" / REPO / hub.branches[REPO]["main"]
    staging.mkdir(parents=True)
    put(staging / name, victim)
    snapshot = cache.ensure(REPO, progress=None)
    assert untouched(victim)
    assert snapshot.file(SHARD).read_bytes() == model_files()[SHARD]
    assert not any(path.is_symlink() for path in snapshot.path.rglob("*"))
    assert cache.verify(REPO, deep=True).ok


@pytest.mark.parametrize("put", [symbolic, hard, dangling, pipe])
def test_files_of_a_model(
    cache: WeightsCache, victim: Path, put: Callable[[Path, Path], None]
) -> None:
    """What is no file of its own is damaged; a repair takes the link away."""
    snapshot = cache.ensure(REPO, progress=None)
    for name in (SHARD, "config.json", f"{MANIFEST}.new"):
        snapshot.file(name).unlink(missing_ok=True)
        put(snapshot.file(name), victim)
    assert set(cache.verify(REPO, deep=True).bad) == {SHARD, "config.json"}
    assert cache.ensure(REPO, progress=None).files == NEEDED
    assert untouched(victim)
    assert cache.verify(REPO, deep=True).ok


@pytest.mark.parametrize("place", [".partial", f".partial/{REPO}", "staging", ".locks", "home"])
def test_folders_that_are_links_are_refused(
    hub: LoopbackHub, cache: WeightsCache, root: Path, victim: Path, place: str
) -> None:
    commit = hub.branches[REPO]["main"]
    places = {"staging": f".partial/{REPO}/{commit}", "home": f"{REPO}/{commit}"}
    link = root / places.get(place, place)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim.parent)
    with pytest.raises(WeightsError, match=f"{link.name} is a link, and nothing is written"):
        cache.ensure(REPO, progress=None)
    assert untouched(victim)


def test_nothing_is_removed_through_a_link(
    hub: LoopbackHub, cache: WeightsCache, root: Path, victim: Path
) -> None:
    commit = hub.branches[REPO]["main"]
    (victim.parent / commit).mkdir()
    (victim.parent / commit / "x.part").write_bytes(b"half")
    (root / "OpenGVLab").mkdir(parents=True)
    (root / REPO).symlink_to(victim.parent)
    assert cache.list() == ()
    with pytest.raises(WeightsError):
        cache.remove(REPO)
    assert (victim.parent / commit / "x.part").exists()


def test_a_lock_that_is_a_link(cache: WeightsCache, root: Path, victim: Path) -> None:
    lock = root / ".locks" / f"{REPO.replace('/', '--')}.lock"
    lock.parent.mkdir(parents=True)
    lock.symlink_to(victim.parent / "made by us")
    with pytest.raises(WeightsError, match=r"cannot use .*\.lock"):
        cache.ensure(REPO, progress=None)
    assert untouched(victim)
    lock.unlink()
    lock.hardlink_to(victim)
    cache.ensure(REPO, progress=None)
    assert untouched(victim)


WRONG_LOCKS = [
    b"",
    b"\0\xff",
    b'{"machine": "%s", "beat": 0, "pid": "x", "owner": "x"}',
    b'{"machine": "", "beat": 0, "pid": 99999999999999999999, "owner": "x"}',
    b'{"machine": "", "beat": 0, "pid": 999999, "owner": "../x"}',
]


@pytest.mark.parametrize("content", WRONG_LOCKS)
def test_a_lock_with_any_content(cache: WeightsCache, root: Path, content: bytes) -> None:
    lock = root / ".locks" / f"{REPO.replace('/', '--')}.lock"
    lock.parent.mkdir(parents=True)
    lock.write_bytes(content)
    assert cache.ensure(REPO, progress=None).files == NEEDED


def test_a_lock_that_is_a_folder_is_an_error_of_ours(cache: WeightsCache, root: Path) -> None:
    (root / ".locks" / f"{REPO.replace('/', '--')}.lock").mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"cannot use .*\.lock"):
        cache.ensure(REPO, progress=None)


WRONG_MANIFESTS = [
    b"",
    b"null",
    b"[" * 100_000,
    b"\xff\xfe",
    b'{"format": 1, "model": 7}',
    b'{"format": 1, "model": "o/m", "commit": [], "files": {"a": 1}}',
]


@pytest.mark.parametrize("content", WRONG_MANIFESTS)
def test_a_manifest_with_any_content(cache: WeightsCache, content: bytes) -> None:
    snapshot = cache.ensure(REPO, progress=None)
    snapshot.file(MANIFEST).write_bytes(content)
    assert [entry.complete for entry in cache.list()] == [False]
    assert cache.ensure(REPO, progress=None) == snapshot
    assert cache.verify(REPO, deep=True).ok


def test_a_manifest_with_a_nul_in_a_name_is_unreadable(cache: WeightsCache) -> None:
    manifest = cache.ensure(REPO, progress=None).file(MANIFEST)
    text = manifest.read_text()
    manifest.write_text(text.replace('"tokenizer.json"', '"tokenizer\\u0000.json"'))
    assert manifest.read_text() != text
    with pytest.raises(WeightsError, match="is not in"):
        cache.verify(REPO, deep=True)
    cache.ensure(REPO, progress=None)
    assert cache.verify(REPO, deep=True).ok


@pytest.mark.timeout(60)
@pytest.mark.parametrize("put", [symbolic, dangling, pipe])
def test_a_manifest_that_is_no_file_is_unreadable(
    cache: WeightsCache, victim: Path, put: Callable[[Path, Path], None]
) -> None:
    snapshot = cache.ensure(REPO, progress=None)
    snapshot.file(MANIFEST).unlink()
    put(snapshot.file(MANIFEST), victim)
    assert [entry.complete for entry in cache.list()] == [False]
    assert cache.ensure(REPO, progress=None) == snapshot
    assert untouched(victim)
    assert [entry.complete for entry in cache.list()] == [True]


@pytest.mark.parametrize("name", ["a/b\0c", "a\0", "a/b\nc", "a/\ud800"])
@pytest.mark.parametrize("verb", ["ensure", "verify", "remove"])
def test_a_name_that_no_path_can_hold(cache: WeightsCache, verb: str, name: str) -> None:
    with pytest.raises(WeightsError, match="is not a repository's name"):
        getattr(cache, verb)(name)


@pytest.mark.parametrize("revision", ["v\0", "\ud800"])
def test_a_revision_that_no_path_can_hold(cache: WeightsCache, revision: str) -> None:
    with pytest.raises(WeightsError):
        cache.ensure(REPO, revision, progress=None)
    with pytest.raises(WeightsError):
        cache.verify(REPO, revision)


def test_a_file_that_no_path_can_hold(cache: WeightsCache) -> None:
    with pytest.raises(WeightsError):
        cache.ensure(REPO, files=["a\0b"], progress=None)


def test_a_folder_that_no_path_can_hold() -> None:
    with pytest.raises(ConfigError, match="names no folder"):
        WeightsCache("a\0b")


def test_a_hub_with_a_nul_in_a_name(hub: LoopbackHub, cache: WeightsCache) -> None:
    hub.commit("a/b", {"a\0b.json": b"{}", "model.safetensors": bytes(5000)})
    with pytest.raises(WeightsError, match="does not answer as a Hub does"):
        cache.ensure("a/b", progress=None)
