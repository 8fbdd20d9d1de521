"""What goes wrong between us and the Hub: worth another try or not, and told without secrets.

The same failure has another class with every version of huggingface_hub and its HTTP library, and
messages that repeat signed addresses. Callers get one error with a hint; the retry rule gets one of
ours to judge.
"""

from __future__ import annotations

import sys
from typing import Any

from internvl_modal.errors import (
    RateLimitedError,
    ServerError,
    ServerUnavailableError,
    WeightsError,
)
from internvl_modal.weights.hub import Hub, masked

__all__ = ["explain", "transient"]

MAX_DELAY = 60.0
"""Seconds; a Hub that asks for a longer wait is asked earlier."""


def _network_errors() -> tuple[type[Exception], ...]:
    """What the HTTP library below raises: requests, httpx or httpx2, by huggingface_hub's age."""
    library = _http_library()
    if hasattr(library, "RequestError"):
        return (library.RequestError, ConnectionError, TimeoutError)
    import urllib3  # its errors come out of the raw stream

    below = urllib3.exceptions.HTTPError
    return (library.RequestException, below, ConnectionError, TimeoutError)


def _http_library() -> Any:
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    return sys.modules[type(get_session()).__module__.partition(".")[0]]


def transient(error: Exception) -> ServerError | None:
    """The failure for the retry rule to judge; None where another try cannot help."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status not in (408, 429, 500, 502, 503, 504):
            return None
        asked = error.response.headers.get("Retry-After", "")
        seconds = min(float(asked), MAX_DELAY) if asked.isascii() and asked.isdigit() else None
        kind = RateLimitedError if status == 429 else ServerUnavailableError
        return kind(f"the Hub answered {status}", status=status, retry_after=seconds)
    if isinstance(error, (OfflineModeIsEnabled, ValueError, _http_library().TooManyRedirects)):
        return None
    # hf-xet and hf_transfer raise RuntimeError.
    if isinstance(error, (RuntimeError, *_network_errors())):
        return ServerUnavailableError("the connection to the Hub failed")
    return None


def explain(
    error: Exception, model: str, revision: str, file: str | None, hub: Hub
) -> WeightsError | None:
    """Say what went wrong and what helps, without the server's words; None for other errors.

    Its ``__cause__`` is the error, unless that may repeat a secret in the Hub's address: raise it
    ``from`` that.

    ``revision`` is as it was asked for; ``file`` is named where one failed.
    """
    known = _known(error, f"{hub.endpoint}/{model}", revision, hub) or _of_connection(error, hub)
    if known is None:
        return None
    cause, hint = known
    subject = f"{model}/{file}" if file else model
    told = WeightsError(f"{subject}: {cause}", hint=hint, files=(file,) if file else ())
    told.__cause__ = error if hub.url == hub.endpoint else None
    return told


def _known(error: Exception, page: str, revision: str, hub: Hub) -> tuple[str, str] | None:
    """Cause and hint of what the Hub itself says about a repository."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = f"the token from {hub.token_source}" if hub.token_source else "set HF_TOKEN"
    told: dict[type[Exception], tuple[str, str]] = {
        GatedRepoError: ("access is gated", f"accept the terms at {page}, then set HF_TOKEN"),
        RepositoryNotFoundError: (
            "there is no such repository, or the token may not see it",
            f"check {page}, and {token}",
        ),
        RevisionNotFoundError: (f"there is no revision {revision}", f"see {page}/refs"),
        EntryNotFoundError: (f"the file is gone at {revision}", f"see {page}/tree/{revision}"),
        HFValidationError: ("this is not a repository's name", "write it as owner/name"),
        OfflineModeIsEnabled: ("HF_HUB_OFFLINE is set", "unset it to download"),
    }
    for kind, cause_and_hint in told.items():
        if isinstance(error, kind):
            return cause_and_hint
    if isinstance(error, HfHubHTTPError):
        return _by_status(error.response.status_code, hub)
    return None


def _of_connection(error: Exception, hub: Hub) -> tuple[str, str] | None:
    """Cause and hint of an answer that is none, or of no answer."""
    if isinstance(error, ValueError):
        said = masked(" ".join(str(error).split()), hub.url)[:200]
        cause = f"{hub.endpoint} does not answer as a Hub does: {said}"
        return cause, "check HF_ENDPOINT; do not use this repository"
    if isinstance(error, _http_library().TooManyRedirects):
        return f"{hub.endpoint} redirects without end", "check HF_ENDPOINT and the proxy"
    if transient(error):
        cause = f"the connection to {hub.endpoint} failed ({type(error).__name__})"
        return cause, "check the network, then run this again: it continues where it stopped"
    return None


def _by_status(status: int, hub: Hub) -> tuple[str, str]:
    # The library names gated and missing repositories apart; this is what is left.
    if status in (401, 403):
        source = hub.token_source
        renew = f"the token from {source} is refused: renew it, or remove it"
        hint = renew if source else "the token is missing: set HF_TOKEN"
        return f"the Hub refuses access ({status})", hint
    if status == 429:
        return "the Hub limits requests (429)", "wait some minutes; a token raises the limit"
    if status >= 500:
        return f"the Hub failed ({status})", "try again later: it continues where it stopped"
    return f"the Hub answered {status}", "check the repository and the revision"
