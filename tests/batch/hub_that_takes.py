"""A Hub on loopback that takes data sets: what huggingface_hub asks of it when one is pushed."""

from __future__ import annotations

import base64
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

SHA = "0" * 40


class Hub:
    """Keeps the files of one data set; ``refuse`` answers every upload with a 403."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refuse = refuse
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, body: bytes) -> None:
        """Take the files of a commit: small ones are in it, others were uploaded before."""
        for raw in body.splitlines():
            line = json.loads(raw)
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.objects[value["oid"]]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.refuse and self.command != "GET":
            return self._send(403, {"error": "Forbidden: no rights to write there"})
        for method, pattern, answer in ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                return answer(self, body, *found.groups())
        return self._send(404, {"error": "not found"}, code="EntryNotFound")

    do_GET = do_POST = do_PUT = do_HEAD = _serve

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _send(self, status: int, document: Any = None, *, code: str = "", raw: bytes = b"") -> None:
        data = raw or json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("x-repo-commit", SHA)
        self.send_header("etag", f'"{hash(data):x}"')
        if code:
            self.send_header("x-error-code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def who(self, body: bytes) -> None:
        self._send(200, {"name": "me", "type": "user", "orgs": [], "auth": {}})

    def create(self, body: bytes) -> None:
        name = json.loads(body)["name"]
        self._send(200, {"url": f"{self.hub.url}/datasets/me/{name}", "name": f"me/{name}"})

    def info(self, body: bytes, _: str = "") -> None:
        siblings = [{"rfilename": name} for name in self.hub.files]
        self._send(200, {"id": "me/captions", "sha": SHA, "siblings": siblings, "tags": []})

    def tree(self, body: bytes, _: str, folder: str | None) -> None:
        files = [
            {"type": "file", "path": name, "size": len(data), "oid": SHA}
            for name, data in self.hub.files.items()
            if name.startswith(folder or "")
        ]
        if folder and not files:
            return self._send(404, {"error": "no such folder"}, code="EntryNotFound")
        return self._send(200, files)

    def preupload(self, body: bytes) -> None:
        given = json.loads(body)["files"]
        modes = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(".parquet") else "regular",
                "shouldIgnore": False,
            }
            for each in given
        ]
        self._send(200, {"files": modes})

    def batch(self, body: bytes) -> None:
        objects = [
            {
                "oid": each["oid"],
                "size": each["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}},
            }
            for each in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        self.hub.objects[oid] = body
        self._send(200, {})

    def committed(self, body: bytes) -> None:
        self.hub.commit(body)
        url = f"{self.hub.url}/datasets/me/captions/commit/{SHA}"
        self._send(200, {"success": True, "commitOid": SHA, "commitUrl": url})

    def paths(self, body: bytes) -> None:
        self._send(200, [])

    def resolve(self, body: bytes, _: str, name: str) -> None:
        if name in self.hub.files:
            return self._send(200, raw=self.hub.files[name])
        return self._send(404, {"error": "Entry not found"}, code="EntryNotFound")

    def checked(self, body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


_NAME = r"/api/datasets/me/captions"
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/api/whoami-v2", _Handler.who),
    ("POST", "/api/repos/create", _Handler.create),
    ("GET", _NAME, _Handler.info),
    ("GET", rf"{_NAME}/revision/(.+)", _Handler.info),
    ("GET", rf"{_NAME}/tree/([^/]+)(?:/(.+))?", _Handler.tree),
    ("POST", rf"{_NAME}/paths-info/.+", _Handler.paths),
    ("POST", rf"{_NAME}/preupload/main", _Handler.preupload),
    ("POST", rf"{_NAME}/commit/main", _Handler.committed),
    ("POST", r"/datasets/me/captions\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/lfs/(\w+)", _Handler.put),
    ("POST", "/api/validate-yaml", _Handler.checked),
    ("GET", r"/datasets/me/captions/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("HEAD", r"/datasets/me/captions/resolve/([^/]+)/(.+)", _Handler.resolve),
]
