"""A model is complete and verified, or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants
from pydantic import ValidationError

from internvl_modal.errors import ConfigError, WeightsError
from internvl_modal.weights import WeightsCache
from internvl_modal.weights.inventory import Snapshot
from internvl_modal.weights.layout import MANIFEST
from internvl_modal.weights.manifest import RemoteFile
from internvl_modal.weights.progress import DownloadProgress
from tests.loopback_hub import Fault, LoopbackHub
from tests.weights.conftest import NEEDED, REPO, model_files, noise

GGUF = "ggml-org/InternVL2_5-1B-GGUF"
SHARD = "model-00001-of-00002.safetensors"


def test_fetches_what_serving_needs_and_says_so_in_the_manifest(
    hub: LoopbackHub, cache: WeightsCache, root: Path
) -> None:
    snapshot = cache.ensure("internvl2_5-1b", progress=None)
    commit = hub.branches[REPO]["main"]
    assert snapshot.path == root / REPO / commit
    assert snapshot.files == NEEDED
    manifest = json.loads(snapshot.file("internvl-modal.json").read_text())
    assert (manifest["commit"], manifest["source"]) == (commit, hub.url)
    for entry in manifest["files"]:
        content = snapshot.file(entry["path"]).read_bytes()
        assert content == model_files()[entry["path"]]
        assert entry["size"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert not list((root / ".partial").rglob("*.part"))
    assert os.fspath(snapshot) == str(snapshot)


def test_a_complete_model_costs_no_network(hub: LoopbackHub, cache: WeightsCache) -> None:
    first = cache.ensure(REPO, progress=None)
    asked = len(hub.requests)
    assert cache.ensure(REPO) == first
    assert cache.ensure(REPO, first.commit[:8], variant="safetensors", offline=True) == first
    assert len(hub.requests) == asked


def test_offline_names_what_is_missing_and_where_it_would_go(
    cache: WeightsCache, root: Path
) -> None:
    with pytest.raises(WeightsError, match=r"not complete.*a\.gguf") as caught:
        cache.ensure(GGUF, files=("a.gguf",), offline=True)
    assert caught.value.files == ("a.gguf",)
    assert caught.value.destination == str(root / GGUF)


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        (["config.json", "pytorch_model.bin", "training_args.bin"], {}, "pytorch_model.bin"),
        (["model.safetensors", "pytorch_model.bin"], {"variant": "bin"}, "pytorch_model.bin"),
        (["model.safetensors", "adapter_model.safetensors"], {}, "model.safetensors"),
        (["model.safetensors", "consolidated.safetensors"], {}, "model.safetensors"),
        (
            ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m-Q8_0.gguf"],
            {"variant": "gguf"},
            "m-Q8_0.gguf",
        ),
        # QuantStack's names of InternVL3.5.
        (
            [
                "InternVL3_5-8B-f16.gguf",
                "InternVL3_5-8B-q6_k.gguf",
                "mmproj-InternVL3_5-8B-f16.gguf",
            ],
            {"variant": "gguf"},
            "InternVL3_5-8B-q6_k.gguf",
        ),
        (
            ["InternVL3_5-4B-f16.gguf", "mmproj-InternVL3_5-4B-f16.gguf"],
            {"variant": "gguf"},
            "InternVL3_5-4B-f16.gguf",
        ),
        (
            ["InternVL3_5-14B-q4_0.gguf", "mmproj-InternVL3_5-14B-f16.gguf"],
            {"variant": "gguf"},
            "InternVL3_5-14B-q4_0.gguf",
        ),
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], {"files": ["m-Q4_K_M.gguf"]}, "m-Q4_K_M.gguf"),
        (
            [
                "m-Q4_K_M-00001-of-00002.gguf",
                "m-Q8_0-00001-of-00002.gguf",
                "m-Q8_0-00002-of-00002.gguf",
                "mmproj-m-Q8_0.gguf",
            ],
            {"variant": "gguf"},
            "m-Q8_0-00002-of-00002.gguf",
        ),
    ],
)
def test_variants(
    hub: LoopbackHub,
    cache: WeightsCache,
    files: list[str],
    options: dict[str, object],
    expected: str,
) -> None:
    hub.commit("a/b", {name: noise(2000, index) for index, name in enumerate(files)})
    taken = cache.ensure("a/b", progress=None, **options).files  # type: ignore[arg-type]
    assert expected in taken
    others = {"training_args.bin", "model.safetensors", "m-Q4_K_M.gguf", "InternVL3_5-8B-f16.gguf"}
    others |= {"adapter_model.safetensors", "consolidated.safetensors"}
    assert not others & set(taken) - {expected}


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (["m.gguf"], {}, "has no safetensors or .bin weights"),
        (["m.gguf"], {"variant": "gguf"}, r"has no mmproj-\*\.gguf"),
        (["m.gguf"], {"files": ["n.gguf"]}, r"has no file n\.gguf \(it has m\.gguf"),
        (["model-00001-of-00002.safetensors"], {}, "has 1 of 2 safetensors shards of model"),
        (
            ["model-00001-of-00002.safetensors", "other-00001-of-00002.safetensors"],
            {},
            "has 1 of 2 safetensors shards of model",
        ),
        (
            ["model-00001-of-00002.bin", "pytorch_model-00000-of-00001.bin"],
            {"variant": "bin"},
            "has 0 of 1 bin shards of pytorch_model",
        ),
        (
            ["m-00001-of-00002.gguf", "mmproj-m.gguf"],
            {"variant": "gguf"},
            "has 1 of 2 gguf shards of m",
        ),
        (["../evil.json", "model.safetensors"], {}, "evil"),
    ],
)
def test_a_repository_without_the_files_asked_for(
    hub: LoopbackHub,
    cache: WeightsCache,
    files: list[str],
    options: dict[str, object],
    message: str,
) -> None:
    hub.commit("a/b", dict.fromkeys(files, b"x"))
    with pytest.raises(WeightsError, match=message):
        cache.ensure("a/b", progress=None, **options)  # type: ignore[arg-type]


def test_no_files_are_no_model(cache: WeightsCache) -> None:
    with pytest.raises(ConfigError, match="names no file"):
        cache.ensure(REPO, files=(), progress=None)


def test_credentials_in_the_endpoint_are_not_stored(hub: LoopbackHub, root: Path) -> None:
    endpoint = hub.url.replace("://", "://user:secret@")
    snapshot = WeightsCache(root, endpoint=endpoint).ensure(REPO, progress=None)
    manifest = snapshot.file(MANIFEST).read_text()
    assert json.loads(manifest)["source"] == hub.url
    assert "secret" not in manifest


@pytest.mark.parametrize("name", ["internvl9", "../../etc", "a/b/c", "./b"])
def test_unknown_names(cache: WeightsCache, name: str) -> None:
    for call in (cache.ensure, cache.verify, cache.remove):
        with pytest.raises(WeightsError, match="unknown model"):
            call(name)


def test_without_gguf_files_the_models_that_have_them_are_named(cache: WeightsCache) -> None:
    with pytest.raises(WeightsError, match=r"no GGUF files of internvl2_5-78b .*internvl2_5-1b,"):
        cache.ensure("internvl2_5-78b", variant="gguf")


@pytest.fixture(params=[None, errno.EPERM, errno.EXDEV], ids=["links", "EPERM", "EXDEV"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system has hard links."""

    def link(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    if request.param:
        monkeypatch.setattr(os, "link", link)
    return request.param is None


def test_revisions_share_equal_files(hub: LoopbackHub, cache: WeightsCache, links: bool) -> None:
    old = cache.ensure(REPO, progress=None)
    hub.commit(REPO, {**model_files(), SHARD: noise(400_000, 99)})
    assert cache.ensure(REPO, progress=None) == old
    hub.requests.clear()
    new = cache.ensure(REPO, hub.branches[REPO]["main"], progress=None)
    assert {Path(request.path).name for request in hub.downloads()} == {SHARD}
    same = {n for n in NEEDED if old.file(n).stat().st_ino == new.file(n).stat().st_ino}
    assert same == (set(NEEDED) - {SHARD} if links else set())
    assert cache.verify(REPO, old.commit, deep=True).ok
    assert cache.verify(REPO, new.commit, deep=True).ok


@pytest.mark.usefixtures("links")
def test_a_damaged_file_is_not_taken_into_another_revision(
    hub: LoopbackHub, cache: WeightsCache
) -> None:
    old = cache.ensure(REPO, progress=None)
    old.file(SHARD).write_bytes(bytes(400_000))
    hub.commit(REPO, {**model_files(), "config.json": b"{}"})
    new = cache.ensure(REPO, hub.branches[REPO]["main"], progress=None)
    assert new.file(SHARD).read_bytes() == model_files()[SHARD]


def test_files_come_at_once(hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub answers in pairs only."""
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 120)
    meeting = threading.Barrier(2)
    names = [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]
    hub.commit("a/b", {name: noise(2000, seed) for seed, name in enumerate(names)})
    hub.faults.append(Fault("^/cdn", times=4, then=lambda: meeting.wait(60)))
    cache = WeightsCache(root, endpoint=hub.url, workers=2)
    cache.ensure("a/b", progress=None)
    assert not meeting.broken


def test_a_selection_grows_in_place(hub: LoopbackHub, cache: WeightsCache) -> None:
    part = cache.ensure(REPO, files=["config.json"], progress=None)
    whole = cache.ensure(REPO, progress=None)
    assert (part.path, part.files) == (whole.path, ("config.json",))
    assert whole.files == NEEDED
    assert len(hub.downloads("config.json")) == 1


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("lost", ["growth", "manifest"])
def test_files_that_lie_there_verified_do_not_come_again(
    hub: LoopbackHub, cache: WeightsCache, lost: str
) -> None:
    """Killed before the manifest of a grown selection was written, or without its manifest."""
    manifest = cache.ensure(REPO, files=["config.json"], progress=None).file(MANIFEST)
    before = manifest.read_bytes()
    whole = cache.ensure(REPO, progress=None)
    manifest.write_bytes(before if lost == "growth" else b"")
    whole.file(SHARD).write_bytes(bytes(400_000))
    hub.requests.clear()
    assert cache.ensure(REPO, progress=None) == whole
    assert {Path(request.path).name for request in hub.downloads()} == {SHARD}
    assert cache.verify(REPO, deep=True).ok


@pytest.mark.parametrize("damage", ["content", "size", "absence"])
def test_verify_names_the_bad_file_and_ensure_repairs_only_it(
    hub: LoopbackHub, cache: WeightsCache, damage: str
) -> None:
    snapshot = cache.ensure(REPO, progress=None)
    victim = snapshot.file("config.json")
    size = victim.stat().st_size
    if damage == "absence":
        victim.unlink()
    else:
        victim.write_bytes(b"x" * (size if damage == "content" else size - 1))
    shallow = cache.verify(REPO)
    assert shallow.bad == (() if damage == "content" else ("config.json",))
    deep = cache.verify(REPO, deep=True)
    assert (deep.bad, deep.ok, deep.files) == (("config.json",), False, len(NEEDED))
    assert not cache.list()[0].complete
    hub.requests.clear()
    cache.ensure(REPO, progress=None)
    assert {Path(request.path).name for request in hub.downloads()} == {"config.json"}
    assert cache.verify(REPO, deep=True).ok


@pytest.mark.parametrize("named", ["commit", "tag"])
def test_a_repaired_commit_does_not_become_the_branch_again(
    hub: LoopbackHub, cache: WeightsCache, named: str
) -> None:
    commit = hub.commit(REPO, model_files(), branch="v1")
    old = cache.ensure(REPO, "v1", progress=None)
    assert cache.ensure(REPO, progress=None).commit == old.commit == commit
    new_commit = hub.commit(REPO, {**model_files(), "config.json": b"{}"})
    old.file(SHARD).unlink()
    new = cache.ensure(REPO, progress=None)
    assert new.commit == new_commit
    assert cache.ensure(REPO, "v1" if named == "tag" else commit, progress=None) == old
    assert cache.ensure(REPO, offline=True) == new
    hub.branches[REPO]["main"] = commit
    new.file(SHARD).unlink()
    old.file(SHARD).unlink()
    assert cache.ensure(REPO, progress=None) == old
    cache.ensure(REPO, new_commit, progress=None)
    assert cache.ensure(REPO, offline=True) == old


@pytest.mark.parametrize("manifest", [None, "", "{}", "{" * 30])
def test_a_folder_without_a_manifest_is_no_model(
    cache: WeightsCache, root: Path, manifest: str | None
) -> None:
    snapshot = cache.ensure(REPO, progress=None)
    snapshot.file("internvl-modal.json").unlink()
    if manifest is not None:
        snapshot.file("internvl-modal.json").write_text(manifest)
    with pytest.raises(WeightsError, match="not complete"):
        cache.ensure(REPO, offline=True)
    with pytest.raises(WeightsError, match="is not in"):
        cache.verify(REPO)
    assert [entry.complete for entry in cache.list()] == [False]
    assert cache.ensure(REPO, progress=None).files == NEEDED


def test_a_verification_leaves_what_was_added_meanwhile(
    hub: LoopbackHub, cache: WeightsCache
) -> None:
    snapshot = cache.ensure(REPO, files=["tokenizer.json"], progress=None)
    snapshot.file("tokenizer.json").write_bytes(noise(5000, 77))
    added: list[Snapshot] = []
    found = cache.verify(
        REPO, deep=True, progress=lambda _: added.append(cache.ensure(REPO, progress=None))
    )
    assert added
    assert found.bad == ("tokenizer.json",)
    manifest = json.loads(snapshot.file("internvl-modal.json").read_text())
    assert manifest["bad"] == ["tokenizer.json"]
    assert {entry["path"] for entry in manifest["files"]} == set(NEEDED)
    assert cache.ensure(REPO, progress=None).files == NEEDED
    assert cache.verify(REPO, deep=True).ok


def test_a_verification_notes_nothing_that_was_repaired_meanwhile(cache: WeightsCache) -> None:
    snapshot = cache.ensure(REPO, progress=None)
    snapshot.file("tokenizer.json").write_bytes(b"cut")
    repaired: list[Snapshot] = []

    def repair(now: DownloadProgress) -> None:
        if now.files == now.total_files and not repaired:
            repaired.append(cache.ensure(REPO, progress=None))

    assert cache.verify(REPO, deep=True, progress=repair).ok
    assert repaired == [snapshot] == [cache.ensure(REPO, offline=True)]


@pytest.mark.parametrize(
    ("platform", "names"),
    [
        ("linux", ["/x", "a/../../x", MANIFEST]),
        ("win32", ["C:/x", "C:x", "a/b:stream", "a\\b", "/x", "a/../../x", MANIFEST]),
    ],
)
def test_names_that_lie_elsewhere(
    monkeypatch: pytest.MonkeyPatch, platform: str, names: list[str]
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in names:
        with pytest.raises(ValidationError, match="not a file name inside"):
            RemoteFile(path=name, size=1, oid="0")


def test_names_that_only_windows_reads_otherwise(hub: LoopbackHub, cache: WeightsCache) -> None:
    hub.commit(REPO, {**model_files(), "runs/12:00:00/events": b"x", "a\\b": b"y"})
    assert cache.ensure(REPO, progress=None).files == NEEDED
    odd = ("a\\b", "runs/12:00:00/events")
    snapshot = cache.ensure(REPO, files=odd, progress=None)
    assert [snapshot.file(name).read_bytes() for name in odd] == [b"y", b"x"]


UTF_8 = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from internvl_modal.weights.inventory import write_manifest
from internvl_modal.weights.manifest import Manifest
known = {"model": "a/b", "commit": "0", "source": "", "time": datetime.now(timezone.utc)}
made = Manifest(**known, revisions=("zw\\xf6lf",), variants=(), files=())
write_manifest(Path(sys.argv[1]), made)
assert Manifest.parse((Path(sys.argv[1]) / "internvl-modal.json").read_bytes()) == made
"""


def test_a_manifest_is_utf_8_in_every_locale(tmp_path: Path) -> None:
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run(
        [sys.executable, "-c", UTF_8, str(tmp_path)], env={**os.environ, **locale}, check=True
    )
