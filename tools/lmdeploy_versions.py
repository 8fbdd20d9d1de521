"""Write the tables in docs/lmdeploy.md: what LMDeploy 0.7.3 and 0.18.0 answer to the same.

Run from the repository's root as ``python -m tools.lmdeploy_versions``; needs the environments of
``tests/conformance``.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.conformance.environment import NEW, OLD
from tests.conformance.pictures import encoded
from tests.conformance.serving import SESSION_LEN, Front, Servers
from tests.conformance.standin.prompts import INTERNVL, QWEN

PAGE = Path(__file__).parents[1] / "docs" / "lmdeploy.md"
SERVED = {OLD: "InternVL2_5-78B", NEW: "InternVL3-8B"}
REPOSITORIES = {
    "InternVL 2.5 and 3": "InternVL3-8B",
    "InternVL 3, first revision": "InternVL3-8B-first",
    "InternVL 3.5": "InternVL3_5-8B",
    "`-HF`": "InternVL3_5-8B-HF",
}
OWNERS = {INTERNVL: "InternVL's", QWEN: "Qwen's", "": "an empty one", None: "none"}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


Start = Callable[[str, str], Front]
"""The server of a version and a repository."""


def tables(start: Start) -> dict[str, str]:
    """Both tables as Markdown, by the names of their marks in the page."""
    fronts = [start(version, name) for version, name in SERVED.items()]
    rows = [f"| | {OLD} | {NEW} |", "|---|---|---|"]
    for question, answer in ROWS.items():
        cells = [_cell(answer, front) for front in fronts]
        rows.append(f"| {question} | {' | '.join(cells)} |")
    by_repository = [
        f'| Repository, served by {NEW} | no system message | `system: ""` | '
        "tiles of 1344x1344 | `max_dynamic_patch: 1` | `detail: low` |",
        "|---|---|---|---|---|---|",
    ]
    columns = (_system(), _system(""), _tiles(), _tiles(max_dynamic_patch=1), _tiles(detail="low"))
    for label, name in REPOSITORIES.items():
        front = start(NEW, name)
        cells = [_cell(column, front) for column in columns]
        by_repository.append(f"| {label} | {' | '.join(cells)} |")
    return {"versions": "\n".join(rows) + "\n", "repositories": "\n".join(by_repository) + "\n"}


def _cell(answer: Callable[[Front], str], front: Front) -> str:
    front.forget()
    return answer(front).replace("|", "\\|").replace("\n", "↵")


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def _picture(data: bytes, **more: object) -> dict[str, object]:
    url = "data:image/any;base64," + base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url} | more}


def _photo(side: int = 448, **more: object) -> dict[str, object]:
    return _picture(encoded(Image.effect_noise((side, side), 60).convert("RGB"), "JPEG"), **more)


def _half() -> dict[str, object]:
    data = encoded(Image.effect_noise((448, 448), 60).convert("RGB"), "JPEG")
    return _picture(data[: len(data) // 2])


def _said(reply: httpx.Response) -> str:
    """The status, and the text and finish reason, or where the error's message is and what."""
    if "json" not in reply.headers.get("content-type", ""):
        last = reply.text.replace("data: [DONE]", "").rstrip().rpartition("data: ")[2]
        document = json.loads(last) if last.startswith("{") else None
    else:
        document = reply.json()
    if document is None:
        return f"{reply.status_code}"
    if "choices" not in document:
        return f"{reply.status_code}, {_message(document)}"
    (choice,) = document["choices"]
    text = "" if "delta" in choice else f"{choice['message']['content']!r}, "
    return f'{reply.status_code}, {text}"{choice["finish_reason"]}"'


def _message(document: dict[str, Any]) -> str:
    path, value = [], document
    while not isinstance(value, str):
        key = next(k for k in ("message", "error", "detail", 0, "msg") if _has(value, k))
        path.append(str(key))
        value = value[key]
    return f"`{'.'.join(path)}`: {value}"


def _has(value: dict[str, Any] | list[Any], key: str | int) -> bool:
    return key in value if isinstance(value, dict) else key == 0


def _asked(content: object, **more: object) -> Callable[[Front], str]:
    return lambda front: _said(front.ask(content, **more))


def _after(content: object, behaviour: dict[str, object], **more: object) -> Callable[[Front], str]:
    def row(front: Front) -> str:
        front.next(**behaviour)
        return _said(front.ask(content, **more))

    return row


def _handed(what: str, content: object, **more: object) -> Callable[[Front], str]:
    """What reached the engine of a request: one of the sampling parameters."""

    def row(front: Front) -> str:
        front.ask(content, **more).raise_for_status()
        return f"{front.seen().sampling.get(what)}"

    return row


def _rendered(content: object) -> Callable[[Front], str]:
    def row(front: Front) -> str:
        front.ask(content).raise_for_status()
        return f"`{front.seen().turns[-1][1]}`"

    return row


def _health(front: Front) -> str:
    return f"`{front.get('/health', key=False).text}`".replace("``", "nothing")


def _openapi(front: Front) -> str:
    open_to_all = front.get("/openapi.json", key=False).status_code
    paths = front.get("/openapi.json", key=True).json()["paths"]
    messages = "with" if "/v1/messages" in paths else "without"
    return f"{open_to_all} without the key; {messages} `/v1/messages`"


def _wrong_key(front: Front) -> str:
    return _said(front.post({}, authorization="Bearer wrong"))


def _unknown_model(front: Front) -> str:
    return _said(front.ask("?", model="other"))


def _bad_picture(front: Front) -> str:
    reply = front.ask([_text("?"), _picture(b"no picture")])
    if reply.status_code != httpx.codes.OK:
        return _said(reply)
    (image,) = front.seen().images
    assert image.tiles.max() == 0
    return f"200, a black square of {image.size[0]}x{image.size[1]}"


def _tiles(**limit: object) -> Callable[[Front], str]:
    def row(front: Front) -> str:
        front.ask([_text("?"), _photo(1344, **limit)]).raise_for_status()
        return f"{len(front.seen().images[0].tiles)}"

    return row


def _system(*given: str) -> Callable[[Front], str]:
    """Whose system message the prompt has."""
    before = [{"role": "system", "content": text} for text in given]

    def row(front: Front) -> str:
        messages = [*before, {"role": "user", "content": "?"}]
        front.post({"model": front.model, "messages": messages}).raise_for_status()
        return OWNERS[dict(front.seen().turns).get("system")]

    return row


def _schema(front: Front) -> str:
    reply = front.ask("?", response_format=SCHEMA)
    if reply.status_code != httpx.codes.OK:
        return _said(reply)
    assert front.seen().response_format is not None
    return "the grammar reaches the engine"


def _limit(front: Front) -> str:
    front.ask("x" * 7000, max_tokens=7000).raise_for_status()
    seen = front.seen()
    handed = seen.sampling["max_new_tokens"]
    return "lowered to what is left" if handed == SESSION_LEN - seen.prompt_tokens else f"{handed}"


def _seed_0(front: Front) -> str:
    seeds = []
    for _ in range(2):
        front.ask("?", seed=0).raise_for_status()
        seeds.append(front.seen().sampling["random_seed"])
    return "0" if seeds == [0, 0] else "a random one"


TOO_LONG = "x" * 9000
ABORTED = {"fail_after": 4, "fail_status": 8}
FAILED = {"fail_after": 4, "one_by_one": True}

ROWS: dict[str, Callable[[Front], str]] = {
    "body of `GET /health`": _health,
    "`GET /openapi.json`": _openapi,
    "wrong key": _wrong_key,
    "unknown model": _unknown_model,
    "no model": _asked("?", model=None),
    "`top_p: 0`": _asked("?", top_p=0),
    "picture that is none": _bad_picture,
    "half a JPEG": _asked([_text("?"), _half()]),
    "one `<IMAGE_TOKEN>` too many": _asked([_text("<IMAGE_TOKEN>" * 2), _photo()]),
    "prompt longer than the context": _asked(TOO_LONG),
    "prompt longer than the context, streamed": _asked(TOO_LONG, stream=True),
    "engine fails": _after("?", FAILED),
    "engine fails, streamed": _after("?", FAILED, stream=True),
    "engine aborts": _after("?", ABORTED),
    "no text": _after("?", {"text": ""}),
    "`max_tokens` beyond the context": _limit,
    "`response_format` json_schema": _schema,
    "temperature, nothing asked": _handed("temperature", "?"),
    "top_k, nothing asked": _handed("top_k", "?"),
    "`seed: 0`": _seed_0,
    "no system message": _system(),
    '`system: ""`': _system(""),
    "tiles of 1344x1344": _tiles(),
    "the same, `max_dynamic_patch: 1`": _tiles(max_dynamic_patch=1),
    "two texts": _rendered([_text("One."), _text("Two."), _photo()]),
    "placeholder in the text": _rendered([_text("See <IMAGE_TOKEN> there."), _photo()]),
    "text, then a picture": _rendered([_text("See."), _photo()]),
}


def write(made: dict[str, str]) -> None:
    """Put each table between its marks in the page."""
    page = PAGE.read_text(encoding="utf-8")
    for name, text in made.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = page.split(begin)
        page = before + begin + text + end + rest.partition(end)[2]
    PAGE.write_text(page, encoding="utf-8")


def main() -> None:
    """Start the servers, ask them, write the page."""
    with tempfile.TemporaryDirectory() as place, Servers(Path(place)) as servers:
        write(tables(servers.get))


if __name__ == "__main__":
    main()
