"""Proxies and certificates of the environment: never for this machine, and told where they err."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

import internvl_modal as ivl
from internvl_modal.transport.environment import is_local, proxy_for
from tests.loopback import Loopback
from tests.transport.conftest import Ask, Raw
from tests.transport.test_bounds import answer

BROKEN = [
    {"ALL_PROXY": "socks5://127.0.0.1:1"},
    {"ALL_PROXY": "socks://127.0.0.1:1/"},
    {"HTTP_PROXY": "socks5h://127.0.0.1:1"},
    {"HTTP_PROXY": "http://:nonsense:"},
    {"NO_PROXY": "localhost,fe80::/10"},
    {"NO_PROXY": "[::1]"},
    {"SSL_CERT_FILE": "/nonexistent.pem"},
    {"SSL_CERT_DIR": "/nonexistent"},
]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_proxy", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variables", BROKEN)
def test_a_server_on_this_machine_needs_none_of_it(
    ask: Ask, loopback: Loopback, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ask(loopback.url).text == "A cat."
    assert ask(loopback.url.replace("127.0.0.1", "localhost")).text == "A cat."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "ftp://127.0.0.1:1"),
        ("all_proxy", "http://127.0.0.1:99999"),
        ("HTTP_PROXY", "http://user:hidden@"),
        ("http_proxy", "socks6://127.0.0.1:1"),
    ],
)
def test_elsewhere_a_proxy_that_is_none_is_told_by_its_variable(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ivl.ConfigError, match=f"^{name} is not") as caught:
        ask("http://elsewhere.test/v1")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "/nonexistent")
    with pytest.raises(ivl.ConfigError, match=name):
        ask("https://elsewhere.test/v1")


def test_a_file_without_certificates(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(ivl.ConfigError, match="SSL_CERT_FILE holds no"):
        ask("https://elsewhere.test/v1")


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.9.9.9", "::1", "0.0.0.0"])
def test_what_is_this_machine(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", ["localhost.test", "10.0.0.1", "example.org", "fe80::1", ""])
def test_what_is_not(host: str) -> None:
    assert not is_local(host)


@pytest.mark.parametrize(
    ("url", "through"),
    [
        ("http://a.test/v1", True),
        ("http://b.inside/v1", False),
        ("http://10.1.2.3/v1", False),
        ("http://11.1.2.3/v1", True),
        ("http://[fe80::1]/v1", False),
        ("https://a.test/v1", False),
    ],
)
def test_who_goes_through(monkeypatch: pytest.MonkeyPatch, url: str, through: bool) -> None:
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:3128")
    monkeypatch.setenv("NO_PROXY", ".inside, 10.0.0.0/8, fe80::/10, [::1]")
    assert proxy_for(url) == ("http://127.0.0.1:3128" if through else None)


def socks5(connection: socket.socket, greeting: bytes) -> tuple[str, int]:
    """Speak RFC 1928 as far as CONNECT; where to."""
    assert greeting[0] == 5
    connection.sendall(b"\5\0")
    _, _, _, kind = connection.recv(4)
    host = connection.recv(connection.recv(1)[0]).decode() if kind == 3 else ""
    host = host or socket.inet_ntoa(connection.recv(4))
    port = struct.unpack(">H", connection.recv(2))[0]
    connection.sendall(b"\5\0\0\1\0\0\0\0\0\0")
    return host, port


@pytest.mark.parametrize("scheme", ["socks5h", "socks"])
def test_socks(ask: Ask, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    pytest.importorskip("aiohttp_socks", reason="pip install 'internvl-modal[socks]'")
    asked: list[tuple[str, int]] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        import threading

        def serve() -> None:
            connection = listening.accept()[0]
            with connection:
                asked.append(socks5(connection, connection.recv(3)))
                head = connection.recv(65536)
                assert head.startswith(b"POST /v1/chat/completions ")
                connection.sendall(answer())

        serving = threading.Thread(target=serve)
        serving.start()
        proxy = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("ALL_PROXY", proxy)
        host = "elsewhere.test" if scheme == "socks5h" else "192.0.2.1"
        assert ask(f"http://{host}:8000/v1").text == "fine"
        serving.join()
    assert asked == [(host, 8000)]


def test_without_its_extra_socks_is_told(raw: Raw, tmp_path: Path) -> None:
    import subprocess
    import sys

    script = """
import sys; sys.modules["aiohttp_socks"] = None
import internvl_modal as ivl
client = ivl.Client(base_url="http://elsewhere.test/v1", capabilities=ivl.Capabilities(), model="m")
try: client.chat([{"role": "user", "text": "?"}])
except ivl.ConfigError as error: print(error)
"""
    environment = {"ALL_PROXY": "socks5://127.0.0.1:1", "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert "internvl-modal[socks]" in done.stdout


def test_trio_is_told() -> None:
    trio = pytest.importorskip("trio", reason="pip install trio")

    async def run() -> None:
        async with ivl.AsyncClient(base_url="http://127.0.0.1:9/v1", model="m") as client:
            await client.chat([{"role": "user", "text": "?"}])

    with pytest.raises(ivl.ConfigError, match="asyncio"):
        trio.run(run)
