"""How much bad requests delay good ones at the gateway: ``python benchmarks/gateway.py [SECONDS]``.

The gateway (``internvl-modal serve``) runs in a process of its own, in front of a server that
answers at once; a second process sends bad requests at a rate, of seven kinds, over connections
that it keeps. One good request with a picture follows the other, first alone, then beside them.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

KEY = "benchmark-key"
RATES = (0, 250, 500, 1000)
"""Bad requests a second."""
CONNECTIONS = 32


class Model(BaseHTTPRequestHandler):
    """A server that has seen a picture, whatever it was."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The list of models."""
        self._say({"data": [{"id": "internvl2_5-1b", "owned_by": "vllm"}]})

    def do_POST(self) -> None:
        """An answer."""
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "A street."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5000, "completion_tokens": 3, "total_tokens": 5003}
        self._say({"id": "1", "model": "internvl2_5-1b", "choices": [choice], "usage": usage})

    def _say(self, document: object) -> None:
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        self.wfile.write(head + body)  # in one piece, or TCP waits 40 ms between the two

    def log_message(self, *_: object) -> None:
        """Nothing."""


def picture(format: str, size: tuple[int, int] = (640, 480)) -> bytes:
    """A file of ``format``."""
    out = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert("RGB").save(out, format)
    return out.getvalue()


def request(body: bytes, path: str = "/", key: str = KEY) -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def described(data: bytes) -> bytes:
    """The body that asks for the description of a picture."""
    return json.dumps({"image_data": base64.b64encode(data).decode()}).encode()


def bad() -> list[bytes]:
    """One of each kind; all but the last two are refused by their first bytes."""
    whole = picture("JPEG")
    chat = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 7}]}]}
    return [
        request(described(b"no picture" * 2000)),
        request(b'{"image_data": "%%%"}'),
        request(b'{"image_data": '),
        request(json.dumps(chat).encode(), "/v1/chat/completions"),
        request(described(whole), key="wrong"),
        request(described(whole[: len(whole) // 2])),
        request(described(picture("PNG")[:3000])),
    ]


def flood(port: int, rate: int, counted: multiprocessing.sharedctypes.Synchronized[int]) -> None:
    """Send bad requests until the process is ended."""

    async def connection(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = time.monotonic() + number / rate
        for data in itertools.islice(itertools.cycle(bad()), number, None):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += CONNECTIONS / rate
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            if int(head.split()[1]) not in (400, 401, 422):
                raise SystemExit(f"not refused: {head!r}")
            counted.value += 1

    async def run() -> None:
        await asyncio.gather(*map(connection, range(CONNECTIONS)))

    asyncio.run(run())


@contextmanager
def gateway() -> Iterator[tuple[int, int]]:
    """Port and process id of a gateway in front of ``Model``."""
    model = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    serving = multiprocessing.get_context("fork").Process(target=model.serve_forever, daemon=True)
    serving.start()
    url = f"http://127.0.0.1:{model.server_address[1]}/v1"
    command = [sys.executable, "-m", "internvl_modal", "serve", "--backend", url, "--port", "0"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "INTERNVL_MODAL_GATEWAY_KEY": KEY},
    )
    try:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "listening on" in line)
        # Its log is read on, or it would wait for room in the pipe.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield urlsplit(said.split()[-1]).port or 0, process.pid
    finally:
        process.terminate()
        process.wait()
        serving.terminate()


def processor_time(pid: int) -> float:
    """Seconds of a process so far, in user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def good(port: int, seconds: float) -> list[float]:
    """Milliseconds of one good request after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body, taken = described(picture("JPEG")), []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.monotonic()
        connection.request(
            "POST",
            "/",
            body,
            {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        assert "A street." in answer.read().decode(), answer.status
        taken.append(1000 * (time.monotonic() - begun))
        time.sleep(0.02)
    return taken


def main() -> None:
    """Print a row for each rate."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    processes = multiprocessing.get_context("spawn")
    print("bad requests/s | reached | good ones | p50 ms | p95 ms | cores")
    with gateway() as (port, pid):
        good(port, 1)
        for rate in RATES:
            counted = processes.Value("q", 0)
            sender = processes.Process(target=flood, args=(port, rate, counted), daemon=True)
            if rate:
                sender.start()
                while counted.value < rate and sender.is_alive():
                    time.sleep(0.1)
            before, begun, spent = counted.value, time.monotonic(), processor_time(pid)
            taken = sorted(good(port, seconds))
            reached = (counted.value - before) / (time.monotonic() - begun)
            if rate:
                assert sender.is_alive()
                sender.terminate()
                sender.join()
            cpu = (processor_time(pid) - spent) / (time.monotonic() - begun)
            p95 = taken[int(0.95 * len(taken))]
            median = statistics.median(taken)
            print(
                f"{rate} | {reached:.0f} | {len(taken)} | {median:.1f} | {p95:.1f} | {cpu:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
