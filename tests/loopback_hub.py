"""A Hugging Face Hub on 127.0.0.1: commits, LFS and Xet files, ranges, and faults to switch on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub_tree import entries

BLOCK = 64 * 1024


@dataclass(frozen=True)
class HubFile:
    """One file; LFS files have a sha256 as their identity, others a git blob's sha1."""

    content: bytes | Path
    lfs: bool
    xet_hash: str | None = None

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    @cached_property
    def git_oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % self.size + self.read()).hexdigest()

    @cached_property
    def oid(self) -> str:
        return hashlib.sha256(self.read()).hexdigest() if self.lfs else self.git_oid


@dataclass
class Fault:
    """What goes wrong for requests whose path matches, ``times`` times, then no more."""

    path: str
    method: str = "GET"
    times: int = 1_000_000
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    cut_after: int | None = None
    stall_after: int | None = None
    change: Callable[[bytes], bytes] | None = None
    then: Callable[[], object] | None = None


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    start: int
    headers: Mapping[str, str]


class LoopbackHub:
    """Serve between ``with`` and its end; ``rate`` is bytes per second over all connections."""

    def __init__(self, *, token: str | None = None, rate: float | None = None) -> None:
        self.token, self.rate = token, rate
        self.gated: set[str] = set()
        self.refused: set[str] = set()
        self.commits: dict[str, dict[str, dict[str, HubFile]]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.sent: dict[str, int] = {}
        self.cas: str | None = None
        self.left: float = float("inf")
        self.lock, self.over = threading.Lock(), threading.Event()
        self.closing = threading.Event()
        self._infos: dict[str, list[dict[str, Any]]] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.url, self.cdn = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(
        self, repo: str, files: Mapping[str, bytes | Path | HubFile], branch: str = "main"
    ) -> str:
        """Add a commit that holds exactly ``files`` and move ``branch`` to it.

        Files of more than 1,000 bytes are LFS files.
        """
        made = {
            path: file if isinstance(file, HubFile) else HubFile(file, lfs=_size(file) > 1000)
            for path, file in files.items()
        }
        content = repr(sorted((path, file.oid) for path, file in made.items()))
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.commits.setdefault(repo, {})[commit] = made
        self.branches.setdefault(repo, {})[branch] = commit
        self.siblings(repo, commit)
        return commit

    def resolve(self, repo: str, revision: str) -> str | None:
        commit = self.branches[repo].get(revision, revision)
        return commit if commit in self.commits[repo] else None

    def siblings(self, repo: str, commit: str) -> list[dict[str, Any]]:
        """The file list, worked out once: a fault may change what is served, never this."""
        if commit not in self._infos:
            self._infos[commit] = [
                _sibling(path, file) for path, file in self.commits[repo][commit].items()
            ]
        return self._infos[commit]

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def allow(self, left: float) -> None:
        """End every transfer; those that begin now get so many bytes together, then wait."""
        with self.lock:
            self.over.set()
            self.left, self.over = left, threading.Event()

    def may_send(self, count: int, over: threading.Event) -> bool:
        """Whether a transfer that began with ``over`` may send so many bytes more."""
        with self.lock:
            if over.is_set() or self.left < count:
                return False
            self.left -= count
            return True

    def downloads(self, pattern: str = "") -> list[Request]:
        """The requests for file contents so far."""
        return [r for r in self.requests if r.method == "GET" and _is_content(r.path, pattern)]


def _is_content(path: str, pattern: str) -> bool:
    return ("/resolve/" in path or path.startswith("/cdn/")) and re.search(
        pattern, path
    ) is not None


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _sibling(path: str, file: HubFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": path, "size": file.size, "blobId": file.git_oid}
    if file.lfs:
        entry["lfs"] = {"sha256": file.oid, "size": file.size, "pointerSize": 135}
    return entry


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients that are killed break their connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        match = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.requests.append(Request(self.command, path, start, headers))
        fault = self.hub.take_fault(self.command, path)
        if fault and fault.then:
            fault.then()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.headers.get("Authorization", "").removeprefix("Bearer ") in self.hub.refused:
                self._text(
                    401, "", {"X-Error-Message": "Invalid credentials in Authorization header"}
                )
            elif fault and fault.status:
                self._text(fault.status, fault.body, dict(fault.headers))
            elif found := re.match(
                r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/([\w-]+))?(?:/([^/]+))?(?:/(.+))?", path
            ):
                self._api(found[1], found[2], found[3] or "main", found[4] or "")
            elif found := re.match(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._resolve(found[1], found[2], found[3], start, fault)
            elif found := re.match(r"/cdn/([^/]+/[^/]+)/(\w+)/(.+)", path):
                self._content(self.hub.commits[found[1]][found[2]][found[3]], path, start, fault)
            else:
                self._text(404, "nothing here", {})

    def _text(self, status: int, body: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body.encode())), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def _refused(self, repo: str) -> bool:
        """Answer as the Hub does where the asker may not see the repository."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        allowed = self.hub.token is None or given == self.hub.token
        if repo in self.hub.gated:
            self._text(403, "", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        elif repo not in self.hub.commits or not allowed:
            status = 404 if allowed else 401
            self._text(status, "", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no repo"})
        else:
            return False
        return True

    def _api(self, repo: str, verb: str | None, revision: str, folder: str) -> None:
        if self._refused(repo):
            return
        if verb == "xet-read-token":
            token = {"accessToken": "xet", "exp": int(time.time()) + 3600, "casUrl": self.hub.cas}
            self._text(200, json.dumps(token), {"Content-Type": "application/json"})
            return
        commit = self.hub.resolve(repo, revision)
        if commit is None:
            self._text(404, "", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = self.hub.siblings(repo, commit)
        answer: object = {"id": repo, "sha": commit, "siblings": siblings, "private": False}
        if verb == "tree":
            answer = entries(siblings, folder, deep="recursive=true" in self.path.lower())
            if answer is None:
                self._text(404, "", {"X-Error-Code": "EntryNotFound"})
                return
        self._text(200, json.dumps(answer), {"Content-Type": "application/json"})

    def _resolve(
        self, repo: str, revision: str, name: str, start: int, fault: Fault | None
    ) -> None:
        if self._refused(repo):
            return
        commit = self.hub.resolve(repo, revision)
        file = self.hub.commits[repo].get(commit or "", {}).get(name)
        if file is None or commit is None:
            code = "EntryNotFound" if commit else "RevisionNotFound"
            self._text(404, "", {"X-Error-Code": code})
            return
        info = next(s for s in self.hub.siblings(repo, commit) if s["rfilename"] == name)
        oid = info["lfs"]["sha256"] if "lfs" in info else info["blobId"]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{oid}"'}
        if file.xet_hash:
            headers["X-Xet-Hash"] = file.xet_hash
            headers["X-Xet-Refresh-Route"] = f"{self.hub.url}/api/models/{repo}/xet-read-token/main"
        if not file.lfs:
            self._content(file, self.path, start, fault, headers)
            return
        headers |= {
            "X-Linked-Etag": f'"{oid}"',
            "X-Linked-Size": str(info["size"]),
            "Location": f"{self.hub.cdn}/cdn/{repo}/{commit}/{name}",
        }
        self._text(302, "", headers)

    def _content(
        self,
        file: HubFile,
        path: str,
        start: int,
        fault: Fault | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        change = fault.change if fault else None
        body = change(file.read()) if change else file.content
        size = len(body) if isinstance(body, bytes) else file.size
        stop = self._range_end(size)
        if start >= size > 0:
            self._text(416, "", {"Content-Range": f"bytes */{size}"})
            return
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(body, path, start, stop, fault)

    def _range_end(self, size: int) -> int:
        match = re.match(r"bytes=\d+-(\d+)", self.headers.get("Range", ""))
        return min(int(match[1]) + 1, size) if match else size

    def _send(
        self, body: bytes | Path, path: str, start: int, stop: int, fault: Fault | None
    ) -> None:
        if isinstance(body, Path) and fault is None and self.hub.rate is None:
            self.wfile.flush()
            with body.open("rb") as file:
                self.connection.sendfile(file, start, stop - start)
            return
        over = self.hub.over
        data = body if isinstance(body, bytes) else body.read_bytes()
        for offset in range(start, stop, BLOCK):
            gone = offset - start
            if fault and fault.cut_after is not None and gone >= fault.cut_after:
                self.close_connection = True
                return
            if fault and fault.stall_after is not None and gone >= fault.stall_after:
                self.hub.closing.wait()
                self.close_connection = True
                return
            block = data[offset : min(offset + BLOCK, stop)]
            if not self.hub.may_send(len(block), over):
                over.wait()
                self.close_connection = True
                return
            self.wfile.write(block)
            with self.hub.lock:
                self.hub.sent[path] = self.hub.sent.get(path, 0) + len(block)
                if self.hub.rate:
                    time.sleep(len(block) / self.hub.rate)
