"""Tars, WebDataset's shards among them: streamed, and read to the end, where damage shows.

``tarfile`` stops at damage as if the archive had ended there, so a shard that was cut in half would
give half of its pictures and no word. Here the end is checked: two blocks of zeros, and what the
packer's checksum says.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from internvl_modal.batch.sources.places import Place
from internvl_modal.batch.sources.unreadable import Pair, Unreadable
from internvl_modal.errors import ConfigError, InternVLError

_UNPACK: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_CHUNK = 2**20
_AGAIN = "make or download it again"


def is_tar(name: str) -> bool:
    """Whether a name is that of a tar, packed or not."""
    return name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2"))


def read_tar(place: Place, wanted: Callable[[str], bool]) -> Iterator[Pair]:
    """Pictures of a tar in its order, without unpacking it; keys are TAR/MEMBER.

    Raises ConfigError, after all that could be read, for what does not end as a tar does.
    """
    with place.open() as file, _damage(place.name):
        unpacked = _unpack(file)
        # Streamed: a shard on the network is read once, from start to end, and never unpacked to a
        # disk.
        with _Archive.open(
            fileobj=unpacked, mode="r|", tarinfo=_Member, bufsize=tarfile.BLOCKSIZE
        ) as archive:  # with longer reads, what is before damage would be lost with it
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if _is_taken(member, wanted):
                    yield _pair(f"{place.name}/{member.name}", archive, member)
            _check_end(archive)


def count_in_tar(path: str, wanted: Callable[[str], bool], over: Callable[[], bool]) -> int | None:
    """How many ``read_tar`` gives of a tar on this machine, by its headers alone.

    None for one that is packed, and would have to be unpacked, for one without a picture, and once
    it is ``over``. Raises what ``tarfile`` does for one that is damaged.
    """
    with Path(path).open("rb") as file:
        if _unpack(file) is not file:
            return None
        number = 0
        with _Archive.open(fileobj=file, mode="r:", tarinfo=_Member) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                number += _is_taken(member, wanted)
                if over():
                    return None
            _check_end(archive)
        return number or None


def _is_taken(member: tarfile.TarInfo, wanted: Callable[[str], bool]) -> bool:
    return wanted(member.name) and not _is_hidden(member.name) and not member.isdir()


def _pair(name: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Pair:
    # A link's target may come before it in the tar, and a stream cannot go back.
    held = archive.extractfile(member) if member.isfile() else None
    if held is None:
        return name, Unreadable(name, "is a link or a device, which holds no picture")
    return name, held.read()


class _Archive(tarfile.TarFile):
    """Knows why no further member was found."""

    ended_by: Exception | None = None


class _Member(tarfile.TarInfo):
    """Tells its archive, for ``tarfile`` takes a bad header for an end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        """Read the next header."""
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if isinstance(archive, _Archive):
                archive.ended_by = error
            raise


def _check_end(archive: _Archive) -> None:
    """Read on to the end of the file: zeros, and what packers check it by.

    Raises tarfile.ReadError where the members do not end as they should.
    """
    ended = archive.ended_by
    kind = type(ended).__name__
    if kind == "EmptyHeaderError":
        raise tarfile.ReadError("it was cut, for no end marker follows its members")
    if kind != "EOFHeaderError":
        raise tarfile.ReadError(f"no header where its next member should be ({ended})")
    assert archive.fileobj is not None  # nosec B101  # it is open: for the type checker
    while held := archive.fileobj.read(_CHUNK):
        if held.strip(b"\0"):
            raise tarfile.ReadError("more follows its end marker")


def _unpack(file: Any) -> Any:
    start = file.peek(6)
    # By content: a ``.tar`` may be packed, and a ``.tgz`` may not be.
    for magic, unpack in _UNPACK.items():
        if start.startswith(magic):
            return unpack(file)
    return file


@contextmanager
def _damage(name: str) -> Iterator[None]:
    try:
        yield
    except (InternVLError, MemoryError):
        raise
    except Exception as error:  # unpackers and headers of damaged files raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system, and told by who opened the file
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{name} is damaged: {reason}", hint=_AGAIN) from error


def _is_hidden(name: str) -> bool:
    """Whether it is, or is in, what a file system hides: Macs add ``._x`` beside ``x``."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
