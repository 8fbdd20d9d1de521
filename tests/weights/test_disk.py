"""What the disk can do: it fills up, it cannot be read or written, it changes meanwhile."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_modal.errors import WeightsError
from internvl_modal.weights import WeightsCache
from internvl_modal.weights.layout import MANIFEST
from tests.loopback_hub import LoopbackHub
from tests.weights.conftest import NEEDED, REPO, model_files, noise

SHARD = "model-00001-of-00002.safetensors"


def test_bytes_are_on_the_disk_before_names_are(
    cache: WeightsCache, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file's before its own name, the manifest's, and at the end the model's folder's."""
    synced: list[tuple[str, int, bool]] = []
    fsync = os.fsync

    def watch(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        named = path.with_suffix("").exists() if path.is_file() else any(path.rglob(MANIFEST))
        synced.append((path.name, path.stat().st_size if path.is_file() else 0, named))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    snapshot = cache.ensure(REPO, progress=None)
    names = {f"{name}.part": len(model_files()[name]) for name in NEEDED}
    manifest = (f"{MANIFEST}.new", snapshot.file(MANIFEST).stat().st_size, False)
    files, last = synced[: len(NEEDED)], synced[len(NEEDED) :]
    assert sorted(files) == sorted((name, size, False) for name, size in names.items())
    assert last == [manifest, (snapshot.commit, 0, True), (Path(REPO).name, 0, True)]


def claim_more_than_a_disk_holds(hub: LoopbackHub) -> str:
    """The commit whose first shard the Hub says is so large."""
    commit = hub.branches[REPO]["main"]
    shard = next(entry for entry in hub.siblings(REPO, commit) if entry["rfilename"] == SHARD)
    shard["size"] = shard["lfs"]["size"] = 10**17
    return commit


def test_space_is_checked_before_the_first_byte(hub: LoopbackHub, cache: WeightsCache) -> None:
    claim_more_than_a_disk_holds(hub)
    with pytest.raises(WeightsError, match=r"the disk is full: 1\d{8}\.\d\d GB are needed"):
        cache.ensure(REPO, progress=None)
    assert not hub.downloads()


def test_space_is_checked_before_the_first_copy(
    hub: LoopbackHub, cache: WeightsCache, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without hard links; what was begun before stays."""

    def link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    cache.ensure(REPO, progress=None)
    hub.commit(REPO, {**model_files(), SHARD: noise(400_000, 60)})
    commit = claim_more_than_a_disk_holds(hub)
    begun = root / ".partial" / REPO / commit / f"{SHARD}.part"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"half")
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(WeightsError, match="the disk is full"):
        cache.ensure(REPO, commit, progress=None)
    assert [path for path in (root / ".partial").rglob("*") if path.is_file()] == [begun]


def test_a_cache_that_changes_while_it_is_listed(cache: WeightsCache) -> None:
    """As a file that was just renamed, a link to nowhere is listed but cannot be looked at."""
    snapshot = cache.ensure(REPO, progress=None)
    (snapshot.path / "gone").symlink_to("nowhere")
    (snapshot.path.parent / "gone").mkdir()
    (snapshot.path.parent / "gone" / MANIFEST).symlink_to("nowhere")
    assert [entry.complete for entry in cache.list()] == [True]
    assert cache.verify(REPO, deep=True).ok
    assert cache.remove(REPO)


@pytest.mark.parametrize("verb", ["list", "verify", "remove", "prune"])
def test_a_cache_that_cannot_be_read(cache: WeightsCache, verb: str) -> None:
    loop = cache.ensure(REPO, progress=None).path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(WeightsError, match=r"cannot use .*/loop: .*check the folder") as caught:
        getattr(cache, verb)(*([REPO] if verb in ("verify", "remove") else []))
    assert caught.value.destination == str(loop.parents[3])


FULL_DISK = """
import resource, signal, sys
from internvl_modal.errors import WeightsError
from internvl_modal.weights import WeightsCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (350_000, 350_000))
try:
    cache = WeightsCache(sys.argv[1], endpoint=sys.argv[2])
    cache.ensure("OpenGVLab/InternVL2_5-1B", sys.argv[3], progress=None)
except WeightsError as error:
    print(error)
"""


def test_a_disk_that_fills_up_leaves_the_cache_as_it_was(
    hub: LoopbackHub, cache: WeightsCache, root: Path
) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    cache.ensure(REPO, progress=None)
    before = cache.list()
    commit = hub.commit(REPO, {**model_files(), SHARD: noise(400_000, 60)})
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(root), hub.url, commit],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "the disk is full" in done.stdout
    assert cache.list() == before


PRUNED = """
import resource, signal, sys
from internvl_modal.errors import WeightsError
from internvl_modal.weights import WeightsCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
cache = WeightsCache(sys.argv[1], endpoint=sys.argv[2])
try:
    cache.ensure("OpenGVLab/InternVL2_5-1B", sys.argv[3], progress=None)
except WeightsError as error:
    print(error)
print(len(cache.remove("OpenGVLab/InternVL2_5-1B")), len(cache.prune()))
"""


def test_a_full_disk_can_be_freed(hub: LoopbackHub, cache: WeightsCache, root: Path) -> None:
    """Though not a byte can be written."""
    cache.ensure(REPO, progress=None)
    commit = hub.commit(REPO, {**model_files(), SHARD: noise(400_000, 60)})
    left = root / ".partial" / "c/d" / ("0" * 40) / "x.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    done = subprocess.run(
        [sys.executable, "-c", PRUNED, str(root), hub.url, commit],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    said, went = done.stdout.splitlines()
    assert "the disk is full: File too large (free some space" in said
    assert went == "1 1"
    assert {
        path.name for path in root.rglob("*") if path.is_file() and path.stat().st_size
    } == set()


def test_a_verification_names_what_it_cannot_read_or_note(
    hub: LoopbackHub, cache: WeightsCache, root: Path
) -> None:
    """In a folder where no lock can be made; reading that link's file is an input/output error."""
    hub.commit(REPO, {**model_files(), "empty.py": b""})
    snapshot = cache.ensure(REPO, progress=None)
    snapshot.file("empty.py").unlink()
    snapshot.file(SHARD).write_bytes(bytes(400_000))
    snapshot.file("config.json").unlink()
    snapshot.file("config.json").symlink_to("/proc/self/mem")
    shutil.rmtree(root / ".locks")
    (root / ".locks").write_text("")
    assert cache.verify(REPO, deep=True).bad == ("config.json", "empty.py", SHARD)
    (root / ".locks").unlink()
    assert cache.verify(REPO, deep=True).bad == ("config.json", "empty.py", SHARD)
    cache.ensure(REPO, progress=None)
    assert cache.verify(REPO, deep=True).ok


def test_a_folder_on_another_disk_is_refused_before_the_first_byte(
    hub: LoopbackHub, cache: WeightsCache, root: Path
) -> None:
    root.mkdir()
    (root / "OpenGVLab").symlink_to("/proc")
    with pytest.raises(WeightsError, match=r"on another disk .*link the whole cache") as caught:
        cache.ensure(REPO, progress=None)
    assert caught.value.destination == str(root / REPO)
    assert not hub.downloads()


@pytest.mark.parametrize("place", ["/sys/internvl-modal", "file"])
def test_a_folder_that_cannot_be_written(hub: LoopbackHub, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    cache = WeightsCache(tmp_path / place, endpoint=hub.url)
    with pytest.raises(WeightsError, match=f"cannot use .*{place}.*choose another") as caught:
        cache.ensure(REPO, progress=None)
    assert caught.value.destination == str(tmp_path / place)
