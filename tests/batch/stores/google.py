"""One bucket of Google Cloud Storage on 127.0.0.1: its JSON API, as far as gcsfs asks it."""

from __future__ import annotations

import email
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "bucket"
_OBJECT = re.compile(rf"(?:/download)?/storage/v1/b/{BUCKET}/o/(.+)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found = _OBJECT.fullmatch(parts.path)
        name = unquote(found[1]) if found else ""
        if parts.path == f"/storage/v1/b/{BUCKET}/o":
            self._json(200, self._listed(query.get("prefix", ""), query.get("delimiter", "")))
        elif name not in self.objects:
            self._json(404, {"error": {"code": 404, "message": "Not Found"}})
        elif query.get("alt") == "media":
            self._bytes(self.objects[name])
        else:
            self._json(200, self._item(name))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = email.message_from_bytes(
            b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
        )
        told, data = (part.get_payload(decode=True) for part in message.get_payload())  # type: ignore[union-attr]
        name = json.loads(told)["name"]  # type: ignore[arg-type]
        self.objects[name] = data  # type: ignore[assignment]
        self._json(200, self._item(name))

    def _item(self, name: str) -> dict[str, Any]:
        size = str(len(self.objects[name]))
        told = {"name": name, "bucket": BUCKET, "size": size, "generation": "1"}
        return {"kind": "storage#object", "id": name, **told}

    def _listed(self, prefix: str, delimiter: str) -> dict[str, Any]:
        items, prefixes = [], set()
        for name in sorted(self.objects):
            if name.startswith(prefix):
                head, mark, _ = name.removeprefix(prefix).partition(delimiter or "\0")
                if mark:
                    prefixes.add(f"{prefix}{head}{mark}")
                else:
                    items.append(self._item(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}

    def _bytes(self, data: bytes) -> None:
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        stop = min(int(asked[2]) + 1, len(data)) if asked and asked[2] else len(data)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self._end(data[start:stop], "application/octet-stream")

    def _json(self, status: int, document: dict[str, Any]) -> None:
        self.send_response(status)
        self._end(json.dumps(document).encode(), "application/json")

    def _end(self, body: bytes, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def storage() -> Iterator[str]:
    """The URL of an empty bucket, for ``STORAGE_EMULATOR_HOST``."""
    handler = type("Handler", (_Handler,), {"objects": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
