"""What the Hub, the network and the disk can do: recovered from, or one WeightsError."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from internvl_modal._utils.user_warning import InternVLWarning
from internvl_modal.errors import ConfigError, WeightsError
from internvl_modal.weights import WeightsCache
from internvl_modal.weights.download import PartialFile, Stopped
from internvl_modal.weights.manifest import RemoteFile
from tests.loopback_hub import Fault, LoopbackHub
from tests.weights.conftest import NEEDED, REPO, model_files, noise

SHARD = "model-00001-of-00002.safetensors"
SECRET = "hf_secret_of_the_test"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that falls silent is given up after a second."""
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)


def flip(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(f"cdn.*{SHARD}", times=2, status=500),
        Fault("revision/main", times=2, status=500),
        Fault(f"cdn.*{SHARD}", times=1, status=429, headers={"Retry-After": "1"}),
        Fault("revision/main", times=1, status=429, headers={"Retry-After": "1"}),
        Fault(f"cdn.*{SHARD}", times=2, cut_after=131_072),
        Fault(f"cdn.*{SHARD}", times=1, stall_after=131_072),
        Fault(f"cdn.*{SHARD}", times=1, change=flip),
        Fault(f"cdn.*{SHARD}", times=1, change=lambda content: content[:1000]),
        Fault(f"cdn.*{SHARD}", times=1, change=lambda content: content + b"x"),
        Fault("resolve.*tokenizer.json", times=1, change=flip),
    ],
    ids=str.split("500 api-500 429 api-429 cut stall bytes short long git-bytes"),
)
@pytest.mark.usefixtures("impatient")
def test_passing_faults(hub: LoopbackHub, cache: WeightsCache, fault: Fault) -> None:
    hub.faults.append(fault)
    assert cache.ensure(REPO, progress=None).files == NEEDED
    assert fault.times == 0
    assert cache.verify(REPO, deep=True).ok


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["cut", "stall"])
def test_a_broken_connection_continues_where_it_stopped(
    hub: LoopbackHub, cache: WeightsCache, kind: str
) -> None:
    """Bytes that are lost on the way are less than a chunk of 1 MiB."""
    hub.commit("a/b", {"model.safetensors": noise(4 << 20)})
    hub.faults.append(Fault("cdn.*model", times=1, **{f"{kind}_after": 3 << 20}))  # type: ignore[arg-type]
    cache.ensure("a/b", progress=None)
    first, second, *more = (request.start for request in hub.downloads("cdn.*model"))
    assert first == 0
    assert 2 << 20 <= second <= 3 << 20
    assert kind == "stall" or not more


NOW = {"Retry-After": "0"}
STRANGE = '{"id": "a/b", "sha": "../x", "siblings": []}'


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(SHARD, status=403), rf"{SHARD}: the Hub refuses access \(403\) \(the token is"),
        (Fault(SHARD, status=404, headers={"X-Error-Code": "EntryNotFound"}), f"{SHARD}: .* gone"),
        (Fault(SHARD, status=429, headers=NOW), rf"{SHARD}: the Hub limits requests \(429\)"),
        (Fault(SHARD, status=500, headers=NOW), rf"{SHARD}: the Hub failed \(500\) \(try again"),
        (Fault("revision/main", status=503, headers=NOW), rf"{REPO}: the Hub failed \(503\)"),
        (Fault("revision/main", status=200, body="<html>"), "does not answer as a Hub does"),
        (Fault("revision/main", status=200, body=STRANGE), r"its commit is called '\.\./x'"),
        (Fault(SHARD, change=flip), f"{SHARD}: the bytes are not the Hub's: checksum"),
        (Fault(SHARD, change=lambda b: b[:9]), f"{SHARD}: .* 400000 bytes, the server has sent 9"),
        (Fault(SHARD, change=lambda b: b + b"x"), f"{SHARD}: the Hub says 400000 bytes"),
    ],
    ids=str.split("403 404 429 500 api-503 api-html api-commit bytes short long"),
)
def test_lasting_faults(hub: LoopbackHub, cache: WeightsCache, fault: Fault, message: str) -> None:
    hub.faults.append(fault)
    with pytest.raises(WeightsError, match=message):
        cache.ensure(REPO, progress=None)
    assert not any(entry.complete for entry in cache.list())
    hub.faults.clear()
    assert cache.ensure(REPO, progress=None).files == NEEDED
    assert cache.verify(REPO, deep=True).ok


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("nobody/nothing", None, "there is no such repository, or the token may not see it"),
        (REPO, "v9", "there is no revision v9"),
        (REPO, "0" * 40, "there is no revision 0000"),
        ("a b/c", None, "this is not a repository's name"),
    ],
)
def test_what_does_not_exist(
    cache: WeightsCache, model: str, revision: str | None, message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        cache.ensure(model, revision, progress=None)


@pytest.mark.parametrize(
    ("token", "advice"), [(SECRET, "the token from token="), (None, "set HF_TOKEN")]
)
def test_a_token_that_is_wrong_or_missing_is_never_shown(
    hub: LoopbackHub, root: Path, token: str | None, advice: str
) -> None:
    hub.token = "hf_another"
    cache = WeightsCache(root, endpoint=hub.url, token=token)
    with pytest.raises(WeightsError, match=rf"check .*, and {advice}") as caught:
        cache.ensure(REPO, progress=None)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(cache)


def test_an_empty_token_is_none(hub: LoopbackHub, root: Path) -> None:
    WeightsCache(root, endpoint=hub.url, token="  ").ensure(REPO, progress=None)
    assert not any("authorization" in request.headers for request in hub.requests)


def test_a_server_that_repeats_the_token_is_not_quoted(hub: LoopbackHub, root: Path) -> None:
    echo = {"X-Error-Message": f"bad token {SECRET}"}
    hub.faults.append(Fault("revision/main", status=401, headers=echo, body=SECRET))
    with pytest.raises(WeightsError) as caught:
        WeightsCache(root, endpoint=hub.url, token=SECRET).ensure(REPO, progress=None)
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.__dict__}"


@pytest.mark.parametrize("given", [True, False], ids=["argument", "environment"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(
    hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    odd = f"{SECRET}\N{EN DASH}"
    if not given:
        monkeypatch.setenv("HF_TOKEN", odd)
    cache = WeightsCache(root, endpoint=hub.url, token=odd if given else None)
    with pytest.raises(ConfigError, match="the Hugging Face token holds characters") as caught:
        cache.ensure(REPO, progress=None)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


SOURCES = {
    "argument": "token=",
    "environment": "the variable HF_TOKEN",
    "file": r"HF_TOKEN in \.env",
    "login": "the login of huggingface_hub",
    "container": "the Secret huggingface-secret on Modal",
}


def give_token(where: str, monkeypatch: pytest.MonkeyPatch, token: str) -> str | None:
    """Put a token where it may come from; what is passed to the cache then."""
    if where in ("environment", "container"):
        monkeypatch.setenv("HF_TOKEN", token)
    if where == "container":
        monkeypatch.setenv("INTERNVL_MODAL_HUB_LOGIN_SOURCE", SOURCES[where])
    if where == "login":
        Path("login").write_text(token)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", "login")
    if where == "file":
        Path(".env").write_text(f"HF_TOKEN={token}\n")
    return token if where in ("argument", "file") else None


@pytest.mark.parametrize("where", SOURCES)
def test_a_stale_token_and_a_public_model(
    hub: LoopbackHub,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    hub.refused.add(SECRET)
    token = give_token(where, monkeypatch, SECRET)
    said = rf"the Hub refuses the token from {SOURCES[where]}: {REPO} is public, and fetched without it"
    with pytest.warns(InternVLWarning, match=f"^{said}$"):
        WeightsCache(root, endpoint=hub.url, token=token).ensure(REPO, progress=None)
    sent = ["authorization" in request.headers for request in hub.requests]
    assert sent == [True] + [False] * (len(sent) - 1)


@pytest.mark.parametrize("where", SOURCES)
def test_a_stale_token_and_a_private_model(
    hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    hub.refused.add(SECRET)
    hub.token = "hf_another"
    token = give_token(where, monkeypatch, SECRET)
    with pytest.raises(WeightsError) as caught:
        WeightsCache(root, endpoint=hub.url, token=token).ensure(REPO, progress=None)
    assert re.search(rf"refuses access .*the token from {SOURCES[where]} is", str(caught.value))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("around", ["", "\n", " "])
def test_the_right_token_and_a_gated_repository(hub: LoopbackHub, root: Path, around: str) -> None:
    hub.token = SECRET
    cache = WeightsCache(root, endpoint=hub.url, token=f"{around}{SECRET}{around}")
    assert cache.ensure(REPO, progress=None).files == NEEDED
    hub.gated.add(REPO)
    with pytest.raises(WeightsError, match=r"access is gated .accept the terms at http"):
        cache.ensure(REPO, "v2", progress=None)


def test_a_file_that_another_process_writes_to_is_not_published(
    hub: LoopbackHub, cache: WeightsCache, root: Path
) -> None:
    """Its own bytes are the Hub's, and yet the file is longer."""
    part = root / ".partial" / REPO / hub.branches[REPO]["main"] / f"{SHARD}.part"

    def append() -> None:
        with part.open("ab") as file:
            file.write(b"x")

    hub.faults.append(Fault(f"cdn.*{SHARD}", times=1, then=append))
    with pytest.raises(WeightsError, match=f"{SHARD}: another process has written to it too"):
        cache.ensure(REPO, progress=None)
    assert not any(entry.complete for entry in cache.list())
    assert cache.ensure(REPO, progress=None).files == NEEDED
    assert cache.verify(REPO, deep=True).ok


def test_a_file_that_another_process_has_published_is_left_alone(
    hub: LoopbackHub, cache: WeightsCache, root: Path
) -> None:
    """As by one that took the lock over while this one was suspended."""
    part = root / ".partial" / REPO / hub.branches[REPO]["main"] / f"{SHARD}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(model_files()[SHARD][:1000])
    take = Fault(f"cdn.*{SHARD}", times=1, then=lambda: part.rename(root / "published"))
    hub.faults.append(take)
    with pytest.raises(WeightsError, match="the lock of this download was lost"):
        cache.ensure(REPO, progress=None)
    assert (root / "published").read_bytes() == model_files()[SHARD][:1000]
    assert cache.ensure(REPO, progress=None).files == NEEDED


@pytest.mark.parametrize("act", [PartialFile.restart, PartialFile.sync])
def test_a_partial_file_ends_when_it_has_another_name(
    tmp_path: Path, act: Callable[[PartialFile], None]
) -> None:
    part, wanted = tmp_path / "x.part", RemoteFile(path="x", size=5, oid="0")
    part.write_bytes(b"bytes")
    with PartialFile(part, wanted, threading.Event(), int) as sink:
        part.rename(tmp_path / "x")
        with pytest.raises(Stopped):
            act(sink)
    assert (tmp_path / "x").read_bytes() == b"bytes"


def test_who_was_suspended_looks_before_the_next_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, wanted = tmp_path / "x.part", RemoteFile(path="x", size=5, oid="0")
    with PartialFile(part, wanted, threading.Event(), int) as sink:
        sink.write(b"by")
        part.rename(tmp_path / "x")
        later = time.time() + 30
        monkeypatch.setattr(time, "time", lambda: later)
        with pytest.raises(Stopped):
            sink.write(b"tes")
    assert (tmp_path / "x").read_bytes() == b"by"


def test_a_revision_that_moves_during_the_download_changes_nothing(
    hub: LoopbackHub, cache: WeightsCache
) -> None:
    first = hub.branches[REPO]["main"]
    moved = {**model_files(), "config.json": b"moved", SHARD: noise(400_000, 50)}
    hub.faults.append(Fault(f"resolve.*{SHARD}", times=1, then=lambda: hub.commit(REPO, moved)))
    snapshot = cache.ensure(REPO, progress=None)
    assert hub.branches[REPO]["main"] != first == snapshot.commit
    assert snapshot.file(SHARD).read_bytes() == model_files()[SHARD]
    assert snapshot.file("config.json").read_bytes() == model_files()["config.json"]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nobody listens, and nobody else can meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("port", ["silent_port", "closed_port"])
def test_without_a_hub(root: Path, port: str, request: pytest.FixtureRequest) -> None:
    endpoint = f"http://127.0.0.1:{request.getfixturevalue(port)}"
    with pytest.raises(WeightsError, match=r"the connection to http.*check the network") as caught:
        WeightsCache(root, endpoint=endpoint).ensure("a/b", files=["x.gguf"], progress=None)
    assert caught.value.files == ("x.gguf",)
    assert caught.value.destination == str(root / "a/b")


OFFLINE = """
import sys
from internvl_modal.weights import WeightsCache
WeightsCache(sys.argv[1], endpoint=sys.argv[2]).ensure("a/b", progress=None)
"""


def test_offline_mode_of_huggingface_hub(hub: LoopbackHub, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(root), hub.url],
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "WeightsError: a/b: HF_HUB_OFFLINE is set (unset it to download)" in done.stderr
    assert not hub.requests


PASS = "pass-of-the-test"


@pytest.mark.parametrize(
    "address", ["http://me:{0}@127.0.0.1:{1}", "http://127.0.0.1:{1}/?key={0}&n=1#{0}"]
)
@pytest.mark.parametrize(
    "fault", [None, Fault("", body="[]", status=200), Fault("", status=403), Fault("", status=404)]
)
def test_the_password_of_a_mirror_is_shown_nowhere(
    hub: LoopbackHub,
    root: Path,
    fault: Fault | None,
    address: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """None: nobody listens there."""
    for name in ("httpx", "httpx2", "urllib3", "huggingface_hub", "internvl_modal"):
        caplog.set_level(logging.DEBUG, name)
    hub.faults += [fault] if fault else []
    port = hub.url.rpartition(":")[2] if fault else "9"
    cache = WeightsCache(root, endpoint=address.format(PASS, port))
    with pytest.raises(WeightsError) as caught:
        cache.ensure(REPO, progress=None)
    assert f"http://127.0.0.1:{port}" in str(caught.value) or (fault and fault.status != 200)
    told = "".join(traceback.format_exception(caught.value))
    assert PASS not in f"{told} {caught.value!r} {caught.value.hint} {caught.value.__dict__}"
    assert PASS not in caplog.text


def test_a_mirror_with_a_password_works_and_keeps_it(
    hub: LoopbackHub, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cache = WeightsCache(root, endpoint=hub.url.replace("://", f"://me:{PASS}%40@"))
    snapshot = cache.ensure(REPO, progress=None)
    assert PASS not in caplog.text + snapshot.file("internvl-modal.json").read_text()


def test_an_address_that_is_none_is_not_shown(root: Path) -> None:
    cache = WeightsCache(root, endpoint=f"http://[{PASS}")
    with pytest.raises(ConfigError, match="the Hub's address is no URL") as caught:
        cache.ensure(REPO, progress=None)
    assert PASS not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("path", ["/resolve/.*safetensors", "revision/main"])
def test_a_hub_that_redirects_for_ever(hub: LoopbackHub, cache: WeightsCache, path: str) -> None:
    location = f"{hub.url}/api/models/{REPO}/revision/main"
    if "resolve" in path:
        location = f"{hub.url}/{REPO}/resolve/main/{SHARD}"
    hub.faults.append(Fault(path, status=302, headers={"Location": location}))
    with pytest.raises(WeightsError, match="redirects without end"):
        cache.ensure(REPO, progress=None)
    hub.faults.clear()
    assert cache.ensure(REPO, progress=None).files == NEEDED


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://[::1", "http://127.0.0.1:9/x"]
)
def test_a_hub_that_redirects_to_nowhere(
    hub: LoopbackHub, cache: WeightsCache, location: str
) -> None:
    hub.faults.append(Fault("revision/main", status=302, headers={"Location": location}))
    with pytest.raises(WeightsError):
        cache.ensure(REPO, progress=None)


def test_each_pause_is_logged_without_words_of_the_hub(
    hub: LoopbackHub, cache: WeightsCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "internvl_modal")
    hub.faults = [
        Fault(f"cdn.*{SHARD}", times=1, status=503, body=SECRET, headers={"Retry-After": "1"}),
        Fault("revision/main", times=1, status=429, body=SECRET),
    ]
    cache.ensure(REPO, progress=None)
    first, second = [m for m in caplog.messages if m.startswith("attempt")]
    assert first.startswith("attempt 1: RateLimitedError 429; the next one in 0.")
    assert second.startswith("attempt 1: ServerUnavailableError 503; the next one in 1.")
