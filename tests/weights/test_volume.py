"""The cache in a Modal Volume, against a control plane on loopback."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib import Status

from internvl_modal.errors import WeightsError
from internvl_modal.weights import WeightsCache
from tests.loopback_hub import Fault, LoopbackHub
from tests.modal_plane.plane import Plane
from tests.weights.conftest import NEEDED, REPO

SCRIPT = """
import json, sys
from internvl_modal.errors import WeightsError
from internvl_modal.weights import WeightsCache
cache = WeightsCache.volume("weights", endpoint=sys.argv[1])
try:
    result = eval(sys.argv[2])
except WeightsError as error:
    result = str(error)
print(json.dumps(result, default=str))
"""


@pytest.fixture
def plane() -> Iterator[Plane]:
    with Plane() as server:
        yield server


def start(
    plane: Plane, hub: LoopbackHub, home: Path, expression: str, **env: str
) -> subprocess.Popen[str]:
    """A process that evaluates with ``cache`` and whose Modal is the plane."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, hub.url, expression],
        env={
            **(env or plane.client_env(home)),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONWARNINGS": "default",
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def run(plane: Plane, hub: LoopbackHub, home: Path, expression: str, **env: str) -> Any:
    """The value of ``expression``, evaluated by such a process."""
    with start(plane, hub, home, expression, **env) as process:
        said, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(said)


ENSURE = f"cache.ensure({REPO!r}, progress=None).files"
OFFLINE = f"cache.ensure({REPO!r}, offline=True).commit"


def test_written_in_a_container_and_managed_from_outside(
    plane: Plane, hub: LoopbackHub, tmp_path: Path
) -> None:
    mount = plane.volume_path("weights")
    inside = plane.container_env(tmp_path, "weights")
    commit = hub.branches[REPO]["main"]
    assert run(plane, hub, tmp_path, ENSURE, **inside) == list(NEEDED)
    assert (mount / REPO / commit / "config.json").exists()
    another = plane.container_env(tmp_path, "weights")
    assert run(plane, hub, tmp_path, OFFLINE, **another) == commit

    summary = "[(e.model, e.commit, e.complete) for e in cache.list()]"
    assert run(plane, hub, tmp_path, summary) == [[REPO, commit, True]]
    verify = f"cache.verify({REPO!r}).bad"
    with plane.failing("VolumeGetFile2", Status.NOT_FOUND, "the file was removed meanwhile"):
        assert run(plane, hub, tmp_path, summary) == [[REPO, commit, False]]
    assert run(plane, hub, tmp_path, verify) == []
    (mount / REPO / commit / "config.json").write_text("cut")
    assert run(plane, hub, tmp_path, verify) == ["config.json"]
    left = mount / ".partial" / REPO / commit / "x.part"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    assert run(plane, hub, tmp_path, "[e.size for e in cache.prune()]") == [4]
    assert not left.exists()
    assert "verify checksums" in run(plane, hub, tmp_path, f"cache.verify({REPO!r}, deep=True)")
    assert "cannot download in the Modal Volume weights" in run(plane, hub, tmp_path, ENSURE)

    assert run(plane, hub, tmp_path, ENSURE, **inside) == list(NEEDED)
    assert run(plane, hub, tmp_path, f"len(cache.remove({REPO!r}))") == 1
    assert not (mount / REPO / commit).exists()
    assert "is not in Modal Volume weights" in run(plane, hub, tmp_path, verify)


def test_a_container_that_runs_sees_what_another_has_made(
    plane: Plane, hub: LoopbackHub, tmp_path: Path
) -> None:
    older = plane.container_env(tmp_path, "weights")
    assert "is not complete" in run(plane, hub, tmp_path, OFFLINE, **older)
    run(plane, hub, tmp_path, ENSURE, **plane.container_env(tmp_path, "weights"))
    assert run(plane, hub, tmp_path, OFFLINE, **older) == hub.branches[REPO]["main"]


def test_two_containers_at_once_download_once(
    plane: Plane, hub: LoopbackHub, tmp_path: Path
) -> None:
    """The commit uploads for longer than a beat, and is the only one: a beat commits nothing."""
    hub.rate, plane.bandwidth = 200_000, 80_000
    both = [
        start(plane, hub, tmp_path, ENSURE, **plane.container_env(tmp_path, "weights"))
        for _ in range(2)
    ]
    said = [json.loads(process.communicate()[0]) for process in both]
    assert said == [list(NEEDED)] * 2
    asked = [request.path for request in hub.downloads() if "/resolve/" in request.path]
    assert len(asked) == len(set(asked)) == len(NEEDED)
    assert len(plane.calls("VolumeCommit")) == 1
    assert len(plane.calls("DictUpdate")) > 4
    assert plane.dicts == {"main/internvl-modal-weights-locks": {}}


def test_who_took_a_lock_over_is_named(plane: Plane, hub: LoopbackHub, tmp_path: Path) -> None:
    inside = plane.container_env(tmp_path, "weights")

    def take() -> None:
        entries = plane.dicts["main/internvl-modal-weights-locks"]
        key = pickle.dumps(f"weights/{REPO}", protocol=4)
        assert pickle.loads(entries[key]).startswith(f"the container {inside['MODAL_TASK_ID']}, ")
        entries[key] = pickle.dumps("the container ta-9, 0", protocol=4)

    hub.faults.append(Fault("cdn", times=1, then=take, status=503, headers={"Retry-After": "60"}))
    assert run(plane, hub, tmp_path, ENSURE, **inside) == (
        f"{REPO}: the lock of this download was lost to the container ta-9 "
        "(run this again: it waits until that one is done)"
    )
    assert not plane.calls("VolumeCommit")


def test_what_removes_from_outside_holds_the_lock(
    plane: Plane, hub: LoopbackHub, tmp_path: Path
) -> None:
    run(plane, hub, tmp_path, ENSURE, **plane.container_env(tmp_path, "weights"))
    plane.forget()
    assert run(plane, hub, tmp_path, f"len(cache.remove({REPO!r}))") == 1
    order = [call.rpc for call in plane.recorded]
    assert order.index("DictUpdate") < order.index("VolumeRemoveFile2") < order.index("DictPop")


def test_a_volume_that_does_not_exist_is_named_and_not_made(
    plane: Plane, hub: LoopbackHub, tmp_path: Path
) -> None:
    assert "Modal Volume weights: " in run(plane, hub, tmp_path, "cache.list()")
    assert not plane.volumes


def test_a_volume_whose_name_is_none_is_an_error_of_ours() -> None:
    with pytest.raises(WeightsError, match=r"^Modal Volume a b: "):
        WeightsCache.volume("a b")


def test_a_mount_that_cannot_be_reloaded_is_an_error_of_ours(
    plane: Plane, hub: LoopbackHub, tmp_path: Path
) -> None:
    inside = plane.container_env(tmp_path, "weights")
    mount = inside["INTERNVL_MODAL_WEIGHTS_ROOT"]
    with plane.failing("VolumeReload", Status.NOT_FOUND, "the Volume was deleted"):
        said = run(plane, hub, tmp_path, "cache.list()", **inside)
    assert said.startswith(f"{mount}: the Volume was deleted (run `modal token new` where")
