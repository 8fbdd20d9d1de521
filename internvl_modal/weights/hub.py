"""The Hub through huggingface_hub, below and above 1.0: what a repository holds, and its bytes.

Both generations are met through what they share, and the shared HTTP client of each; bytes come
as a stream that can begin anywhere in a file, so that they are hashed as they pass and a stopped
file continues. Files in Xet storage are streamed by hf-xet. Only hf_transfer, which is asked with
huggingface_hub below 1.0 where ``HF_HUB_ENABLE_HF_TRANSFER`` is set, writes by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast
from urllib.parse import quote, unquote, urlsplit

from internvl_modal._utils.user_warning import warn_user
from internvl_modal.credentials import checked_key, hub_token_source
from internvl_modal.errors import ConfigError, WeightsError
from internvl_modal.weights.layout import COMMIT
from internvl_modal.weights.manifest import RemoteFile

if TYPE_CHECKING:
    from hf_xet import XetSession  # type: ignore[import-untyped]

__all__ = ["Hub", "Repository", "masked"]

METADATA_TIMEOUT = 3.5
"""Seconds; with two tries somebody without a network is told within ten."""
BLOCK = 1 << 20
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
    """A repository at one commit.

    ``commit`` is what a branch or tag means now: everything after is asked for by it, so that a
    branch that moves meanwhile cannot mix two versions.
    """

    name: str
    commit: str
    files: tuple[RemoteFile, ...]


class Sink(Protocol):
    """Where a file's bytes go, in order.

    The part of a file's interface that is needed, so that a few KB can stay in memory.
    """

    name: str

    def write(self, data: bytes, /) -> int:
        """Take the next bytes."""

    def restart(self) -> None:
        """Begin again."""


def _shown(url: str) -> str:
    """A Hub's address without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=netloc, query="", fragment="").geturl()
    except ValueError:  # its words would repeat the URL
        hint = "check HF_ENDPOINT or endpoint="
        raise ConfigError("the Hub's address is no URL", hint=hint) from None


def masked(text: str, url: str) -> str:
    """Words about an address, without what of it may be a secret."""
    parts = urlsplit(url)
    for part in (parts.netloc.rpartition("@")[0], parts.query, parts.fragment):
        for secret in {part, quote(part), unquote(part)} - {""}:
            text = text.replace(secret, "***")
    return text


class _Masking(logging.Filter):
    """Takes the secrets of a Hub's address out of what the libraries log that ask it."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        said = text = record.getMessage()
        for url in tuple(self.urls):
            text = masked(text, url)
        if text != said:
            record.msg, record.args = text, ()
        return True


_MASKING = _Masking()
# A logger's filter sees what is logged by that name and by none below it.
_LOGGERS = (
    "httpx",
    "httpx2",
    "urllib3.connectionpool",
    "huggingface_hub.file_download",
    "huggingface_hub.utils._http",
)


def _mask_logs(url: str) -> None:
    _MASKING.urls.add(url)
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_MASKING)


class Hub:
    """One Hub and who asks: ``token`` None means the one huggingface_hub knows of.

    Raises ConfigError for a token that cannot be sent and for an address that is none.
    """

    def __init__(self, token: str | None, endpoint: str | None) -> None:
        from huggingface_hub import HfApi, get_token

        key = checked_key(token, "the Hugging Face token")
        self._token: str | Literal[False] | None = key.get_secret_value() if key else None
        # A login with a line break in it would be quoted by the HTTP library.
        known = checked_key(get_token(), "the Hugging Face token")
        self.token_source = hub_token_source(key or known, given=key is not None)
        """Where the token comes from, in words; "" where there is none."""
        self._api = HfApi(endpoint=endpoint)
        self.url: str = self._api.endpoint
        self.endpoint = _shown(self.url)
        """Its address to show, without what may be a password or a key in it."""
        if self.url != self.endpoint:
            _mask_logs(self.url)

    def __repr__(self) -> str:
        return f"Hub({self.endpoint!r})"

    def repository(self, model: str, revision: str) -> Repository:
        """Resolve ``revision`` to a commit and list its files.

        A token that the Hub refuses is left out from here on where the repository can be seen
        without one. Raises what the library raises, and ValueError for what is no answer of a Hub.
        """
        try:
            return self._repository(model, revision, self._token)
        except Exception as error:
            if not self.token_source or not _refused(error):
                raise
            try:
                found = self._repository(model, revision, False)
            except Exception:  # noqa: BLE001 - what was said of the token is what helps
                raise error from None
        warn_user(
            f"the Hub refuses the token from {self.token_source}: {model} is public, and fetched "
            "without it"
        )
        self._token = False
        return found

    def _repository(self, model: str, revision: str, token: str | bool | None) -> Repository:
        try:
            info = self._api.model_info(
                model, revision=revision, files_metadata=True, timeout=METADATA_TIMEOUT, token=token
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
        # Only LFS files can lie in Xet storage.
        if file.sha256 and self._xet and self._stream(self._xet, url, file, sink, start):
            return
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if self.unordered(file) and not start:
            return _hf_transfer(url, file, sink.name, headers)
        if start:
            headers["Range"] = f"bytes={start}-"
        with _body(url, headers) as (ranged, chunks):
            # A mirror that knows no ranges sends the whole file.
            if start and not ranged:
                sink.restart()
            for chunk in chunks:
                sink.write(chunk)

    def _stream(self, xet: XetSession, url: str, file: RemoteFile, sink: Sink, start: int) -> bool:
        """Stream a file that lies in Xet storage; False when this one does not."""
        from hf_xet import XetFileInfo
        from huggingface_hub import get_hf_file_metadata

        token = self._headers
        found = get_hf_file_metadata(
            url, token=self._token, headers=token, endpoint=self.url
        ).xet_file_data
        if found is None:
            return False
        # Xet's own token expires in the middle of a long download: a new one is had by this route.
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

    @property
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


def _hf_transfer(url: str, file: RemoteFile, path: str, headers: dict[str, str]) -> None:
    """Let hf_transfer fill the file at ``path``; raises OSError where it is of another size."""
    from huggingface_hub import constants

    try:
        from hf_transfer import download  # type: ignore[import-not-found]
    except ImportError as error:
        raise WeightsError(
            "HF_HUB_ENABLE_HF_TRANSFER is set, but hf_transfer is not installed",
            hint="pip install hf_transfer, or unset it",
        ) from error
    with _body(url, {**headers, "Range": "bytes=0-0"}):
        pass  # the Hub says what is wrong in words of its own, hf_transfer does not
    most = getattr(constants, "HF_TRANSFER_CONCURRENCY", 100)
    try:
        download(url, path, most, constants.DOWNLOAD_CHUNK_SIZE, 3, 5, headers)
    except Exception as error:  # a bare one, whatever it is
        raise RuntimeError("hf_transfer failed") from error
    if (size := Path(path).stat().st_size) != file.size:
        raise OSError(f"{size} bytes came")


def _refused(error: Exception) -> bool:
    """Whether the Hub may have refused the token, rather than whose it is."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    return (
        isinstance(error, HfHubHTTPError)
        and not isinstance(error, GatedRepoError)
        and error.response.status_code in (401, 403)
    )
