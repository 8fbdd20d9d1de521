"""``GET /`` for browsers, the page's two files, and what a link that works once is changed for."""

from __future__ import annotations

import html
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.presets.registry import PRESETS
from internvl_modal.gateway.auth import SESSION, shown_key
from internvl_modal.gateway.documents import Problem, inlined
from internvl_modal.gateway.errors import RefusedError
from internvl_modal.gateway.guests import Guests
from internvl_modal.gateway.page.reference import reference

SCRIPT, STYLE = "/page/page.js", "/page/page.css"
FILES = (SCRIPT, STYLE)
"""Addresses beside ``/`` that need no key: they are the same for everybody."""
LABELS = {
    "caption": "A caption of one sentence",
    "alt-text": "An alternative text",
    "dense": "A dense description",
    "tags": "Tags",
    "ocr": "The text in the picture",
}
"""Presets as people call them; one that wants words of theirs first is not among them."""

# Nothing from elsewhere, nothing inline, no frame around it, and no form that sends the key away.
POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"),
        *("img-src 'self' blob: data:", "base-uri 'none'", "form-action 'none'"),
        *("frame-ancestors 'none'", "require-trusted-types-for 'script'"),
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Pages of an older version would go on asking a newer gateway in the old way.
    "Cache-Control": "no-cache",
}


# Said in full: of the route's own class the errors would be HTML in the document.
_PROBLEM = {"application/json": {"schema": inlined(Problem)}}
_REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"description": "JSON alone was asked for, without the key.", "content": _PROBLEM},
    405: {"description": "JSON alone was asked for, with the key.", "content": _PROBLEM},
}
_OTHERS = ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


class Session(BaseModel):
    """What a page shows in the place of the key."""

    token: str


def page_router(guests: Guests) -> APIRouter:
    """The page, and what it is made of; of these only its address is told of in the document."""
    router = APIRouter()
    index, js, css = (_read(name) for name in ("index.html", "page.js", "page.css"))
    index = index.replace("<!-- presets -->", presets())

    @router.head("/", include_in_schema=False)
    @router.get("/", response_class=HTMLResponse, responses=_REFUSED)
    async def page(request: Request) -> Response:
        """A page for people, without the key; JSON alone is not to be had here."""
        if not wants_page(request):
            raise HTTPException(405, headers={"Allow": "POST"})
        return _answer(index, "text/html")

    @router.api_route("/", methods=_OTHERS, include_in_schema=False)
    async def others() -> Response:
        """Name all methods there are: two routes share the address, and each knows its own only."""
        raise HTTPException(405, headers={"Allow": "GET, HEAD, POST"})

    @router.get(SCRIPT, include_in_schema=False)
    async def script() -> Response:
        """The page's script."""
        return _answer(js, "text/javascript")

    @router.get(STYLE, include_in_schema=False)
    async def style() -> Response:
        """The page's style sheet."""
        return _answer(css, "text/css")

    @router.post(SESSION, include_in_schema=False)
    async def session(request: Request) -> Session:
        """A token for the page that shows a link's, which is used up by this."""
        try:
            token = guests.admit(shown_key(request))
        except KeyError:
            raise RefusedError(401, "the link has been used; enter the key") from None
        return Session(token=token)

    @router.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        """The reference of the API."""
        return _answer(reference(request.app.openapi()), "text/html")

    return router


def wants_page(request: Request) -> bool:
    """Whether ``GET /`` is a browser's, or anybody's who does not ask for JSON alone."""
    accepted = request.headers.get("accept", "")
    return "application/json" not in accepted or "text/html" in accepted


def presets() -> str:
    """The package's presets as choices of the page: their prompts, and the options with them."""
    return "".join(
        f'<option value="{html.escape(preset.prompt)}"{_data(preset)}>{LABELS[name]}</option>'
        for name, preset in PRESETS.items()
        if name in LABELS
    )


def _data(preset: Preset) -> str:
    given = {"detail": preset.options.get("detail"), "tokens": preset.options.get("max_tokens")}
    return "".join(f' data-{name}="{value}"' for name, value in given.items() if value is not None)


def _read(name: str) -> str:
    return (files("internvl_modal.gateway.page") / name).read_text("utf-8")


def _answer(text: str, kind: str) -> Response:
    return Response(text, media_type=f"{kind}; charset=utf-8", headers=HEADERS)
