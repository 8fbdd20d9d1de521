"""Server-sent events, and the description that a stream of them adds up to."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from internvl_modal.errors import ServerError

LONGEST_LINE = 1_000_000
"""Characters; a token's event is a few hundred, and without a bound a line could fill memory."""


class EventDecoder:
    """Bytes of ``text/event-stream`` to the data of each event (WHATWG HTML, 9.2.6).

    A line of more than ``LONGEST_LINE`` raises ServerError.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes, *, final: bool = False) -> Iterator[str]:
        """Yield the data of every event that ``chunk`` completes."""
        text = self._rest + self._decoder.decode(chunk, final)
        held = "\r" if text.endswith("\r") and not final else ""
        text = text[: len(text) - len(held)].replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        if len(rest) > LONGEST_LINE:
            raise ServerError(
                f"the stream held a line of more than {LONGEST_LINE} characters",
                hint="check that the base URL is that of an OpenAI-compatible server",
            )
        self._rest = rest + held
        for line in lines:
            if line:
                self._field(line)
            elif self._data:
                yield "\n".join(self._data)
                self._data.clear()

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
