"""Write the table in docs/servers.md: a row a server, each of them asked through the client.

Servers that run here are asked themselves, by the suite that starts them; the others answer as
``tests/servers/answers.py`` quotes them. Run from the repository's root as
``python -m tools.servers_table``; needs the environments of ``tests/vllm`` and
``tests/conformance``.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import httpx
from PIL import Image
from pydantic import BaseModel

import internvl_modal as ivl
from internvl_modal.backends.local import LocalBackend
from internvl_modal.models.families import SYSTEM_MESSAGE
from internvl_modal.protocol.dialects.registry import SERVERS, dialect_of
from internvl_modal.protocol.endpoint import Capabilities
from tests.conformance.environment import NEW, OLD
from tests.conformance.serving import Servers
from tests.llamacpp.conftest import Engine
from tests.loopback import Heard, Loopback, Reply
from tests.servers import answers
from tests.servers.answers import chat, listed, used
from tests.tiny_model import REAL_TILE, write_tiny_model
from tests.vllm.server import serving

PAGE = Path(__file__).parents[1] / "docs" / "servers.md"
BEGIN, END = "<!-- servers: begin -->\n", "<!-- servers: end -->"
COLUMNS = (
    *(
        "Server",
        "Told by",
        "System message",
        "`detail`",
        "Typed answers",
        "Fewer tokens than tiles",
    ),
    *("Stop strings", "What it cannot", "Shown by"),
)
PICTURE = Image.effect_noise((1344, 896), 60).convert("RGB")
INTERNVL = "OpenGVLab/InternVL3-8B"

CANNOT = {
    "lmdeploy": "hold an answer to a schema on TurboMind; refuse a bad picture (it sees a black "
    "one instead)",
    "lmdeploy-0.13": "say which picture was bad; choose the tiles of an `-HF` repository",
    "vllm": "choose tiles by request unless it was started with `--trust-request-mm-kwargs`; say "
    "what limit it was started with",
    "llamacpp": "cut by InternVL's rule (its own is known); say that a model is not the one it "
    "runs",
    "sglang": "say which of two equally good grids it takes",
    "ollama": "prove a picture where it leaves `usage` out; keep several pictures beside their "
    "labels for certain, since it makes messages of the parts",
    "lmstudio": "say which engine runs, so that its tiles are a guess",
    "llama-swap": "say what stands behind it, so that its tiles are a guess",
    "openai": "say what it is, so that its tiles are a guess",
    "gateway": "label the frames of a video as frames; take more than 16 pictures at once",
}
"""What the suites found."""


class Sign(BaseModel):
    """What is read from the picture."""

    round: Literal[True]


class Recorder(httpx.HTTPTransport):
    """Keeps what is asked for an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, Any]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Note the body, and send it on."""
        if request.method == "POST":
            self.asked.append(json.loads(request.read()))
        return super().handle_request(request)


def row(
    name: str, shown: str, url: str, *, key: str | None = None, model: str | None = None
) -> str:
    """The row of the server at ``url``, which is asked four times."""
    recorder = Recorder()
    with (
        httpx.Client(transport=recorder) as http,
        ivl.Client(base_url=url, api_key=key, model=model, http_client=http) as client,
    ):
        known = client._run(client._core.ready()).capabilities
        client.describe(PICTURE, max_tokens=4)
        system = _system(recorder.asked[-1])
        described = client.describe(PICTURE, detail=1, max_tokens=4)
        limit = _limit(recorder.asked[-1], described)
        recorder.asked.clear()
        _extract(client)
    cells = (
        *(name, _told(known.dialect), system, limit, _typed(recorder.asked, known)),
        *(_fewer(known), _stops(known), CANNOT[known.dialect], f"`{shown}`"),
    )
    return f"| {' | '.join(cells)} |\n"


def _told(dialect: str) -> str:
    """What the server says of itself."""
    for owner, versions in SERVERS.items():
        names = [each.name for each in versions]
        if dialect in names and owner is not None:
            later = " and a JSON body of `/health`" if names.index(dialect) else ""
            return f"`owned_by` {json.dumps(owner)}{later}"
    return "anything else, or nothing"


def _system(asked: dict[str, Any]) -> str:
    first = asked["messages"][0]
    return "InternVL's own" if first["content"] == SYSTEM_MESSAGE else "none is sent"


def _limit(asked: dict[str, Any], described: ivl.Description) -> str:
    """Where the request with one tile says so, or how it gets it without."""
    parts = [part["image_url"] for part in asked["messages"][-1]["content"] if "image_url" in part]
    (info,) = described.images
    assert info.tiles == 1
    if "mm_processor_kwargs" in asked:
        return "one for the whole request (`mm_processor_kwargs`)"
    for field in ("max_dynamic_patch", "detail"):
        if field in parts[0]:
            return f"with each picture (`{field}`)"
    assert (info.sent_width, info.sent_height) != PICTURE.size
    return "the picture is shrunk to fit"


def _extract(client: ivl.Client) -> None:
    with suppress(ivl.OutputInvalidError):  # random weights
        client.extract(PICTURE, Sign, repairs=0, max_tokens=40)


def _typed(asked: list[dict[str, Any]], known: Capabilities) -> str:
    held = "response_format" in asked[0]
    assert held == (known.json_schema is not False)
    if not held:
        return "asked for in the prompt"
    return "held to the schema" if known.json_schema else "tried with the schema, once"


def _fewer(known: Capabilities) -> str:
    if known.dialect == "gateway":
        return "checked by the gateway"
    return "a warning: its limit is a guess" if known.assumed else "`ImageNotSeenError`"


def _stops(known: Capabilities) -> str:
    most = dialect_of(known).most_stops
    return "8" if most is None else f"{most} are sent; the rest is cut here"


def scripted() -> list[str]:
    """Rows of the servers that cannot run here."""
    gateway = {"object": "list", "data": [listed(INTERNVL, "internvl-modal")]}
    swap = {"object": "list", "data": [listed(INTERNVL, "llama-swap")]}
    suite = "tests/servers"
    return [
        _scripted("SGLang 0.5", suite, answers.SGLANG_MODELS),
        _scripted("Ollama", suite, answers.OLLAMA_MODELS),
        _scripted("LM Studio 0.3", suite, answers.LMSTUDIO_MODELS),
        _scripted("llama-swap", suite, swap),
        _scripted("OpenRouter, Together, TGI and others", suite, answers.OPENROUTER_MODELS),
        _scripted("this package's gateway", "tests/test_gateway.py", gateway, seen="confirmed"),
    ]


def _scripted(name: str, suite: str, models: dict[str, Any], **more: object) -> str:
    def answer(heard: Heard) -> Reply:
        return Reply(body={**chat('{"round": true}', usage=used(13 * 256 + 90)), **more})

    with Loopback() as loopback:
        loopback.models = Reply(body=models)
        loopback.will(answer)
        return row(name, suite, loopback.url)


def lmdeploy(servers: Servers) -> list[str]:
    """Rows of both LMDeploys."""
    served = {OLD: "InternVL2_5-78B", NEW: "InternVL3-8B"}
    labels = {OLD: f"LMDeploy {OLD}", NEW: f"LMDeploy 0.13 and later ({NEW})"}
    found = []
    for version, label in labels.items():
        front = servers.get(version, served[version])
        found.append(row(label, "tests/conformance", front.url, key=front.key))
    return found


def vllm(url: str) -> str:
    """The row of a vLLM with the settings that people leave alone."""
    return row("vLLM 0.32", "tests/vllm", url)


def llamacpp(engine: Engine) -> str:
    """The row of the bundled llama.cpp."""
    shown = "tests/llamacpp"
    return row("llama.cpp", shown, engine.url, key=engine.key, model="internvl2_5-1b")


def page_holds(rows: list[str]) -> bool:
    """Whether the page's table has all of ``rows``."""
    return set(rows) <= set(lines())


def lines() -> list[str]:
    """The page's table."""
    table = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].partition(END)[0]
    return table.splitlines(keepends=True)


def write(rows: list[str]) -> None:
    """Put the table between its marks in the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + head + "".join(rows) + END + after, encoding="utf-8")


def main() -> None:
    """Start the servers one after the other, ask them, write the page."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with Servers(folder) as servers:
            rows = lmdeploy(servers)
        with serving(folder) as server:
            rows.append(vllm(server.url))
        model = write_tiny_model(folder, name="internvl-tiny", tile=REAL_TILE)
        backend = LocalBackend(model)
        engine = Engine.of(backend)
        others = scripted()
        rows += [others[0], llamacpp(engine), *others[1:]]
        engine.close()
        backend.stop()
    write(rows)


if __name__ == "__main__":
    main()
