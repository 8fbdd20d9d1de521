"""What an input is known by: its name, its path or, in memory, its place and content.

A key decides what a later run skips, so it must be the same for the same input in every run, and
another for another. Paths and URLs are good keys; a place in a sequence is one only together with a
digest of what lay there.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from internvl_modal.batch.outcome import identity
from internvl_modal.batch.prompts import Filler, NoPromptError
from internvl_modal.batch.signed_urls import without_signature
from internvl_modal.batch.sources.choice import Choice
from internvl_modal.batch.sources.known_keys import KnownKeys
from internvl_modal.batch.sources.places import is_remote
from internvl_modal.batch.sources.remote import RemoteFile
from internvl_modal.batch.sources.rows import Rowed, Table, is_list
from internvl_modal.batch.sources.unreadable import Unreadable
from internvl_modal.images.names import is_data, is_url, source_name
from internvl_modal.schema.inputs import ImageSource

BAND = 64
"""Rows of a picture that are copied at once."""
DIGITS = 16
"""Of a content's digest, as lines hold it."""


class Item(NamedTuple):
    """One input.

    ``source`` is what will be described, safe from whatever happens to the caller's own.
    """

    key: str
    source: ImageSource
    numbered: bool = False
    """Whether its place is all that it is known by."""
    former: str | None = None
    """Its key in 0.1.0, where that was another."""
    content: str = ""
    """A digest of what its key does not tell of it; "" where the key tells all."""
    texts: tuple[str, ...] = ()
    """What is asked of it."""
    asked: str = ""
    """A digest of that, where rows may differ in it."""

    @property
    def identity(self) -> str:
        """What a later run knows it by."""
        return identity(self.key, self.asked)

    def clashing(self, first: str) -> Item:
        """In its place, where its key is known for ``first``: an input that fails, naming both."""
        again = f"{self.key}#{self.content[:12]}"
        reason = (
            f"two pictures have the key {self.key}: that of an earlier run (content {first}) "
            f"and {source_name(self.source)} (content {self.content})"
        )
        hint = "give keys of their own, choose another out=, or begin anew with resume=False"
        return Item(again, Unreadable(again, reason, hint=hint))


def item(given: Any, index: int) -> Item:
    """The input and its key: its name in a pair, its path or URL, else its number."""
    if isinstance(given, Rowed) and given[0] is None:
        return Item(f"#{index}", given[1], numbered=True)
    if isinstance(given, tuple) and len(given) == 2:
        former = getattr(given[0], "former", None)
        return Item(_shown(str(given[0])), given[1], former=former)
    if isinstance(given, os.PathLike) or (isinstance(given, str) and not is_data(given)):
        return Item(_shown(str(os.fsdecode(given))), given)
    return Item(f"#{index}", given, numbered=True)


def _shown(key: str) -> str:
    """A key without what is secret in it."""
    return RemoteFile(key).name if is_remote(key) else without_signature(key)


class Naming:
    """Makes an ``Item`` of each thing that is given, one after the other.

    Pictures in memory are copied: what gives them may use their memory again. ``digests`` puts
    a digest of the content beside the number of what has no other name: a later run may have
    another picture at that place. A key that comes again for another picture is replaced by one
    of its own, whose description fails and names both.

    Called from the reading thread only.
    """

    def __init__(
        self, choice: Choice, *, max_pixels: int, digests: bool, filler: Filler | None = None
    ) -> None:
        self._rows = Table(column=choice.column, key=choice.key, fields=choice.fields)
        self._filler = filler
        self._max_pixels, self._digests = max_pixels, digests
        self._known = KnownKeys()

    def close(self) -> None:
        """Forget the keys."""
        self._known.close()

    def __call__(self, given: Any, index: int) -> Item:
        """The input with this number."""
        if isinstance(given, Mapping):
            given = self._rows.pair(given, index)
        found = self._named(given, index)
        return self._asked(found, getattr(given, "row", None))

    def key(self, given: Any, index: int) -> str:
        """The key that it may have, for what is not wanted for certain: nothing is copied."""
        if isinstance(given, Mapping):
            given = self._rows.pair(given, index)
        return item(given, index).key

    def _asked(self, found: Item, row: Mapping[str, Any] | None) -> Item:
        """With what is asked of it."""
        if self._filler is None or isinstance(found.source, Unreadable):
            return found
        try:
            texts, asked = self._filler.texts(row)
        except NoPromptError as error:
            return found._replace(source=Unreadable(found.key, str(error)))
        return found._replace(texts=texts, asked=asked)

    def _named(self, given: Any, index: int) -> Item:
        found = item(given, index)
        found = found._replace(source=self._kept(found.source))
        if not found.numbered:
            return self._unless_taken(found, index)
        # Only for sinks that remember: hashing every picture costs time.
        if self._digests and (digest := self._digest(found.source)) is not None:
            key = f"{found.key}-{digest.hex()[:12]}"
            return found._replace(key=key, former=_former(found))
        return found

    def _kept(self, source: Any) -> Any:
        """A source that stays as it is, whatever the caller does next."""
        if isinstance(source, Mapping):
            pair = Table(column=None, key=None).pair(source, 0)
            source = pair[1] if isinstance(pair, tuple) else pair
        if is_list(source):
            return [self._kept(each) for each in source]
        if isinstance(source, str):  # numpy's too, which are no pixels
            return RemoteFile(source) if is_remote(source) else source
        if isinstance(source, bytearray | memoryview):
            return bytes(source)
        if isinstance(source, io.BytesIO):
            # A caller may write into it again before it is read.
            copied = io.BytesIO(source.getvalue())
            copied.seek(source.tell())
            return copied
        if hasattr(source, "getpalette") or hasattr(source, "__array_interface__"):
            return _copied(source, self._max_pixels)
        return source

    def _unless_taken(self, found: Item, index: int) -> Item:
        digest = self._digest(found.source)
        mark = digest or b"%d" % index
        name = source_name(found.source)
        if name != found.key and not isinstance(found.source, str | os.PathLike):
            name = f"{name}, input {index}"
        first = self._known.note(found.key, mark, "" if name == found.key else name)
        if first is None:
            return found._replace(content=self._content(found.source, digest, found.key))
        # The digest makes it the same key in every run, so the failure is recorded once.
        again = f"{found.key}#{hashlib.sha256(mark).hexdigest()[:12]}"
        reason = f"two pictures have the key {found.key}: {first or found.key} and {name}"
        lost = Unreadable(again, reason, hint="give keys of their own: key= or (key, source) pairs")
        return Item(again, lost)

    def _content(self, source: Any, digest: bytes | None, key: str = "") -> str:
        """What tells a later run that another picture has taken this key; "" where the key does.

        Of pictures in memory all that is in them. Of a file its name, without the folder, which may
        have moved; of an address all but its signature, which is another one every time.
        """
        if isinstance(source, Unreadable):
            return ""
        if isinstance(source, list):
            told = [self._content(each, self._digest(each)) for each in source]
            return _short(repr(told).encode()) if told and all(told) else ""
        name = _lasting(source)
        if name is None:
            return digest.hex()[:DIGITS] if digest else ""
        return "" if key.endswith(name) else _short(os.fsencode(name))

    def _digest(self, source: Any) -> bytes | None:
        """Of what tells a source from others; None where it cannot be read, or only once."""
        digest = hashlib.sha256()
        try:
            for part in self._contents(source):
                digest.update(part)
        except Exception:  # noqa: BLE001 - describing it will say why
            return None
        return digest.digest()

    def _contents(self, source: Any) -> Iterator[bytes | bytearray | memoryview]:
        if isinstance(source, list | tuple):
            for each in source:
                # Several pictures: the digest of their digests, in order.
                yield self._digest(each) or b"?"
        elif isinstance(source, str | os.PathLike):
            text = os.fspath(source)
            yield os.fsencode(text if is_url(text) or is_data(text) else os.path.abspath(text))  # noqa: PTH100
        elif isinstance(source, RemoteFile | Unreadable):
            yield os.fsencode(repr(source))
        elif isinstance(source, bytes):
            yield source
        elif hasattr(source, "getpalette"):  # Pillow's
            yield from _pixels(source, self._max_pixels)
        elif hasattr(source, "__array_interface__"):
            yield repr((source.shape, source.dtype)).encode()
            # Some rows at a time: a copy of all would be as large again.
            for top in range(0, len(source), BAND):
                yield source[top : top + BAND].tobytes()
        else:
            # Read to its end and put back; a stream that cannot seek raises, and has no digest.
            start = source.tell()
            source.seek(start)
            try:
                yield source.read()
            finally:
                source.seek(start)


def _former(found: Item) -> str | None:
    """The key of several paths in 0.1.0, which took them as they were written."""
    paths = found.source
    if not isinstance(paths, list) or not all(
        isinstance(each, str | os.PathLike) for each in paths
    ):
        return None
    digests = b"".join(hashlib.sha256(os.fsencode(each)).digest() for each in paths)
    return f"{found.key}-{hashlib.sha256(digests).hexdigest()[:12]}"


def _pixels(source: Any, max_pixels: int) -> Iterator[bytes]:
    width, height = source.size
    if width * height > max_pixels:
        raise ValueError
    # Equal bytes in another mode or shape are another picture.
    yield repr((source.mode, source.size, source.getpalette())).encode()
    for top in range(0, height, BAND):
        yield source.crop((0, top, width, min(top + BAND, height))).tobytes()


def _copied(source: Any, max_pixels: int) -> Any:
    """A copy of pixels, or the picture itself where describing it will say what is wrong."""
    if not hasattr(source, "getpalette"):
        return source.copy()
    if source.size[0] * source.size[1] > max_pixels:
        return source
    try:
        copied = source.copy()
        copied.format = source.format
    except Exception:  # noqa: BLE001 - decoders raise anything
        return source
    return copied


def _lasting(source: Any) -> str | None:
    """The part of a name by which a later run may give the same picture; None for what has none."""
    if isinstance(source, RemoteFile):
        return source.name
    if not isinstance(source, str | os.PathLike) or is_data(text := os.fsdecode(source)):
        return None
    return without_signature(text) if is_url(text) else os.path.basename(text)  # noqa: PTH119


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGITS]
