"""What a thinking model wrote before its answer, cut from the text and kept apart."""

from __future__ import annotations

import re

from internvl_modal.protocol.stop_sequences import overlap

_OPEN = ("<think>", "<thinking>", "<reasoning>", "<seed:think>", "◁think▷")
_CLOSE = ("</think>", "</thinking>", "</reasoning>", "</seed:think>", "◁/think▷")
"""Qwen, DeepSeek and InternVL 3.5 write the first; then come Seed's and Kimi's."""
_BEFORE = re.compile(rf"\A(?P<thought>.*?)(?:{'|'.join(_CLOSE)})\s*", re.S)


_OPENS, _CLOSES = (re.compile("|".join(map(re.escape, marks))) for marks in (_OPEN, _CLOSE))


class ReasoningCutter:
    """Passes text on, without what stands between ``<think>`` and ``</think>``.

    Holds back what may be the start of either; ``reasoning`` is what was cut.

    For streams: a mark may come in pieces, and what has been passed on cannot be taken back.

    >>> cutter = ReasoningCutter()
    >>> cutter.feed("<thi"), cutter.feed("nk>hm</think> A cat."), cutter.reasoning
    ('', 'A cat.', 'hm')
    """

    def __init__(self) -> None:
        self._held = ""
        self._thoughts: list[str] = []
        self._given = 0
        self._inside = False
        self._begun = False

    @property
    def reasoning(self) -> str:
        """Every thought so far."""
        return "".join(self._thoughts).strip()

    def news(self) -> str:
        """Thoughts since the last call, as they were written."""
        new, self._given = self._thoughts[self._given :], len(self._thoughts)
        return "".join(new)

    @property
    def unfinished(self) -> bool:
        """Whether the text so far ends in the middle of a thought."""
        return self._inside

    def feed(self, text: str) -> str:
        """The part of ``text`` that is answer, as far as that is certain."""
        text, self._held = self._held + text, ""
        passed: list[str] = []
        start = 0
        # From mark to mark in one pass: an answer of nothing but marks must not cost its square.
        while found := (_CLOSES if self._inside else _OPENS).search(text, start):
            (self._thoughts if self._inside else passed).append(text[start : found.start()])
            self._inside = not self._inside
            start = found.end()
        rest = text[start:]
        held = max(overlap(rest, mark) for mark in (_CLOSE if self._inside else _OPEN))
        (self._thoughts if self._inside else passed).append(rest[: len(rest) - held])
        self._held = rest[len(rest) - held :]
        return self._answer("".join(passed))

    def finish(self) -> str:
        """What was held back and turned out to be ordinary text."""
        held, self._held = self._held, ""
        if self._inside:
            self._thoughts.append(held)
            return ""
        return self._answer(held)

    def _answer(self, text: str) -> str:
        """``text`` without the white space between a thought and the answer."""
        if self._thoughts and not self._begun:
            text = text.lstrip()
        self._begun = self._begun or bool(text.strip())
        return text


def split_reasoning(text: str) -> tuple[str, str]:
    """The answer and the reasoning of a whole text.

    A closing mark alone means that the template opened the thought (Qwen 3, DeepSeek R1).

    A stream has passed such a thought on before its mark came: only the description is then right.
    """
    if "<" not in text and "◁" not in text:  # with which every mark begins
        return text, ""
    cutter = ReasoningCutter()
    answer = cutter.feed(text) + cutter.finish()
    alone = None if cutter.reasoning else _BEFORE.match(answer)
    if alone is None:
        return answer, cutter.reasoning
    return answer[alone.end() :], alone["thought"].strip()
