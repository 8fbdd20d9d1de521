"""Addresses that fsspec knows, and what is said where it does not."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import io
import subprocess
import sys
import tarfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import internvl_modal as ivl
from internvl_modal.batch.sources.inputs import Sources
from internvl_modal.batch.sources.remote import RemoteFile
from tests.batch.sources import found, items, keys, outcomes_of, png, tar


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    files = fsspec.filesystem("memory")
    for number in range(3):
        files.pipe(f"/set/deep/{number}.png", png(number))
        files.pipe(f"/set/shard-{number}.tar", tar((f"{number}.png",), first=number)[0])
    files.pipe("/set/.hidden.png", png())
    files.pipe("/set/list.csv", b"image,n\ndeep/0.png,1\nmemory://set/deep/1.png,2\n")
    yield files
    files.rm("/set", recursive=True)


def test_folders_globs_and_shards(memory: object) -> None:
    pictures = [f"memory:///set/deep/{n}.png" for n in range(3)]
    assert list(found("memory://set")) == pictures
    assert list(found("memory://set/deep/*.png")) == pictures
    assert list(found("memory://set/**/*.png"))[:3] == pictures
    members = {f"memory://set/shard-{n}.tar/{n}.png": png(n) for n in range(3)}
    assert found("memory://set/shard-{0..2}.tar") == members
    assert len(found("memory://set/*.tar")) == 3
    assert list(found("memory://set/list.csv", key="n")) == ["1", "2"]
    assert list(found("memory://set/deep/1.png")) == ["memory://set/deep/1.png"]


def test_they_are_described(client: ivl.Client, memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/set/deep/3.png", b"no picture")
    outcomes, error = outcomes_of(client, "memory://set")
    assert error is None
    assert len(keys(outcomes, ok=True)) == 3
    assert keys(outcomes, ok=False) == {"memory:///set/deep/3.png"}
    given = ["memory://set/deep/0.png", "memory://set/none.png"]
    outcomes, _ = outcomes_of(client, given, ordered=True)
    assert [each.ok for each in outcomes] == [True, False]
    assert "memory://set/none.png: " in str(outcomes[1].error)
    outcomes, _ = outcomes_of(client, "memory://set/list.csv", key="n")
    assert keys(outcomes, ok=True) == {"1", "2"}


def test_a_damaged_shard_there_holds_up_nothing(
    client: ivl.Client, memory: fsspec.AbstractFileSystem
) -> None:
    memory.pipe("/set/shard-1.tar", tar()[0][:1100])
    outcomes, error = outcomes_of(client, "memory://set/shard-{0..3}.tar")
    assert error is None
    assert keys(outcomes, ok=False) == {"memory://set/shard-1.tar", "memory://set/shard-3.tar"}
    assert len(keys(outcomes, ok=True)) == 3


def test_other_kinds_of_addresses(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert list(found(f"file://{tmp_path}")) == [f"file://{tmp_path}/a.png"]
    with pytest.raises(ivl.ConfigError, match=r"memory://none/x\.tar does not exist"):
        items("memory://none/x.tar")
    with pytest.raises(ivl.ConfigError, match=r"nowhere://x cannot be read: Protocol not known"):
        items("nowhere://x")
    with pytest.raises(ivl.ConfigError, match=r"nothing matches memory://none/\*\.tar"):
        items("memory://none/*.tar")


def test_a_package_that_is_missing() -> None:
    assert importlib.util.find_spec("s3fs") is None
    with pytest.raises(
        ivl.ConfigError, match=r"s3://b/x needs another package: .*s3fs.*\[remote\]"
    ):
        items("s3://b/x")


def test_without_the_extra() -> None:
    code = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from internvl_modal.batch.sources import inputs, choice\n"
        "list(inputs.read('s3://b/x', choice.Choice()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError" in done.stderr
    assert "pip install 'internvl-modal[remote]'" in done.stderr


def test_passwords_stay_out() -> None:
    file = RemoteFile("memory://user:secret@host/none.png")
    with pytest.raises(ivl.ImageError) as caught:
        file.read()
    assert "secret" not in f"{caught.value} {file!r} {file.name}"


def test_shards_on_a_web_server(tmp_path: Path, client: ivl.Client) -> None:
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(tar((f"{number}.png",), first=number)[0])
    serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    serve.func.log_message = lambda *_: None  # type: ignore[method-assign]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert list(found(f"{url}/1.tar").values()) == [png(1)]
        outcomes, error = outcomes_of(client, f"{url}/{{0..2}}.tar")
        server.shutdown()
    assert error is None
    assert keys(outcomes, ok=True) == {f"{url}/{n}.tar/{n}.png" for n in range(2)}
    assert keys(outcomes, ok=False) == {f"{url}/2.tar"}


SIGNED = "?X-Amz-Credential=a/b/secret&X-Amz-Signature=0123456789secret"


def test_what_is_signed_is_read_by_its_path_and_told_without(
    tmp_path: Path, client: ivl.Client
) -> None:
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(tar((f"{number}.png",), first=number)[0])
    (tmp_path / "0.png").write_bytes(png())
    (tmp_path / "list.csv").write_text("image,n\n0.png,x\n")
    serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    serve.func.log_message = lambda *_: None  # type: ignore[method-assign]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert found(f"{url}/1.tar{SIGNED}") == {f"{url}/1.tar/1.png": png(1)}
        assert found(f"{url}/1.tar?token=secret")
        assert found(f"{url}/list.csv{SIGNED}", key="n") == {"x": f"{url}/0.png"}
        pictures = items(f"{url}/{{0..1}}.png{SIGNED}")
        assert [each.key for each in pictures] == [f"{url}/0.png", f"{url}/1.png"]
        with pytest.raises(ivl.ConfigError) as alone:
            items(f"{url}/9.tar{SIGNED}")
        outcomes, error = outcomes_of(client, f"{url}/{{0..2}}.tar{SIGNED}", out="out.jsonl")
        server.shutdown()
    assert error is None
    assert keys(outcomes, ok=True) == {f"{url}/{n}.tar/{n}.png" for n in range(2)}
    lost = next(each for each in outcomes if not each.ok)
    assert lost.key == f"{url}/2.tar"
    told = "".join(traceback.format_exception(alone.value)) + str(lost.error)
    assert "secret" not in told + Path("out.jsonl").read_text()


@pytest.mark.parametrize("name", ["s-{0..1}.tar", "s.tar"])
@pytest.mark.parametrize("kind", ["http", "ftp"])
def test_a_password_is_in_no_error(client: ivl.Client, kind: str, name: str) -> None:
    address = f"{kind}://me:secret@127.0.0.1:1/{name}"
    for images in (address, Sources((address, "missing.csv"))):
        outcomes, error = outcomes_of(client, images, out="out.jsonl", resume=False)
        errors = [each.error for each in outcomes] + [error]
        told = "".join("".join(traceback.format_exception(each)) for each in errors if each)
        assert "127.0.0.1:1/s" in told
        assert "secret" not in told
        assert "secret" not in Path("out.jsonl").read_text()


class NoHead(http.server.SimpleHTTPRequestHandler):
    """Gives no ranges, and sends a body where none may be."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    do_HEAD = http.server.SimpleHTTPRequestHandler.do_GET


@pytest.mark.timeout(60)
def test_web_servers_that_know_only_get(tmp_path: Path) -> None:
    """Longer than what fsspec asks for at once, 5 MiB."""
    members = {f"{number}.png": bytes([number]) * 3_000_000 for number in range(4)}
    with tarfile.open(tmp_path / "big.tar", "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (tmp_path / "list.csv").write_text("image;n\nhttps://x.org/a.png;1\n", "utf-16")
    serve = functools.partial(NoHead, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        read = found(f"{url}/big.tar")
        listed = list(found(f"{url}/list.csv"))
        with pytest.raises(ivl.ConfigError, match=r"none\.tar"):
            items(f"{url}/none.tar")
        server.shutdown()
    assert read == {f"{url}/big.tar/{name}": data for name, data in members.items()}
    assert listed == ["https://x.org/a.png"]
