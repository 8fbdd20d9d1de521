"""Who may ask: the key as a bearer or as a password."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from typing import Annotated

from fastapi import Security
from fastapi.security import (
    HTTPAuthorizationCredentials,
    HTTPBasic,
    HTTPBasicCredentials,
    HTTPBearer,
)
from pydantic import SecretStr
from starlette.requests import Request

from internvl_modal.gateway.errors import RefusedError


class _Basic(HTTPBasic):
    """FastAPI's for the schema only: it reads ASCII only, and a user's name may be in any code."""

    async def __call__(  # type: ignore[override]  # as FastAPI's own
        self, request: Request
    ) -> HTTPBasicCredentials | None:
        """The password; None where the header holds none that can be read."""
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            password = base64.b64decode(shown.strip(), validate=True).partition(b":")[2].decode()
        except ValueError:
            return None
        return HTTPBasicCredentials(username="", password=password)


_BEARER = HTTPBearer(auto_error=False, description="The gateway's key.")


_BASIC = _Basic(auto_error=False, description="Any user; the key is the password.")


def key_check(key: SecretStr) -> Callable[..., None]:
    """The dependency that lets nobody in without ``key``."""
    expected = key.get_secret_value().encode()

    def check(
        token: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        login: Annotated[HTTPBasicCredentials | None, Security(_BASIC)],
    ) -> None:
        shown = token.credentials if token else login.password if login else ""
        if not hmac.compare_digest(shown.strip().encode(), expected):
            raise RefusedError(
                401,
                "the API key is missing or wrong",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check
