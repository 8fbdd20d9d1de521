"""Server-sent events.

By hand, since what servers send is not quite the standard, and since a decoder that never forgets
is a hole: lines are bounded.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import NamedTuple

from internvl_modal.errors import ServerError
from internvl_modal.protocol.error_responses import WRONG_SERVER

LONGEST_LINE = 1_000_000
"""Characters; a token's event is a few hundred, and without a bound a line could fill memory."""

DONE = "[DONE]"


class Event(NamedTuple):
    """The data of one event, and what kind it says it is: "" for most, "error" for a failure."""

    data: str
    kind: str = ""


class EventDecoder:
    """Bytes of ``text/event-stream`` to events (WHATWG HTML, 9.2.6), as servers write them.

    Beyond the standard: ``[DONE]`` ends an event without the blank line, as does the end of the
    stream, and llama.cpp's older ``error:`` field is an event of that kind. A line, or all of one
    event, of more than ``LONGEST_LINE`` raises ServerError.
    """

    def __init__(self) -> None:
        # Incremental, as a character may be cut between two pieces; "replace", as one bad byte must
        # not cost the whole answer.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._after_cr = False
        self._data: list[str] = []
        self._size = 0
        self._kind = ""

    @property
    def held(self) -> int:
        """Characters of the line and the event that are not at their end."""
        return len(self._rest) + self._size

    def feed(self, chunk: bytes, *, final: bool = False) -> Iterator[Event]:
        """Yield every event that ``chunk`` completes; with ``final``, also one that is open."""
        text = self._decoder.decode(chunk, final)
        if text and self._after_cr:  # the second half of a CRLF
            text, self._after_cr = text.removeprefix("\n"), False
        self._after_cr = self._after_cr or text.endswith("\r")
        lines = (self._rest + text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE:
            raise _too_long("a line")
        for line in [*lines, *((self._rest, "") if final else ())]:
            if line:
                self._field(line)
            # Some servers leave the connection open after ``[DONE]``: without this the last event
            # would wait.
            if (not line or self._data == [DONE]) and self._data:
                yield Event("\n".join(self._data), self._kind)
                self._data.clear()
                self._size = 0
            if not line:
                self._kind = ""

    def _field(self, line: str) -> None:
        """Take one line; ``id``, ``retry`` and comments mean nothing to an answer that is not
        resumed.
        """
        name, _, value = line.partition(":")
        # One space belongs to the syntax, every further one to the data.
        value = value.removeprefix(" ")
        self._size += len(line) if name in ("data", "error") else 0
        if self._size > LONGEST_LINE:
            raise _too_long("an event")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "error":
            self._data.append(value)
            self._kind = "error"


def _too_long(what: str) -> ServerError:
    return ServerError(
        f"the stream held {what} of more than {LONGEST_LINE} characters", hint=WRONG_SERVER
    )
