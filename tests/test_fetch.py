"""The guard: which addresses it lets through, and that it goes where it looked."""

from __future__ import annotations

import base64
import gzip
import logging
import socket
import ssl
import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from ipaddress import ip_address
from typing import Any

import pytest

from internvl_modal.errors import ImageError
from internvl_modal.images import prepare
from internvl_modal.images.addresses import forbidden
from internvl_modal.images.fetch import fetch
from tests.images.pictures import corners, encoded
from tests.loopback import Loopback, Reply

PICTURE = encoded(corners(), "PNG")


def get(url: str, **options: Any) -> bytes:
    return fetch(url, **{"timeout": 60, "max_bytes": 10_000, "allow_private": True, **options})


def refused(url: str, **options: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        get(url, **options)
    assert "secret" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.9.10", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fc00::1", "private"),
        ("fec0::1", "private"),
        ("169.254.7.7", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.64.0.1", "not a public"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("0.1.2.3", "private"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", ""),
        ("255.255.255.255", ""),
        ("192.0.2.1", ""),
        ("198.18.0.1", ""),
        ("2001:db8::1", ""),
        ("::ffff:127.0.0.1", "disguise"),
        ("::ffff:8.8.8.8", "disguise"),
        ("2002:7f00:1::", "disguise"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "disguise"),
        ("::7f00:1", ""),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("64:ff9b:1::1", ""),
        ("192.0.0.1", ""),
        ("192.0.0.9", ""),
        ("192.0.0.170", ""),
        ("192.88.99.1", ""),
        ("198.51.100.1", ""),
        ("203.0.113.255", ""),
        ("100::1", ""),
        ("100:0:0:1::1", ""),
        ("2001:1::1", ""),
        ("2001:2::1", ""),
        ("2001:20::1", ""),
        ("3fff::1", ""),
        ("3fff:fff:ffff::1", ""),
        ("5f00::1", ""),
        ("4000::1", "not a public"),
        ("fe00::1", "not a public"),
    ],
)
def test_addresses_that_are_not_public(address: str, reason: str) -> None:
    verdict = forbidden(ip_address(address))
    assert verdict is not None
    assert reason in verdict


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.1.1.1", "172.32.0.1", "192.0.1.1", "100.128.0.1", "198.20.0.1"),
        *("2606:4700:4700::1111", "64:ff9b::808:808", "2001:200::1", "3ffe::1", "3fff:1000::1"),
    ],
)
def test_public_addresses(address: str) -> None:
    assert forbidden(ip_address(address)) is None


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "[::1]", "[::ffff:7f00:1]"],
)
def test_no_spelling_of_loopback_gets_through(host: str, loopback: Loopback) -> None:
    port = loopback.origin.rpartition(":")[2]
    error = refused(f"http://me:secret@{host}:{port}/p.png?key=secret", allow_private=False)
    assert "leads to" in str(error)
    assert "allow_private_urls=True" in error.hint
    assert not loopback.heard


def test_a_picture_is_fetched_and_described_by_its_address(loopback: Loopback) -> None:
    loopback.will(Reply(body=PICTURE))
    url = f" {loopback.origin}/a/p.png?key=secret\n"
    prepared = prepare(url, fetch=fetch, allow_private_urls=True)
    assert prepared.payload == PICTURE
    assert prepared.info.source == f"{loopback.origin}/a/p.png"
    heard = loopback.heard[0]
    assert heard.path == "/a/p.png?key=secret"
    assert heard.headers["host"] == loopback.origin.removeprefix("http://")


def test_the_connection_goes_to_the_address_that_was_judged(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that says something else the second time is asked only once."""
    real, asked = socket.getaddrinfo, []

    def rebinding(host: Any, *args: Any, **more: Any) -> Any:
        if host != "rebind.test":
            return real(host, *args, **more)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "192.0.2.1", *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    loopback.will(Reply(body=b"ok"))
    port = loopback.origin.rpartition(":")[2]
    assert get(f"http://rebind.test:{port}/") == b"ok"
    assert asked == ["rebind.test"]
    assert loopback.heard[0].headers["host"] == f"rebind.test:{port}"


def test_one_forbidden_address_among_several_is_enough(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    both = [(*kind, ("8.8.8.8", 80)), (*kind, ("127.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    assert "loopback" in str(refused("http://mixed.test/", allow_private=False))


def test_the_next_address_is_tried_when_one_does_not_answer(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    port = int(loopback.origin.rpartition(":")[2])

    def two(host: Any, *args: Any, **more: Any) -> Any:
        if host != "two.test":
            return real(host, *args, **more)
        return [*real("::1", port, type=socket.SOCK_STREAM), *real("127.0.0.1", *args, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    loopback.will(Reply(body=b"ok"))
    assert get(f"http://two.test:{port}/") == b"ok"


def test_passwords_and_queries_are_sent_and_not_logged(
    loopback: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    loopback.will(Reply(body=b"ok"))
    address = loopback.origin.replace("//", "//me:s%40cret@")
    assert get(f"{address}/a.jpg?token=s%40cret") == b"ok"
    (heard,) = loopback.heard
    assert heard.path == "/a.jpg?token=s%40cret"
    assert heard.headers["authorization"] == "Basic " + base64.b64encode(b"me:s@cret").decode()
    assert heard.headers["host"] == loopback.origin.removeprefix("http://")
    assert "cret" not in caplog.text


def redirect(to: str) -> Reply:
    return Reply(status=302, headers={"location": to})


def test_redirects_are_followed_and_each_is_judged(loopback: Loopback) -> None:
    loopback.will(redirect("/b"), redirect(f"{loopback.origin}/c"), Reply(body=b"ok"))
    assert get(f"{loopback.origin}/a") == b"ok"
    assert [heard.path for heard in loopback.heard] == ["/a", "/b", "/c"]


def test_a_redirect_to_a_private_address_is_refused(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8.8.8.8 leads to this machine here, so that the first step is a public one."""
    real = socket.create_connection

    def connect(address: tuple[str, int], *args: Any, **more: Any) -> socket.socket:
        return real(("127.0.0.1", address[1]), *args, **more)

    monkeypatch.setattr(socket, "create_connection", connect)
    loopback.will(redirect(f"{loopback.origin}/inside?key=secret"), Reply(body=PICTURE))
    url = loopback.origin.replace("127.0.0.1", "8.8.8.8")
    assert "leads to a loopback address" in str(refused(f"{url}/a", allow_private=False))
    assert [heard.path for heard in loopback.heard] == ["/a"]


@pytest.mark.parametrize(
    ("location", "what"),
    [
        ("file:///etc/passwd", "leads to a file URL"),
        ("ftp://127.0.0.1/secret", "leads to a ftp URL"),
        ("http://127.0.0.1:99999/", "cannot be fetched"),
    ],
)
def test_redirects_to_elsewhere_are_refused(location: str, what: str, loopback: Loopback) -> None:
    loopback.will(redirect(location))
    assert what in str(refused(f"{loopback.origin}/a?key=secret"))


def test_endless_redirects_end(loopback: Loopback) -> None:
    loopback.will(redirect("/again"))
    assert "more than 5 redirects" in str(refused(loopback.origin))
    assert len(loopback.heard) == 6


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=bytes(10_001)),
        Reply(chunks=[bytes(6000), bytes(6000)]),
    ],
    ids=["announced", "chunked"],
)
def test_too_many_bytes(reply: Reply, loopback: Loopback) -> None:
    loopback.will(reply)
    assert "larger than 10,000 bytes" in str(refused(loopback.origin))


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "gzip, gzip", "x-unknown"])
def test_pictures_are_asked_for_as_they_are_and_taken_in_no_coding(
    coding: str, loopback: Loopback
) -> None:
    loopback.will(Reply(body=gzip.compress(PICTURE), headers={"content-encoding": coding}))
    assert f"sent in the coding '{coding}'" in str(refused(loopback.origin))
    assert loopback.heard[0].headers["accept-encoding"] == "identity"
    loopback.will(Reply(body=PICTURE, headers={"content-encoding": "identity"}))
    assert get(loopback.origin) == PICTURE


@pytest.mark.parametrize("status", [204, 401, 404])
def test_other_answers(status: int, loopback: Loopback) -> None:
    loopback.will(Reply(status=status))
    error = refused(f"{loopback.origin}/p?token=secret")
    assert f"the server answers {status}" in str(error)
    assert bool(error.hint) == (400 <= status < 500)
    assert len(loopback.heard) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_may_change_is_asked_for_again(status: int, loopback: Loopback) -> None:
    again = Reply(status=status, headers={"retry-after": "0"})
    loopback.will(again, again, Reply(status=203, body=b"ok"))
    assert get(loopback.origin) == b"ok"
    assert len(loopback.heard) == 3


def test_five_times_are_enough(loopback: Loopback) -> None:
    loopback.will(Reply(status=500))
    assert "the server answers 500" in str(refused(loopback.origin))
    assert len(loopback.heard) == 5


def test_retry_after_is_obeyed_and_never_outlasts_the_deadline(loopback: Loopback) -> None:
    loopback.will(Reply(status=503, headers={"retry-after": "2"}), Reply(body=b"ok"))
    begun = time.monotonic()
    assert get(loopback.origin) == b"ok"
    assert time.monotonic() - begun >= 2
    for late in ("3600", format_datetime(datetime.now(timezone.utc) + timedelta(hours=1))):
        loopback.will(Reply(status=429, headers={"retry-after": late}))
        heard = len(loopback.heard)
        assert "the server answers 429" in str(refused(loopback.origin, timeout=20))
        assert len(loopback.heard) == heard + 1


def test_a_connection_that_breaks_is_made_again(loopback: Loopback) -> None:
    loopback.will(Reply(cut=True), Reply(chunks=[b"half"], cut=True), Reply(body=b"whole"))
    assert get(loopback.origin) == b"whole"


def test_silence_for_half_of_the_time_is_asked_again(loopback: Loopback) -> None:
    loopback.will(Reply(chunks=[b"x"], pause=60), Reply(body=b"ok"))
    assert get(loopback.origin, timeout=4) == b"ok"


def test_servers_that_are_not_there_or_break_off(loopback: Loopback) -> None:
    loopback.will(Reply(cut=True))
    assert "cannot be fetched" in str(refused(loopback.origin))
    with socket.socket() as bound:  # so that nobody else comes to listen there
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert "cannot be fetched" in str(refused(f"http://127.0.0.1:{port}/?key=secret"))
    assert "is not known" in str(refused("http://no-such-host.invalid/?key=secret", timeout=5))


def test_a_server_is_told_who_asks(loopback: Loopback) -> None:
    loopback.will(Reply(body=PICTURE))
    get(loopback.origin)
    prepare(
        loopback.origin, fetch=fetch, allow_private_urls=True, user_agent="museum/1 (me@museum.org)"
    )
    ours, set_by_caller = (heard.headers["user-agent"] for heard in loopback.heard)
    assert ours.startswith("internvl-modal/")
    assert "(+https://pypi.org/project/internvl-modal/)" in ours
    assert set_by_caller == "museum/1 (me@museum.org)"


@pytest.mark.parametrize("url", ["http://host:99999/", "http://[x/", "https://a b/"])
def test_urls_that_are_none(url: str) -> None:
    refused(url)


@pytest.mark.parametrize("url", ["http://", "http:///scene.png"])
def test_urls_without_a_host(url: str) -> None:
    assert "a URL without a host" in str(refused(url))


def test_proxies_of_the_environment_are_not_used(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    loopback.will(Reply(body=b"ok"))
    assert get(loopback.origin) == b"ok"


def test_a_web_page_is_no_picture(loopback: Loopback) -> None:
    loopback.will(lambda _: Reply(body="<!DOCTYPE html><p>Log in</p>"))
    with pytest.raises(ImageError, match="a web page") as caught:
        prepare(f"{loopback.origin}/cat.jpg", fetch=fetch, allow_private_urls=True)
    assert caught.value.source == f"{loopback.origin}/cat.jpg"


def test_a_certificate_is_checked_for_the_name_not_the_address(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake names the host (SNI), although the connection goes to an address."""
    names: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=record_name, args=(listener, names))
        thread.start()
        error = refused(f"https://localhost:{port}/?key=secret")
        thread.join()
    assert names == ["localhost"]
    assert "cannot be fetched" in str(error)


def record_name(listener: socket.socket, names: list[str]) -> None:
    """Read the name asked for in a TLS handshake, then refuse it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def named(_: Any, name: str | None, __: Any) -> int:
        names.append(name or "")
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = named
    connection = listener.accept()[0]
    with connection:
        incoming.write(connection.recv(8192))
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        try:
            tls.do_handshake()
        except ssl.SSLError:
            connection.sendall(outgoing.read())
