"""``GET /`` for browsers, the page's two files, and what a link that works once is changed for."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from internvl_modal.gateway.auth import SESSION, shown_key
from internvl_modal.gateway.errors import RefusedError
from internvl_modal.gateway.guests import Guests
from internvl_modal.gateway.page.reference import reference

SCRIPT, STYLE = "/page/page.js", "/page/page.css"
FILES = (SCRIPT, STYLE)
"""Addresses beside ``/`` that need no key: they are the same for everybody."""

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


class Session(BaseModel):
    """What a page shows in the place of the key."""

    token: str


def page_router(guests: Guests) -> APIRouter:
    """The page, and what it is made of; none of it is part of the API."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        """The page for whoever does not ask for JSON alone."""
        if not wants_page(request):
            raise HTTPException(405, headers={"Allow": "POST"})
        return _file("index.html", "text/html")

    @router.get(SCRIPT)
    async def script() -> Response:
        """The page's script."""
        return _file("page.js", "text/javascript")

    @router.get(STYLE)
    async def style() -> Response:
        """The page's style sheet."""
        return _file("page.css", "text/css")

    @router.post(SESSION)
    async def session(request: Request) -> Session:
        """A token for the page that shows a link's, which is used up by this."""
        try:
            token = guests.admit(shown_key(request))
        except KeyError:
            raise RefusedError(401, "the link has been used; enter the key") from None
        return Session(token=token)

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        """The reference of the API."""
        return _answer(reference(request.app.openapi()), "text/html")

    return router


def wants_page(request: Request) -> bool:
    """Whether ``GET /`` is a browser's, or anybody's who does not ask for JSON alone."""
    accepted = request.headers.get("accept", "")
    return "application/json" not in accepted or "text/html" in accepted


def _file(name: str, kind: str) -> Response:
    return _answer((files("internvl_modal.gateway.page") / name).read_text("utf-8"), kind)


def _answer(text: str, kind: str) -> Response:
    return Response(text, media_type=f"{kind}; charset=utf-8", headers=HEADERS)
