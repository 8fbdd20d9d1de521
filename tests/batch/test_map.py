"""A batch inside Modal: its containers read a Volume or a bucket, and write a Volume."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator

import pytest

from internvl_modal.captions.spend import Bill
from internvl_modal.deployment.map_budget import MapBudget, left_in
from tests.batch.conftest import lines, make_pictures
from tests.deploy.machine import Machine
from tests.deploy.workspace import MARKS, deployed, workspace
from tests.modal_plane import Plane
from tests.served import REPOSITORY

pytestmark = MARKS
APP = "multimodal-internvl2_5-1b"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with workspace(tmp_path_factory.mktemp("py3"), "OpenGVLab/InternVL2_5-1B") as running:
        yield running


@pytest.fixture(scope="module")
def machine(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return deployed(plane, tmp_path_factory.mktemp("deployer"))


def call(source: str = "photos/2024", more: str = "part_size=5, detail=1", key: str = "") -> str:
    return (
        f"m = connect({APP!r}{key}).map({source!r}, 'captions/run', {more})\n"
        "say([m.described, m.failed, m.skipped, m.files])"
    )


def parts(folder: str, count: int, found: list[str]) -> list[str]:
    """Names of the parts of the call that made those found."""
    token = re.fullmatch(r".*/part-([0-9a-f]{8})-\d{5}\.jsonl", found[0])
    assert token is not None
    return [f"captions/{folder}/part-{token[1]}-{number:05}.jsonl" for number in range(count)]


def test_parts_are_made_once(plane: Plane, machine: Machine) -> None:
    photos, out = plane.volume_path("photos") / "2024", plane.volume_path("captions") / "run"
    make_pictures(photos, 11)
    (photos / "broken.jpg").write_bytes(b"")
    (photos / "notes.txt").write_text("no picture")
    *counts, files = machine.python(call(), timeout=280)
    assert counts == [11, 1, 0]
    assert files == parts("run", 3, files)
    written = [line for path in sorted(out.glob("*.jsonl")) for line in lines(path)]
    assert {line["key"] for line in written} == {
        f"photos/2024/{path.name}" for path in photos.iterdir() if path.suffix != ".txt"
    }
    assert [line["error"]["type"] for line in written if "error" in line] == ["ImageError"]
    (out / "part-1.jsonl").write_text("somebody else's\n")
    assert machine.python(call()) == [0, 0, 12, []]
    make_pictures(photos, 13)
    *counts, more = machine.python(call())
    assert counts == [2, 0, 12]
    assert more == parts("run", 1, more)
    assert not set(more) & set(files)
    shutil.move(out / files[0].rpartition("/")[2], out / "lost")
    assert machine.python(call(), timeout=200)[:3] == [5, 0, 9]


def test_pictures_of_a_bucket(plane: Plane, machine: Machine) -> None:
    make_pictures(plane.bucket_path("shop") / "2024" / "may", 3)
    make_pictures(plane.bucket_path("shop") / "2023", 1)
    plane.secrets["aws"] = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    again = call("s3://shop/2024", "part_size=2, bucket_secret='aws'").replace("run", "bucket")
    *counts, files = machine.python(again, timeout=280)
    assert counts == [3, 0, 0]
    assert files == parts("bucket", 2, files)
    out = plane.volume_path("captions") / "bucket"
    written = [line for path in sorted(out.glob("*.jsonl")) for line in lines(path)]
    assert {line["key"]: line["text"] for line in written} == {
        f"s3://shop/2024/may/00000{number}.png": "A picture." for number in range(3)
    }
    assert machine.python(again, timeout=200) == [0, 0, 3, []]


def test_the_page(plane: Plane, machine: Machine) -> None:
    make_pictures(plane.volume_path("photos") / "2024", 3)
    page = (REPOSITORY / "docs/batches.md").read_text()
    make_pictures(plane.bucket_path("my-bucket") / "2024", 3)
    plane.secrets["aws-secret"] = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    volume, bucket = re.findall(r"```python on-modal\n(.*?)```", page, re.DOTALL)
    done = machine.command(sys.executable, "-c", volume + bucket, timeout=280)
    assert re.search(r"captions/2024/part-[0-9a-f]{8}-\d{5}\.jsonl", done.stdout), done.stderr
    assert done.stdout.endswith("\n3\n"), done.stderr


def test_a_lost_server_costs_nothing_that_was_described(plane: Plane, machine: Machine) -> None:
    make_pictures(plane.volume_path("lost"), 30)
    (plane.volume_path("lost") / "broken.png").write_bytes(b"")
    tell = f"""
import urllib.request
base = connect({APP!r}).urls["openai"].removesuffix("/v1") + "/_standin/"

def tell(path, how=None):
    body = json.dumps(how).encode()
    head = {{"Authorization": "Bearer {machine.key}", "Content-Type": "application/json"}}
    urllib.request.urlopen(urllib.request.Request(base + path, body, head)).close()
"""
    failing = "tell('next', {'times': 5})\ntell('next', {'times': 1000, 'fail_after': 0})\n"
    describe = f"connect({APP!r}).map('lost', 'captions/lost', detail=1)"
    kind, message, _ = machine.python(f"{tell}{failing}attempt(lambda: {describe})", timeout=280)
    assert kind == "DeployError"
    assert "1 parts of lost failed, the first with EngineError" in message
    out = plane.volume_path("captions") / "lost"
    assert [line["text"] for path in out.iterdir() for line in lines(path)] == ["A picture."] * 5
    again = f"{tell}tell('forget')\nm = {describe}\nsay([m.described, m.failed, m.skipped])"
    assert machine.python(again, timeout=280) == [25, 1, 5]
    keys = [line["key"] for path in out.iterdir() for line in lines(path)]
    assert len(keys) == len(set(keys)) == 31


def test_it_may_cost_so_much_and_no_more(plane: Plane, machine: Machine) -> None:
    make_pictures(plane.volume_path("paid"), 4)
    dear = f"attempt(lambda: connect({APP!r}).map('paid', 'captions/paid', max_usd=0.001))"
    kind, message, hint = machine.python(dear)
    assert kind == "SpendLimitError"
    assert "4 pictures would cost" in message
    assert "nothing was sent" in hint
    assert not (plane.volume_path("captions") / "paid").exists()
    done = f"m = connect({APP!r}).map('paid', 'captions/paid', max_usd=5, detail=1)\n"
    assert machine.python(f"{done}say([m.described, m.failed])", timeout=200) == [4, 0]


def test_a_part_is_told_until_when_there_is_money() -> None:
    budget = MapBudget(1.0, Bill(3600.0, idle_usd=0.4))
    part = budget.part()
    found = left_in(part)
    assert found is not None
    assert 0.5 < found["max_usd"] <= 0.6
    assert found["usd_per_hour"] == 3600.0
    assert left_in({**part, "until": part["until"] - 1}) is None
    assert left_in(None) == {}
    assert "3 pictures are left" in str(budget.exhausted(3))


def test_what_cannot_work_is_said(plane: Plane, machine: Machine) -> None:
    make_pictures(plane.volume_path("more"), 2)
    for name in ("part_size", "containers"):
        few = f"attempt(lambda: connect({APP!r}).map('more', 'captions/wrong', {name}=0))"
        assert machine.python(few)[:2] == ["ConfigError", f"{name} is 0"]
    damaged = plane.volume_path("captions") / "damaged" / "part-00000000-00000.jsonl"
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_text('{"key": "more/000000.png"}\n')
    bad = f"attempt(lambda: connect({APP!r}).map('more', 'captions/damaged'))"
    kind, message, _ = machine.python(bad)
    assert kind == "ConfigError"
    assert f"line 1 of captions/damaged/{damaged.name} is not one of a batch" in message
    wrong = f"attempt(lambda: connect({APP!r}, api_key='wrong').map('more', 'captions/wrong'))"
    kind, message, hint = machine.python(wrong, timeout=200)
    assert (kind, hint) == ("DeployError", "the same call describes only what they have not")
    assert "1 parts of more failed, the first with AuthenticationError" in message
    missing = f"attempt(lambda: connect({APP!r}).map('nothing', 'captions/wrong'))"
    kind, message, _ = machine.python(missing)
    assert kind == "DeployError"
    assert "nothing" in message
