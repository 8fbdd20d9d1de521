"""Buckets and repositories through the packages that people have: s3fs, gcsfs, huggingface_hub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from tests.batch.conftest import Fast
from tests.batch.stores.files import FILES
from tests.batch.stores.google import storage
from tests.environments import ensure
from tests.loopback_hub import LoopbackHub
from tests.served import REPOSITORY

ENABLED = "INTERNVL_MODAL_TEST_CLIENTS"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-test"}
RUNNING = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")

needs_packages = [
    pytest.mark.clients,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.environ.get(ENABLED) != "1",
        reason=f"needs s3fs, gcsfs and moto (430 MB installed once): set {ENABLED}=1",
    ),
]

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(server: Fast, tmp_path: Path) -> Ask:
    """Run the client's process; what it reports."""
    # The package is not installed where the stores' own are: its backends are entry points.
    told = tmp_path / "told" / "internvl_modal-0.dist-info"
    told.mkdir(parents=True)
    for name in ("METADATA", "entry_points.txt"):
        (told / name).write_text(distribution("internvl-modal").read_text(name) or "")

    def run(python: str | Path, address: str, *options: str, **variables: str) -> dict[str, Any]:
        paths = {"PYTHONPATH": f"{REPOSITORY}:{told.parent}"}
        done = subprocess.run(
            [python, "-m", "tests.batch.stores.client", address, server.url, *options],
            env={**os.environ, **paths, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def check(report: Mapping[str, Any], top: str) -> None:
    """Every input is described, or named with what is wrong."""
    pictures = {f"{top}/deep/{n}.png": "" for n in range(3)}
    bad = f"{top}/deep/3.png"
    assert (
        report[""].pop(bad)
        == f"file {bad}: not a picture in a known format (convert it to JPEG or PNG)"
    )
    assert report["/**/*.png"].pop(bad)
    assert report[""] == report["/**/*.png"] == pictures
    assert report["/deep/[12].png"] == {f"{top}/deep/{n}.png": "" for n in (1, 2)}
    shards = report["/shard-{0..2}.tar"]
    assert shards.pop(f"{top}/shard-1.tar").startswith(f"{top}/shard-1.tar: is damaged: ")
    assert shards.pop(f"{top}/shard-2.tar").startswith(
        f"{top}/shard-2.tar: cannot be read: there is no such file"
    )
    assert shards == {f"{top}/shard-{shard}.tar/{n}.png": "" for shard in (0, 1) for n in (0, 1)}
    listed = report["/list.csv"]
    assert listed.pop("b").startswith(f"{top}/deep/none.png: cannot be read: there is no such file")
    assert listed == {"a": ""}
    assert report["/set.parquet"] == {f"r{n}": "" for n in range(40)}
    assert report["/deep/0.png"] == {f"{top}/deep/0.png": ""}
    for name in ("/none", "-none/none"):
        assert report[name] == {
            "raised": f"ConfigError: {top}{name} does not exist (check the address)"
        }


def check_outputs(report: Mapping[str, Any], top: str) -> None:
    for out in ("captions.jsonl", "captions.parquet"):
        first, again, skipped = report[out]
        assert set(first) == {f"{top}/deep/{n}.png" for n in range(4)}
        assert (again, skipped) == ([], 4)


def test_a_repository_of_the_hub(ask: Ask) -> None:
    with LoopbackHub() as hub:
        hub.commit("owner/set", FILES)
        check(ask(sys.executable, "hf://owner/set", HF_ENDPOINT=hub.url), "hf://owner/set")
        hub.token = "hf_right"
        report = ask(sys.executable, "hf://owner/set", HF_ENDPOINT=hub.url, HF_TOKEN="hf_wrong")
        assert report[""]["raised"].startswith("ConfigError: hf://owner/set ")
        assert "hf_wrong" not in json.dumps(report)
        report = ask(sys.executable, "hf://owner/set", HF_ENDPOINT=hub.url, HF_TOKEN="hf_right")
        assert set(report["/set.parquet"].values()) == {""}


def stores() -> Path:
    """The interpreter that has s3fs, gcsfs and moto."""
    return ensure("stores")


@contextmanager
def s3(python: Path, **variables: str) -> Iterator[str]:
    """moto's server, with an empty bucket."""
    with subprocess.Popen(
        [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        env={**os.environ, **variables},
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield next(found[1] for line in process.stdout if (found := RUNNING.search(line)))
        finally:
            process.kill()


class TestBuckets:
    """With packages that are not installed beside ours."""

    pytestmark = needs_packages

    def test_of_amazon(self, ask: Ask) -> None:
        python = stores()
        with s3(python) as url:
            variables = {**KEYS, "AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1"}
            code = "import boto3; boto3.client('s3').create_bucket(Bucket='bucket')"
            subprocess.run([python, "-c", code], env={**os.environ, **variables}, check=True)
            report = ask(python, "s3://bucket/set", "--put", "--out", **variables)
        check(report, "s3://bucket/set")
        check_outputs(report, "s3://bucket/set")

    def test_of_amazon_with_a_key_that_is_refused(self, ask: Ask) -> None:
        python = stores()
        with s3(python, INITIAL_NO_AUTH_ACTION_COUNT="0") as url:
            variables = {**KEYS, "AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1"}
            report = ask(python, "s3://bucket/set", **variables)
        said = report[""]["raised"]
        assert said.startswith("ConfigError: s3://bucket/set cannot be read: The AWS Access Key Id")
        assert report["/shard-{0..2}.tar"]["s3://bucket/set/shard-0.tar"]
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in json.dumps(report)

    def test_of_google(self, ask: Ask) -> None:
        with storage() as url:
            variables = {"STORAGE_EMULATOR_HOST": url}
            report = ask(stores(), "gs://bucket/set", "--put", "--out", **variables)
        check(report, "gs://bucket/set")
        check_outputs(report, "gs://bucket/set")
