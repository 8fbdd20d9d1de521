"""Parts at an address that fsspec knows (``s3://``, ``gs://``), where nothing can be appended.

Object stores replace objects whole. So a part is written every ten thousand rows or every minute,
whichever is first, and never touched again but to take failures out.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.sinks.base import SeenKeys
from internvl_modal.batch.sinks.files import unguarded
from internvl_modal.batch.sinks.lines import record
from internvl_modal.batch.sinks.parts import Format, format_of
from internvl_modal.errors import ConfigError, InternVLError, MissingExtraError

PART_ROWS = 10_000
PART_SECONDS = 60.0
"""What a killed process may cost: a part is written that often."""

_USER = re.compile(r"//[^/@]*@")


class RemoteParts(SeenKeys):
    """A folder of parts, each written whole: of JSON lines or of Parquet, as its name ends."""

    def __init__(
        self,
        address: str,
        *,
        resume: bool,
        retry_errors: bool,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise MissingExtraError("fsspec", "remote") from error
        self._address, self._name = address, _USER.sub("//", address)
        self._format: Format = format_of(Path(address).suffix.lower(), columns or {})
        self._resume, self._retry = resume, retry_errors
        with self._told("opened"):
            self._system, self._folder = url_to_fs(address)
        self._waiting: list[dict[str, object]] = []
        self._number, self._put_at = 0, time.monotonic()

    def open(self, run: str) -> None:
        """Read the keys of the parts."""
        self._run = run
        with self._told("read"):
            if self._system.isfile(self._folder):
                raise ConfigError(
                    f"{self._name} is a file, and parts need a folder", hint="choose another out="
                )
            parts = self._parts()
            for part in parts:
                self._read(part)
        if parts:
            self._number = 1 + max(int(re.findall(r"part-(\d+)", part)[-1]) for part in parts)
        self._put_at = time.monotonic()
        unguarded(self._name)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Keep them, and make a part of them when there are enough or it is time."""
        if outcomes and not self._resume:
            with self._told("written"):
                for part in self._parts():
                    self._system.rm_file(part)
            self._resume = True
        self._waiting += (record(each, self._run, self.content(each.identity)) for each in outcomes)
        if len(self._waiting) >= PART_ROWS or time.monotonic() > self._put_at + PART_SECONDS:
            self._put()

    def close(self) -> None:
        """Make a part of what is left."""
        self._put()

    def _parts(self) -> list[str]:
        # Object stores have no folders; one without objects is not there.
        if not self._system.isdir(self._folder):
            return []
        pattern = re.compile(rf"part-\d+-[0-9a-f]+{re.escape(self._format.suffix)}")
        # Asked anew: fsspec keeps listings, and another process may have written since.
        found = self._system.ls(self._folder, detail=True, refresh=True)
        # Of a folder on this machine, what is a link or a pipe is no part that a batch has written.
        names = (e["name"] for e in found if e["type"] == "file" and not e.get("islink"))
        return sorted(name for name in names if pattern.fullmatch(name.rpartition("/")[2]))

    def _read(self, part: str) -> None:
        if not self._resume:
            return
        with self._system.open(part, "rb") as file:
            if self.note_known(self._format.read(file, part), self._run, retry=self._retry):
                file.seek(0)
                data = self._format.without_failures(file, self._run)
                self._system.pipe_file(part, data)

    def _put(self) -> None:
        """One part, by a name that no other batch has."""
        self._put_at = time.monotonic()
        if not self._waiting:
            return
        data = self._format.encode(self._waiting)
        # Random, since nothing there locks: two batches must not write over each other's part.
        name = f"part-{self._number:05}-{secrets.token_hex(4)}{self._format.suffix}"
        self._waiting, self._number = [], self._number + 1
        with self._told("written", data):
            self._system.makedirs(self._folder, exist_ok=True)
            self._system.pipe_file(f"{self._folder}/{name}", data)

    @contextmanager
    def _told(self, what: str, data: bytes = b"") -> Iterator[None]:
        """Turn what a file system raises into an error that names the address.

        ``data`` that could not be written goes to a file here, which the error names.
        """
        try:
            yield
        except InternVLError:
            raise
        except Exception as error:  # each kind has errors of its own
            reason = _USER.sub("//", " ".join(str(error).split()))[:200] or type(error).__name__
            hint = "check the address and its credentials"
            # The answers are paid for: they are saved on this machine before the error is raised.
            if data:
                with tempfile.NamedTemporaryFile(
                    prefix="part-", suffix=self._format.suffix, delete=False
                ) as file:
                    file.write(data)
                hint = f"what was to be there is in {file.name}: copy it; {hint}"
            raise InternVLError(f"{self._name} cannot be {what}: {reason}", hint=hint) from error
