"""Files from the Hub into a folder, in parallel, each hashed while its bytes pass.

A file has its own name only once it is verified and on the disk; until then it is
``<name>.part``, which a later run continues, or ``<name>.whole``, which hf_transfer fills out of
order and nobody can continue.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath

from internvl_modal.errors import WeightsError
from internvl_modal.transport.retry import Retry
from internvl_modal.weights import layout
from internvl_modal.weights.hub import Hub, Repository
from internvl_modal.weights.hub_errors import explain, transient
from internvl_modal.weights.manifest import CachedFile, RemoteFile
from internvl_modal.weights.plain_files import make_folder, open_part, open_whole, write_all
from internvl_modal.weights.progress import CallbackError, Reporter

__all__ = [
    "BLOCK",
    "Digest",
    "Downloads",
    "PartialFile",
    "Stopped",
    "hash_file",
]

BLOCK = 4 << 20
"""4 MiB: large enough for the disk, small enough for eight files at once."""
RETRY = Retry(attempts=5, initial=0.5, maximum=60.0)
"""Of one file, without a byte between two tries."""
LOOK_SECONDS = 1.0
"""Who was suspended for longer looks before its next byte: not every network's flock excludes."""


class Digest:
    """A content's sha256, and the git blob's sha1 where that is how the Hub knows it.

    Hashed while they pass, as reading 157 GB again would take minutes; only what was there before
    is read.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._wanted = file
        self._sha256 = hashlib.sha256()
        self._git = None
        if file.oid != file.sha256:
            # The Hub knows small files by their git blob only; sha1 is git's choice.
            self._git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """Pass on some bytes."""
        self._sha256.update(data)
        if self._git:
            self._git.update(data)

    def verified(self) -> CachedFile | None:
        """The file with its sha256, or None when the content is not the wanted one."""
        wanted, sha256 = self._wanted, self._sha256.hexdigest()
        if wanted.sha256 not in (None, sha256):
            return None
        if self._git and self._git.hexdigest() != wanted.oid:
            return None
        return CachedFile.model_validate({**wanted.model_dump(), "sha256": sha256})


def hash_file(
    path: Path, digest: Digest, tell: Callable[[int], object], stop: threading.Event
) -> None:
    """Feed a file to ``digest`` block by block, until ``stop``; raises OSError."""
    buffer = memoryview(bytearray(BLOCK))
    with open_whole(path) as file:
        while not stop.is_set() and (count := file.readinto(buffer)):
            digest.update(buffer[:count])
            tell(count)


class Stopped(Exception):  # noqa: N818
    """The download was told to stop.

    Not an error of the file: another one failed, or the lock was lost.
    """


class _WrongSize(Exception):  # noqa: N818
    """The server's file is longer or shorter than the Hub's metadata say."""


class PartialFile:
    """An unfinished file: what is written to it is hashed, counted and appended.

    Used by one thread; counts are told through ``advance``.
    """

    def __init__(
        self, path: Path, file: RemoteFile, stop: threading.Event, advance: Callable[[int], object]
    ) -> None:
        self.name = str(path)
        self._wanted, self._stop, self._advance = file, stop, advance
        self._file = open_part(path)
        self.digest, self.size = Digest(file), 0
        self._looked = 0.0
        self.adopt()

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        """Append, unless that is too much or the download was stopped."""
        # The wall clock: a machine that was suspended sees the time that it has slept.
        if not 0 <= time.time() - self._looked < LOOK_SECONDS:
            self._check_ours()
        if self._stop.is_set():
            raise Stopped
        # A server that sends too much must not fill the disk.
        if self.size + len(data) > self._wanted.size:
            raise _WrongSize
        self.digest.update(data)
        write_all(self._file, data)
        self._count(len(data))
        self._advance(len(data))
        return len(data)

    def _check_ours(self) -> None:
        """Stop where told to, or where another process has given the file its own name."""
        self._looked = time.time()
        if self._stop.is_set() or not Path(self.name).exists():
            raise Stopped

    def _count(self, count: int) -> None:
        self.size += count

    def adopt(self) -> None:
        """Take in what the file holds already: of an earlier run, or of hf_transfer."""
        if not self.size:
            if Path(self.name).stat().st_size > self._wanted.size:
                self._file.truncate(0)
            hash_file(Path(self.name), self.digest, self._count, self._stop)

    def restart(self) -> None:
        """Forget every byte."""
        self._check_ours()
        self._file.truncate(0)
        self._advance(-self.size)
        self.digest, self.size = Digest(self._wanted), 0

    def sync(self) -> None:
        """Put the bytes on the disk."""
        self._check_ours()
        os.fsync(self._file.fileno())


class Downloads:
    """The files of one repository on their way into ``folder``; ``stop`` ends them early."""

    def __init__(
        self,
        hub: Hub,
        repository: Repository,
        folder: Path,
        *,
        report: Reporter,
        workers: int,
        stop: threading.Event,
    ) -> None:
        self._hub, self._repository, self._folder = hub, repository, folder
        self._report, self._workers, self._stop = report, workers, stop

    def run(self, files: Iterable[RemoteFile]) -> list[CachedFile]:
        """Fetch all, largest first; the first error stops the others and is raised."""
        # The largest decides when all is done.
        ordered = sorted(files, key=lambda file: file.size, reverse=True)
        with ThreadPoolExecutor(self._workers, thread_name_prefix="weights") as pool:
            try:
                futures = [pool.submit(self._fetch, file) for file in ordered]
                # A bare wait() would hold back Ctrl-C on some platforms.
                pending = set(futures)
                while pending:
                    done, pending = wait(pending, timeout=1.0, return_when=FIRST_EXCEPTION)
                    if any(future.exception() for future in done):
                        break
            finally:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        errors = [f.exception() for f in futures if f.done() and not f.cancelled()]
        failed = [error for error in errors if error is not None]
        if failed:
            # The first cause: the others were stopped by it.
            raise min(failed, key=lambda error: isinstance(error, Stopped))
        return [future.result() for future in futures]

    def _fetch(self, file: RemoteFile) -> CachedFile:
        make_folder(self._folder, str(PurePosixPath(file.path).parent))
        part = self._folder / layout.part_file(file.path)
        if self._hub.unordered(file) and not part.exists():
            part = self._folder / layout.unordered_file(file.path)
            # What hf_transfer had begun cannot be continued: it fills a file in any order.
            part.unlink(missing_ok=True)
        with PartialFile(part, file, self._stop, self._report.advance) as sink:
            found = self._verified(file, sink)
            # Once may be a disturbance, twice is not.
            if found is None:
                raise self._wrong(file, "the bytes are not the Hub's: checksum mismatch, twice")
            sink.sync()
        if part.stat().st_size != file.size:
            raise self._wrong(file, "another process has written to it too")
        # From here on the name stands for a verified file.
        part.replace(self._folder / file.path)
        self._report.file_done()
        return found

    def _verified(self, file: RemoteFile, sink: PartialFile) -> CachedFile | None:
        """Transfer, and once more from the start when the content is wrong."""
        for last in (False, True):
            try:
                self._transfer(file, sink)
            except _WrongSize as error:
                size = sink.size
                if last:
                    cause = f"the Hub says {file.size} bytes, the server has sent {size}"
                    raise self._wrong(file, cause) from error
            else:
                if found := sink.digest.verified():
                    return found
            sink.restart()
        return None

    def _transfer(self, file: RemoteFile, sink: PartialFile) -> None:
        failures = 0
        while sink.size < file.size:
            before = sink.size
            try:
                self._hub.fetch(self._repository, file, sink, before)
                self._take_over(sink)
                if sink.size <= before:
                    raise ConnectionError("no bytes came")
            except (Stopped, _WrongSize, CallbackError):
                raise
            except Exception as error:
                if _ends_early(error):
                    raise _WrongSize from error
                # Bytes have come, so the network works: only tries in a row without any count.
                failures = 0 if sink.size > before else failures + 1
                self._pause(error, failures, file)

    def _take_over(self, sink: PartialFile) -> None:
        """Count what hf_transfer wrote without us."""
        if not sink.size:
            sink.adopt()
            self._report.advance(sink.size)

    def _pause(self, error: Exception, failures: int, file: RemoteFile) -> None:
        """Wait before the next try, or raise what the failure means."""
        passing = transient(error)
        delay = RETRY.pause(max(failures, 1), passing, math.inf) if passing else None
        if delay is None:
            name, commit = self._repository.name, self._repository.commit
            told = explain(error, name, commit, file.path, self._hub)
            if told is None:
                raise error
            raise told from told.__cause__
        if self._stop.wait(delay):
            raise Stopped from error

    def _wrong(self, file: RemoteFile, cause: str) -> WeightsError:
        return WeightsError(
            f"{self._repository.name}/{file.path}: {cause}",
            hint="run this again; if it stays so, a proxy or mirror changes the file",
            files=(file.path,),
        )


def _ends_early(error: Exception) -> bool:
    """Say whether the server's file is shorter: hf_transfer's check, or a range beyond it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status == 416 or (type(error) is OSError and error.errno is None)
