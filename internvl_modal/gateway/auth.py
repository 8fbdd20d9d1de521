"""Who may ask: the key as a bearer or as a password."""

from __future__ import annotations

import base64
import hmac

from fastapi import Security
from fastapi.security import HTTPBasic, HTTPBearer
from pydantic import SecretStr
from starlette.requests import Request

from internvl_modal.gateway.errors import RefusedError
from internvl_modal.gateway.guests import Guests

WHERE = (
    "`internvl-modal serve` prints it, or has it from INTERNVL_MODAL_GATEWAY_KEY; "
    "`internvl-modal connect NAME --show-key` prints that of a deployment on Modal"
)
"""Where a caller finds the key; people come here with the key of something else."""
SESSION = "/page/session"
"""Where a page shows the token of its link."""
PAGES = ("/docs", "/openapi.json")
"""What browsers ask for: they show a form for user and password to whoever has no key."""


class _Bearer(HTTPBearer):
    """For the OpenAPI document only: ``Admission`` has checked the key before any route."""

    async def __call__(self, request: Request) -> None:  # type: ignore[override]
        """Nothing."""


class _Basic(HTTPBasic):
    """For the OpenAPI document only."""

    async def __call__(self, request: Request) -> None:  # type: ignore[override]
        """Nothing."""


KEYED = [
    Security(_Bearer(description="The gateway's key.")),
    Security(_Basic(description="Any user; the key is the password.")),
]
"""Says in the OpenAPI document that a route needs the key."""


def check_key(request: Request, key: SecretStr, guests: Guests) -> None:
    """Raise RefusedError unless ``request`` shows ``key``, or what a page of ``serve`` has got.

    In constant time, so that nobody can find the key letter by letter.
    """
    shown = shown_key(request)
    # Bytes: of text it takes ASCII only, and a stranger may send anything.
    if hmac.compare_digest(shown.encode(), key.get_secret_value().encode()):
        return
    if guests.is_guest(shown) or (is_session(request) and guests.is_invited(shown)):
        return
    form = _path(request).endswith(PAGES)
    raise RefusedError(
        401,
        f"the API key is missing or wrong ({WHERE})",
        code="invalid_api_key",
        headers={"WWW-Authenticate": 'Basic realm="the key is the password"' if form else "Bearer"},
    )


def is_session(request: Request) -> bool:
    """Whether a page asks to be let in by its link."""
    return request.method == "POST" and _path(request).endswith(SESSION)


def _path(request: Request) -> str:
    """The path that was asked for; ``request.url`` is made with the Host header, which lies."""
    path: str = request.scope["path"]
    return path


def shown_key(request: Request) -> str:
    """What stands in the place of the key; empty where nothing does.

    Basic is for browsers, which cannot send a bearer by hand.
    """
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    told = shown.strip()
    if scheme.lower() == "basic":  # a user's name may be in any code
        try:
            told = base64.b64decode(told, validate=True).partition(b":")[2].decode().strip()
        except ValueError:
            told = ""
    elif scheme.lower() != "bearer":
        told = ""
    return told
