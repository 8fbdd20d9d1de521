"""Whether a text ends where texts end."""

from __future__ import annotations

import re

_NEVER = frozenset(
    "the a an and or of whose which while because although than between into from their our my"
    " your"
    " der das ein eine einen einem einer eines und oder dessen deren"
    " le les une des du et dont plusieurs"
    " los las una y del el"
    " os um uma do"
    " gli della di"
    " и на с к по для что из у".split()
)
"""Words that no sentence and no title ends with."""
_SELDOM = frozenset(
    "with by in on to at as for is are was were has have had his her its be been like that but"
    " off"
    " some several many near behind under über mit von zu im am dans avec sur con en de com".split()
)
"""A title may: "something to hold on to"; a sentence among others hardly."""
_CLOSED = re.compile(r"[.!?…。！？।؟:;)\]}>\"”“»」』》'’`*_|~％%°]\s*\Z")
_LISTED = re.compile(r"^[ \t]*(?:[-*•+]|\d+[.)]|\||#|```)", re.M)
_ADDRESS = re.compile(r"(?:https?://|www\.|@|#)\S+\Z")
_SENTENCE = re.compile(r"[^\W\d_]{2}[\"”)]?[.!?](?=\s)|[。！？](?=.)")
_ENOUGH = 10
"""Words: what is longer than that without an end is no title."""


def is_unfinished(text: str) -> bool:
    """Whether ``text``, prose in any language, breaks off.

    >>> is_unfinished("A man sits on a bench. He is reading a"), is_unfinished("Two cats")
    (True, False)
    """
    text = text.rstrip()
    if not text or _CLOSED.search(text[-4:]):
        return False
    if text[-1] in ",、，(（[{«“„—–-" or re.search(r"\([^()]{0,200}\Z", text):
        return True
    words = text.split()
    last = words[-1].lower()
    if _ADDRESS.search(last) or not text[-1].isalpha():
        return False
    long = len(words) >= _ENOUGH
    sentences = len(_SENTENCE.findall(text))
    if last in _NEVER or (last in _SELDOM and (long or sentences)):
        return not _LISTED.search(text.rpartition("\n")[2]) or last in _NEVER
    return sentences >= 2 and not _LISTED.search(text)
