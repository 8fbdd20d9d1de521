"""``internvl_modal.testing``: what users' tests are given does what its page says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal import errors
from internvl_modal.testing import Answer, FakeBackend, FakeServer
from tests.documented import DOCS, ROOT, performed

PICTURE = ROOT / "examples" / "images" / "coffee.jpg"
ONCE = ivl.Retry(attempts=1)


def test_the_page_runs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/one.jpg", "photos/two.jpg"):
        shutil.copy(PICTURE, tmp_path / name)
    done = performed("testing.md", os.environ, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "did not see the picture" in done.stdout


def test_the_tables_answers_do_what_it_says() -> None:
    """Each row of the faults: the answer as it is written, and the error that is named."""
    table = (DOCS / "testing.md").read_text().partition("| Fault |")[2]
    rows = re.findall(r"^\| [^|]+ \| `(Answer\(.*?\))` \| (.*) \|$", table, re.M)
    assert len(rows) == 8
    for code, words in rows:
        answer = eval(code, {"Answer": Answer})
        client = ivl.Client(FakeBackend(answer), retry=ONCE, timeout=3)
        named = re.findall(r"`(\w+Error)`", words)
        with client:
            if not named and answer.delay:
                with pytest.raises(errors.DeadlineExceededError):
                    client.describe(PICTURE)
            elif not named:
                assert "cut" in client.describe(PICTURE).warnings[0]
            else:
                with pytest.raises(getattr(errors, named[-1])) as raised:
                    client.describe(PICTURE)
                assert type(raised.value).__name__ == named[-1]


def test_a_wrong_key() -> None:
    with FakeServer(api_key="secret") as server:
        client = ivl.Client(base_url=server.url, api_key="other")
        with client, pytest.raises(errors.AuthenticationError):
            client.describe(PICTURE)


@pytest.mark.parametrize("found_out", [True, False])
def test_tokens_are_counted_as_the_client_expects(found_out: bool) -> None:
    """Of a server that is asked who it is, too; several pictures, each with its own limit."""
    with FakeServer() as server:
        backend = None if found_out else FakeBackend()
        url = server.url if found_out else None
        with ivl.Client(backend, base_url=url) as client:
            for detail in ("low", "high", 3):
                described = client.describe([PICTURE, PICTURE], detail=detail)
                tiles = sum(image.tokens for image in described.images)
                assert tiles < described.usage.prompt_tokens < tiles + 200
                assert described.seen == "confirmed"


def test_a_stream_and_one_that_is_cut() -> None:
    backend = FakeBackend(["A cat  on a\nmat.", Answer("A cat on a mat.", cut=True)])
    with ivl.Client(backend, retry=ONCE) as client:
        with client.stream(PICTURE) as stream:
            pieces = list(stream)
        assert "".join(pieces) == "A cat  on a\nmat."
        assert len(pieces) > 1
        assert stream.description.seen == "confirmed"
        with pytest.raises(errors.ServerError), client.stream(PICTURE) as stream:
            list(stream)


def test_a_batch_and_many_threads() -> None:
    backend = FakeBackend(lambda call: f"picture of {len(call.pictures[0])} bytes")
    with ivl.Client(backend) as client:
        outcomes = list(client.describe_many([PICTURE] * 20, "What?", concurrency=5))
    assert len(outcomes) == len(backend.calls) == 20
    assert all(outcome.ok for outcome in outcomes)


async def _described(backend: FakeBackend) -> str:
    async with ivl.AsyncClient(backend) as client:
        return (await client.describe(PICTURE)).text


def test_a_program_that_is_async() -> None:
    import asyncio

    assert asyncio.run(_described(FakeBackend("A cat."))) == "A cat."


def test_a_list_that_is_used_up_and_a_function_that_fails() -> None:
    backend = FakeBackend(["A cat."])
    with ivl.Client(backend) as client:
        client.describe(PICTURE)
        with pytest.raises(errors.RequestRejectedError, match="1 answers, and this is call 2"):
            client.describe(PICTURE)
        backend.will(lambda call: call.nothing)  # type: ignore[attr-defined]
        with pytest.raises(errors.RequestRejectedError, match="nothing"):
            client.describe(PICTURE)
    assert len(backend.calls) == 3


@pytest.mark.parametrize("wrong", [3, [3], {"a": 1}, None])
def test_what_is_no_answer(wrong: object) -> None:
    with pytest.raises(errors.ConfigError, match="an answer is of type"):
        FakeBackend(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"status": 99}, {"status": 600}, {"delay": -1}])
def test_no_such_answer(wrong: dict[str, int]) -> None:
    with pytest.raises(errors.ConfigError):
        Answer(**wrong)  # type: ignore[arg-type]


def test_a_server_that_is_closed_and_started_again() -> None:
    server = FakeServer(Answer("late", delay=600))
    with pytest.raises(errors.ConfigError, match="not started"):
        _ = server.url
    with server:
        client = ivl.Client(base_url=server.url, timeout=1)
        with client, pytest.raises(errors.ServerError):
            client.describe(PICTURE)
    server.close()
    with server, urllib.request.urlopen(f"{server.url}/models") as answer:
        assert json.load(answer)["data"][0]["id"] == "internvl2_5-78b"


TESTS = """
import internvl_modal as ivl

pytest_plugins = ["internvl_modal.testing.fixtures"]

def test_backend(internvl_backend):
    with ivl.Client(internvl_backend) as client:
        assert client.describe({picture!r}).text == "A picture."

def test_server(internvl_server):
    internvl_server.will("A cat.")
    assert ivl.describe({picture!r}).text == "A cat."
    assert len(internvl_server.calls) == 1

def test_anew(internvl_server):
    assert ivl.describe({picture!r}).text == "A picture."
"""


def test_the_fixtures(tmp_path: Path) -> None:
    """In a project of its own, whose environment names another server; warnings are errors."""
    (tmp_path / "test_program.py").write_text(TESTS.format(picture=str(PICTURE)))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={
            **os.environ,
            "INTERNVL_MODAL_BASE_URL": "http://127.0.0.1:9/v1",
            "PYTEST_ADDOPTS": "",
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout


def test_pytest_is_imported_by_its_plugin_only() -> None:
    code = "import sys, internvl_modal.testing as t; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
