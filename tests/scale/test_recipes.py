"""The recipes of docs/scale.md, with the packages that they are for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import distribution
from pathlib import Path

import pytest
from pyarrow import parquet

import internvl_modal as ivl
from tests.batch.conftest import Fast, fast, make_pictures  # noqa: F401 - a fixture
from tests.environments import ensure
from tests.loopback import Loopback, Reply, completion

ENABLED = "INTERNVL_MODAL_TEST_SCALE"
HERE = Path(__file__).parent
ROOT = HERE.parents[1]

needs_packages = pytest.mark.skipif(
    os.environ.get(ENABLED) != "1",
    reason=f"needs Ray and others (900 MB installed once): set {ENABLED}=1",
)


def block(name: str) -> str:
    text = (ROOT / "docs/scale.md").read_text()
    (found,) = re.findall(rf"```python {name}\n(.*?)```", text, re.DOTALL)
    assert len(found.strip().splitlines()) <= 26
    return found


def run(code: str, url: str, *more: str) -> str:
    python = ensure("scale")
    # The package with its entry points, from here: nothing is built or fetched for it.
    (known,) = Path(str(distribution("internvl-modal").locate_file(""))).glob(
        "internvl_modal-*.dist-info"
    )
    shutil.copytree(known, Path("installed") / known.name, dirs_exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        [python, "-c", code, *more],
        env={
            **kept,
            "PYTHONPATH": f"{ROOT}:{Path('installed').absolute()}",
            "INTERNVL_MODAL_BASE_URL": url,
            "RAY_USAGE_STATS_ENABLED": "0",
            "HF_HUB_OFFLINE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.scale
@needs_packages
def test_ray_over_two_workers(fast: Callable[..., Fast]) -> None:  # noqa: F811
    make_pictures(Path("photos"), 2000)
    Path("photos/broken.jpg").write_bytes(b"")
    server = fast()
    run(block("ray"), server.url)
    rows = parquet.read_table("captions").to_pylist()
    assert len({row["path"] for row in rows}) == len(rows) == 2001
    assert sum(row["text"].startswith("It is ") for row in rows) == 2000
    assert [row["path"][-10:] for row in rows if row["error"]] == ["broken.jpg"]
    log = server.report()["log"]
    assert len({name for name, _ in log}) == len(log) == 2000


@pytest.mark.scale
@needs_packages
def test_datasets_map(fast: Callable[..., Fast]) -> None:  # noqa: F811
    make_pictures(Path("photos"), 250)
    server = fast()
    told = run(block("datasets"), server.url)
    assert re.search(r"It is [0-9a-f]{16}\.", told)
    log = server.report()["log"]
    assert len({name for name, _ in log}) == len(log) == 250


@pytest.mark.scale
@needs_packages
def test_shards_are_read_by_webdataset(fast: Callable[..., Fast]) -> None:  # noqa: F811
    make_pictures(Path("photos"), 30)
    url = fast().url
    with ivl.Client(base_url=url) as client:
        outcomes = list(client.describe_many("photos", out="set-%06d.tar"))
    told = run(block("webdataset"), url).splitlines()
    texts = {outcome.text for outcome in outcomes}
    assert {re.sub(r"^\S+ (.*) \d+$", r"\1", line) for line in told} == texts
    sizes = {int(line.split()[-1]) for line in told}
    assert sizes == {path.stat().st_size for path in Path("photos").iterdir()}


def test_eight_servers() -> None:
    make_pictures(Path("photos"), 80)
    with ExitStack() as stack:
        servers = [stack.enter_context(Loopback()) for _ in range(8)]
        for each in servers:
            each.will(Reply(body=completion("A photo.")))
        code, count = re.subn(
            r"^servers = .*$", f"servers = {[s.url for s in servers]}", block("eight"), flags=re.M
        )
        assert count == 1
        names: dict[str, object] = {}
        exec(code, names)
        batch = names["batch"]
        assert isinstance(batch, ivl.Batch)
        assert (batch.summary.described, batch.summary.failed) == (80, 0)
        assert min(len(each.chats) for each in servers) >= 1
    shutil.rmtree("photos")
