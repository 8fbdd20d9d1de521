"""The Hub through huggingface_hub, below and above 1.0: what a repository holds, and its bytes.

Both generations are met through what they share, and the shared HTTP client of each; bytes come
as a stream that can begin anywhere in a file, so that they are hashed as they pass and a stopped
file continues. Files in Xet storage are streamed by hf-xet. Only hf_transfer, which
huggingface_hub below 1.0 uses where ``HF_HUB_ENABLE_HF_TRANSFER`` is set, writes by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlsplit

from internvl_modal.credentials import checked_key
from internvl_modal.errors import WeightsError
from internvl_modal.weights.layout import COMMIT
from internvl_modal.weights.manifest import RemoteFile

if TYPE_CHECKING:
    from hf_xet import XetSession  # type: ignore[import-untyped]

__all__ = ["Hub", "Repository", "explain", "retry_delay"]

METADATA_TIMEOUT = 3.5
BLOCK = 1 << 20
PROGRESS_BARS = "huggingface_hub.http_get"
MAX_DELAY = 60.0
# Less memory for eight files than hf-xet's own 1.5 GB for one; fewer tries, since ours continue
# from the byte reached.
XET_CONFIG = {
    "client.retry_max_attempts": 1,
    "client.connect_timeout": timedelta(seconds=10),
    "client.read_timeout": timedelta(seconds=30),
    "reconstruction.download_buffer_size": 64_000_000,
    "reconstruction.download_buffer_limit": 64_000_000,
    "reconstruction.download_buffer_perfile_size": 4_000_000,
    "reconstruction.min_prefetch_buffer": 1_000_000,
    "reconstruction.min_reconstruction_fetch_size": 8_000_000,
    "reconstruction.max_reconstruction_fetch_size": 8_000_000,
}


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    name: str
    commit: str
    files: tuple[RemoteFile, ...]


class Sink(Protocol):
    """Where a file's bytes go, in order."""

    name: str

    def write(self, data: bytes, /) -> int:
        """Take the next bytes."""

    def tell(self) -> int:
        """How many there are."""

    def restart(self) -> None:
        """Begin again."""


class Hub:
    """One Hub and who asks: ``token`` None means the one huggingface_hub knows of.

    Raises ConfigError for a token that cannot be sent.
    """

    def __init__(self, token: str | None, endpoint: str | None) -> None:
        from huggingface_hub import HfApi, get_token

        key = checked_key(token, "the Hugging Face token")
        self._token = key.get_secret_value() if key else None
        checked_key(get_token(), "the Hugging Face token")
        self._api = HfApi(endpoint=endpoint, token=self._token)
        self.url: str = self._api.endpoint
        parts = urlsplit(self.url)
        self.endpoint = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        """Its address to show, without what may be a password in it."""

    def __repr__(self) -> str:
        return f"Hub({self.endpoint!r})"

    def repository(self, model: str, revision: str) -> Repository:
        """Resolve ``revision`` to a commit and list its files.

        Raises what the library raises, and ValueError for what is no answer of a Hub.
        """
        try:
            info = self._api.model_info(
                model, revision=revision, files_metadata=True, timeout=METADATA_TIMEOUT
            )
        except (TypeError, KeyError) as error:  # of the library, about JSON that is no model
            raise ValueError(f"unexpected JSON: {error}") from error
        files = tuple(
            RemoteFile(
                path=entry.rfilename,
                size=entry.size,
                oid=entry.lfs.sha256 if entry.lfs else entry.blob_id,
                sha256=entry.lfs.sha256 if entry.lfs else None,
            )
            for entry in info.siblings or ()
        )
        if not COMMIT.fullmatch(info.sha or ""):
            raise ValueError(f"its commit is called {info.sha!r}")
        return Repository(model, cast(str, info.sha), files)

    def fetch(self, repository: Repository, file: RemoteFile, sink: Sink, start: int) -> None:
        """Write the bytes of ``file`` from ``start`` into ``sink``, in order.

        Where hf_transfer takes over it writes to the file called ``sink.name`` itself.
        """
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(repository.name, file.path, revision=repository.commit, endpoint=self.url)
        if file.sha256 and self._xet and self._stream(self._xet, url, file, sink, start):
            return
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if self.unordered(file) and not start:
            return _hf_transfer(url, file, sink, headers)
        if start:
            headers["Range"] = f"bytes={start}-"
        with _body(url, headers) as (ranged, chunks):
            if start and not ranged:
                sink.restart()
            for chunk in chunks:
                sink.write(chunk)

    def _stream(self, xet: XetSession, url: str, file: RemoteFile, sink: Sink, start: int) -> bool:
        """Stream a file that lies in Xet storage; False when this one does not."""
        from hf_xet import XetFileInfo
        from huggingface_hub import get_hf_file_metadata

        token = self._headers
        found = get_hf_file_metadata(url, headers=token, endpoint=self.url).xet_file_data
        if found is None:
            return False
        with xet.new_download_stream_group(
            token_refresh_url=found.refresh_route, token_refresh_headers=token
        ) as group:
            info = XetFileInfo(found.file_hash, file.size)
            for chunk in group.download_stream(info, start=start):
                sink.write(chunk)
        return True

    def unordered(self, file: RemoteFile) -> bool:
        """Say whether hf_transfer will write this file, in an order no run can continue."""
        from huggingface_hub import constants

        switched_on = getattr(constants, "HF_HUB_ENABLE_HF_TRANSFER", False)
        return bool(switched_on) and file.size > 5 * constants.DOWNLOAD_CHUNK_SIZE

    @cached_property
    def _headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        return build_hf_headers(token=self._token)

    @cached_property
    def _xet(self) -> XetSession | None:
        """hf-xet's session within our memory bound; None where absent, old or switched off."""
        from huggingface_hub import constants

        if constants.HF_HUB_DISABLE_XET:
            return None
        try:
            from hf_xet import XetConfig, XetSession
        except ImportError:
            return None
        return XetSession(config=XetConfig().with_config(XET_CONFIG))


@contextmanager
def _body(url: str, headers: dict[str, str]) -> Iterator[tuple[bool, Iterator[bytes]]]:
    """Whether the server heeded the range, and the body as it comes, through the shared client."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        get_session,
        hf_raise_for_status,
    )

    session: Any = get_session()
    seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
    if callable(getattr(session, "stream", None)):  # httpx's; a bare setting on requests' session
        call = session.stream("GET", url, headers=headers, timeout=seconds, follow_redirects=True)
    else:
        call = session.get(url, headers=headers, timeout=seconds, stream=True)
    with call as response:
        hf_raise_for_status(response)
        ranged = response.status_code == 206
        if hasattr(response, "iter_raw"):
            yield ranged, response.iter_raw()
        else:
            yield ranged, _pieces(response.raw)


def _pieces(raw: Any) -> Iterator[bytes]:
    """What has arrived, up to a block; urllib3 before 2.1 can only wait for whole blocks."""
    if not hasattr(raw, "read1"):
        yield from raw.stream(BLOCK, decode_content=False)
        return
    while piece := raw.read1(BLOCK, decode_content=False):
        yield piece


def _hf_transfer(url: str, file: RemoteFile, sink: Sink, headers: dict[str, str]) -> None:
    """Let huggingface_hub's own download, silenced, hand the file to hf_transfer."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
    )

    if not are_progress_bars_disabled(PROGRESS_BARS):
        disable_progress_bars(PROGRESS_BARS)
    http_get(url, cast(Any, sink), headers=headers, expected_size=file.size)


def network_errors() -> tuple[type[Exception], ...]:
    """What the HTTP library below raises: requests, httpx or httpx2, by huggingface_hub's age."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    library = sys.modules[type(get_session()).__module__.partition(".")[0]]
    if hasattr(library, "TransportError"):
        return (library.TransportError, ConnectionError, TimeoutError)
    import urllib3  # its errors come out of the raw stream

    below = urllib3.exceptions.HTTPError
    return (library.RequestException, below, ConnectionError, TimeoutError)


def retry_delay(error: Exception, failures: int) -> float | None:
    """Seconds to wait before another try; None where another try cannot help."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    backoff = min(0.5 * 2.0 ** max(failures - 1, 0), MAX_DELAY)
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in (408, 429, 500, 502, 503, 504):
            return None
        asked = error.response.headers.get("Retry-After", "")
        return min(float(asked), MAX_DELAY) if asked.isdigit() else backoff
    if isinstance(error, (OfflineModeIsEnabled, ValueError)):
        return None
    # hf-xet and hf_transfer raise RuntimeError.
    return backoff if isinstance(error, (RuntimeError, *network_errors())) else None


def explain(
    error: Exception, model: str, revision: str, file: str | None, hub: Hub
) -> WeightsError | None:
    """Say what went wrong and what helps, without the server's words; None for other errors."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    subject = f"{model}/{file}" if file else model
    page = f"{hub.endpoint}/{model}"
    told: dict[type[Exception], tuple[str, str]] = {
        GatedRepoError: ("access is gated", f"accept the terms at {page}, then set HF_TOKEN"),
        RepositoryNotFoundError: (
            "there is no such repository, or the token may not see it",
            f"check {page} and HF_TOKEN",
        ),
        RevisionNotFoundError: (f"there is no revision {revision}", f"see {page}/refs"),
        EntryNotFoundError: (f"the file is gone at {revision}", f"see {page}/tree/{revision}"),
        HFValidationError: ("this is not a repository's name", "write it as owner/name"),
        OfflineModeIsEnabled: ("HF_HUB_OFFLINE is set", "unset it to download"),
    }
    for kind, (cause, hint) in told.items():
        if isinstance(error, kind):
            return WeightsError(f"{subject}: {cause}", hint=hint, files=(file,) if file else ())
    if isinstance(error, HfHubHTTPError):
        cause, hint = _by_status(error.response.status_code)
    elif isinstance(error, ValueError):
        said = " ".join(str(error).split()).replace(hub.url, hub.endpoint)[:200]
        cause = f"{hub.endpoint} does not answer as a Hub does: {said}"
        hint = "check HF_ENDPOINT; do not use this repository"
    elif retry_delay(error, 0) is not None:
        cause = f"the connection to {hub.endpoint} failed ({type(error).__name__})"
        hint = "check the network, then run this again: it continues where it stopped"
    else:
        return None
    return WeightsError(f"{subject}: {cause}", hint=hint, files=(file,) if file else ())


def _by_status(status: int) -> tuple[str, str]:
    if status in (401, 403):
        return f"the Hub refuses access ({status})", "the token is missing or wrong: set HF_TOKEN"
    if status == 429:
        return "the Hub limits requests (429)", "wait some minutes; a token raises the limit"
    if status >= 500:
        return f"the Hub failed ({status})", "try again later: it continues where it stopped"
    return f"the Hub answered {status}", "check the repository and the revision"
