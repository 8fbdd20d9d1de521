"""hf-xet and hf_transfer, the real packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import huggingface_hub
import pytest

from internvl_modal.weights import WeightsCache
from tests.loopback_hub import Fault, HubFile, LoopbackHub
from tests.weights.conftest import noise

REPO = "OpenGVLab/InternVL2_5-2B"
BELOW_1 = huggingface_hub.__version__.startswith("0.")


UPLOAD = """
import hf_xet, sys
with hf_xet.XetSession().new_upload_commit(endpoint="local://" + sys.argv[1]) as commit:
    uploads = [commit.start_upload_file(path) for path in sys.argv[2:]]
for upload in uploads:
    print(upload.result().xet_info.hash)
"""


def in_xet(contents: Iterable[bytes], cas: Path) -> list[HubFile]:
    """Put files into hf-xet's own storage in a folder, which one process at a time may open."""
    cas.mkdir(exist_ok=True)
    sources = []
    for number, content in enumerate(contents):
        sources.append(cas.parent / f"upload{number}")
        sources[-1].write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", UPLOAD, str(cas), *map(str, sources)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    hashes = done.stdout.split()
    return [
        HubFile(path, lfs=True, xet_hash=name) for path, name in zip(sources, hashes, strict=True)
    ]


@pytest.fixture
def xet_hub(hub: LoopbackHub, tmp_path: Path) -> LoopbackHub:
    hub.cas = f"local://{tmp_path / 'cas'}"
    [weights] = in_xet([noise(3_000_000, 1)], tmp_path / "cas")
    hub.commit(REPO, {"config.json": b"{}", "model.safetensors": weights})
    return hub


def test_xet_files_come_through_hf_xet(xet_hub: LoopbackHub, cache: WeightsCache) -> None:
    snapshot = cache.ensure(REPO, progress=None)
    assert snapshot.file("model.safetensors").read_bytes() == noise(3_000_000, 1)
    assert not xet_hub.downloads("model.safetensors")
    assert cache.verify(REPO, deep=True).ok


def test_xet_files_continue(xet_hub: LoopbackHub, cache: WeightsCache, root: Path) -> None:
    commit = xet_hub.branches[REPO]["main"]
    part = root / ".partial" / REPO / commit / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(noise(3_000_000, 1)[:2_000_000])
    seen = []
    snapshot = cache.ensure(REPO, progress=lambda progress: seen.append(progress.bytes))
    assert snapshot.file("model.safetensors").read_bytes() == noise(3_000_000, 1)
    assert seen[-1] == 3_000_002


DOWNLOAD = r"""
import re, sys
from pathlib import Path
from internvl_modal.weights import WeightsCache
WeightsCache(sys.argv[1], endpoint=sys.argv[2]).ensure(sys.argv[3], progress=None)
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def peak_memory(root: Path, endpoint: str, **environment: str) -> int:
    """MiB that a process needed to download the model."""
    done = subprocess.run(
        [sys.executable, "-c", DOWNLOAD, str(root), endpoint, REPO],
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return int(done.stdout)


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_hf_transfer_where_it_is_switched_on(hub: LoopbackHub, root: Path, tmp_path: Path) -> None:
    """Below 1.0 its pieces make up every file over 50 MB; above the switch does nothing."""
    size = 60 << 20
    hub.commit(REPO, {"config.json": b"{}", "model.safetensors": sparse(tmp_path / "w", size)})
    peak_memory(root, hub.url, HF_HUB_ENABLE_HF_TRANSFER="1")
    asked = [request.headers.get("range", "") for request in hub.downloads("^/cdn.*model")]
    pieces = [re.fullmatch(r"bytes=(\d+)-(\d+)", value) for value in asked]
    ends = {int(piece[1]): int(piece[2]) + 1 for piece in pieces if piece}
    reached = 0
    while reached in ends:
        reached = ends[reached]
    assert reached == (size if BELOW_1 else 0)
    assert len(ends) > 5 or not BELOW_1
    assert WeightsCache(root).verify(REPO, deep=True).ok


WITHOUT = "import sys; sys.modules['hf_transfer'] = None\n"


@pytest.mark.parametrize(
    ("before", "faults", "expected"),
    [
        (WITHOUT, [], "hf_transfer is not installed (pip install hf_transfer, or unset it)"),
        ("", [Fault("cdn.*model", status=403)], "model.safetensors: the Hub refuses access (403)"),
        ("", [Fault("cdn.*model", status=404)], "model.safetensors: the Hub answered 404"),
        ("", [Fault("cdn.*model", change=lambda body: body + b"0")], "the server has sent"),
        ("", [Fault("cdn.*model", change=lambda body: body[:-1])], "the server has sent"),
    ],
    ids=["without", "403", "404", "long", "short"],
)
def test_what_goes_wrong_with_hf_transfer(
    hub: LoopbackHub, root: Path, tmp_path: Path, before: str, faults: list[Fault], expected: str
) -> None:
    """Told as it is without it."""
    hub.commit(REPO, {"config.json": b"{}", "model.safetensors": sparse(tmp_path / "w", 60 << 20)})
    hub.faults += faults
    done = subprocess.run(
        [sys.executable, "-c", before + DOWNLOAD, str(root), hub.url, REPO],
        env={**os.environ, "HF_HUB_ENABLE_HF_TRANSFER": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    if before and not BELOW_1:  # the switch does nothing
        assert done.returncode == 0
    else:
        assert expected in done.stderr.splitlines()[-1]
        assert f"{hub.cdn}" not in done.stderr.splitlines()[-1]


def test_memory_does_not_grow_with_the_file(hub: LoopbackHub, root: Path, tmp_path: Path) -> None:
    hub.commit(REPO, {"config.json": b"{}", "model.safetensors": sparse(tmp_path / "w", 600 << 20)})
    assert peak_memory(root, hub.url) < 500


def test_xet_memory_with_the_high_performance_switch(
    hub: LoopbackHub, root: Path, tmp_path: Path
) -> None:
    """Of as many files as come at once."""
    hub.cas = f"local://{tmp_path / 'cas'}"
    weights = in_xet((os.urandom(75_000_000) for _ in range(8)), tmp_path / "cas")
    shards = {f"model-{n:05}-of-00008.safetensors": file for n, file in enumerate(weights, 1)}
    hub.commit(REPO, {"config.json": b"{}", **shards})
    assert peak_memory(root, hub.url, HF_XET_HIGH_PERFORMANCE="1") < 500
    assert not hub.downloads("model-")
