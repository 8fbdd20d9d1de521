"""LMDeploy's own command, started with its own arguments, and what its stand-in knows."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

import internvl_modal as ivl
from tests.conformance.environment import NEW, OLD, lmdeploy_executable

SESSION_LEN = 8192
"""Tokens; what LMDeploy's documentation serves InternVL with."""


@dataclass(frozen=True)
class SeenImage:
    """One picture as it reached the generator."""

    size: tuple[int, int]
    """Pixels, as LMDeploy's loader read it; (0, 0) of ``-HF`` repositories, where it is not kept."""
    tiles: NDArray[np.uint8]
    """(tiles, 16, 16, 3): the mean colours of each tile's 28x28 patches; the last of several is
    the thumbnail of the whole picture."""

    @property
    def grid(self) -> NDArray[np.uint8]:
        """The whole picture in 16x16 colours."""
        whole: NDArray[np.uint8] = self.tiles[-1]
        return whole


@dataclass(frozen=True)
class Seen:
    """One request as it reached the generator."""

    prompt: str
    """After the chat template."""
    prompt_tokens: int
    sampling: dict[str, object]
    images: list[SeenImage] = field(repr=False)
    response_format: dict[str, Any] | None = None

    @property
    def turns(self) -> list[tuple[str, str]]:
        """The rendered prompt as (role, text) pairs, without the answer that is to be written."""
        parts = self.prompt.split("<|im_start|>")
        assert parts[0] == ""
        pairs = [part.partition("\n")[::2] for part in parts[1:]]
        assert pairs.pop() == ("assistant", "")
        assert all(text.endswith("<|im_end|>\n") for _, text in pairs)
        return [(role, text.removesuffix("<|im_end|>\n")) for role, text in pairs]


@dataclass
class Front:
    """A running LMDeploy front end and what its stand-in for the engine knows."""

    url: str
    key: str
    model: str
    client: ivl.Client
    version: str = OLD

    @classmethod
    def of(cls, backend: ivl.Backend, client: ivl.Client) -> Front:
        """The server that ``backend`` runs."""
        endpoint = backend.start()
        key = endpoint.headers["authorization"].removeprefix("Bearer ")
        assert endpoint.model is not None
        return cls(endpoint.base_url, key, endpoint.model, client)

    @property
    def mark(self) -> str:
        """What stands for a picture in the rendered prompt."""
        return f"<img>{'<IMAGE_TOKEN>' if self.version == OLD else '<IMG_CONTEXT>'}</img>"

    def seen(self) -> Seen:
        """The only request since this was last asked."""
        (report,) = self.reports()
        images = [
            SeenImage(
                tuple(image["size"] or (0, 0)),
                np.array(image["tiles"], np.uint8).reshape(-1, 16, 16, 3),
            )
            for image in report.pop("images")
        ]
        return Seen(images=images, **report)

    def next(self, **behaviour: object) -> None:
        """Say how the next request is answered; see ``Behaviour`` of the stand-in."""
        self._standin("POST", "next", json=behaviour)

    def forget(self) -> None:
        """Start as if nothing had been asked or said yet."""
        self._standin("POST", "forget")

    def reports(self) -> list[dict[str, Any]]:
        """The requests since this was last asked, oldest first."""
        reports = self._standin("GET", "seen").json()
        assert isinstance(reports, list)
        return reports

    def get(self, path: str, *, key: bool) -> httpx.Response:
        """Any path of the server, with the key or without."""
        return httpx.get(self._root + path, headers=self._authorization if key else {}, timeout=60)

    def post(self, document: object, **headers: str) -> httpx.Response:
        """A chat completion request as it is, without our client."""
        headers = self._authorization | headers
        url = f"{self.url}/chat/completions"
        return httpx.post(url, json=document, headers=headers, timeout=60)

    def ask(self, content: object, **more: object) -> httpx.Response:
        """A chat completion request of one user's turn, without our client."""
        messages = [{"role": "user", "content": content}]
        return self.post({"model": self.model, "messages": messages} | more)

    @property
    def _root(self) -> str:
        return self.url.removesuffix("/v1")

    @property
    def _authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def _standin(self, method: str, what: str, **given: Any) -> httpx.Response:
        url = f"{self._root}/_standin/{what}"
        reply = httpx.request(method, url, headers=self._authorization, timeout=60, **given)
        return reply.raise_for_status()


class Servers(ExitStack):
    """Front ends as people start them, each once, when it is first asked for."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._place = place
        self._fronts: dict[tuple[str, str], Front] = {}

    def get(self, version: str, repository: str) -> Front:
        """The one of that version and repository, with nothing left over from before."""
        if (version, repository) not in self._fronts:
            folder = self._place / version / repository
            folder.mkdir(parents=True)
            started = serving(version, folder, folder.with_name(f"{repository}.log"))
            self._fronts[version, repository] = self.enter_context(started)
        front = self._fronts[version, repository]
        front.forget()
        return front


@contextmanager
def serving(version: str, folder: Path, log: Path) -> Iterator[Front]:
    """``lmdeploy serve api_server`` of ``folder``, as a person would start that version."""
    key = secrets.token_hex(12)  # a dash first would be an option
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(lmdeploy_executable(version)), "serve", "api_server", str(folder)]
    command += [
        "--server-name",
        "127.0.0.1",
        "--server-port",
        str(port),
        "--session-len",
        str(SESSION_LEN),
        "--tp",
        "4",
    ]
    name = folder.name.lower().removesuffix("-first")
    command += ["--max-batch-size", "8", "--model-name", name, "--api-keys", key]
    if version != NEW:
        command += ["--chat-template", "internvl2_5"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=offline)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        _wait(process, url.replace("/v1", "/health"), log)
        with ivl.Client(base_url=url, api_key=key, retry=ivl.Retry(attempts=1)) as client:
            yield Front(url, key, name, client, version)
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return once the server answers."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url, timeout=10).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"LMDeploy did not start:\n{log.read_text(errors='replace')[-4000:]}")
