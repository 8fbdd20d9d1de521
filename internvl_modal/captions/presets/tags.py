"""Tags: a list of short names, divided by commas."""

from __future__ import annotations

import re

from internvl_modal.captions.answer import Answer
from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.rules import Empty, Leftover, Refusal, Repetition

FEWEST, MOST = 3, 30
WORDS = 4
"""Of one tag."""


_NUMBERED = re.compile(r"^[\s\-*•#]*(?:\d+[.)])?\s*")


def tags_of(text: str) -> list[str]:
    """The tags of an answer, each once, whatever divides them.

    >>> tags_of("1. Red car\\n2. street\\n3. street")
    ['red car', 'street']
    """
    parts = re.split(r"[,;\n，、]+", text)
    # Their ends by ``rstrip``: a pattern would look for the end at every dot.
    names = (_NUMBERED.sub("", part).rstrip(" \t\r.*").lower() for part in parts)
    return list(dict.fromkeys(filter(None, names)))


def finish(text: str) -> str:
    """The tags on one line, as trainers read them."""
    return ", ".join(tags_of(text)) or text


class NoTags:
    """Sentences, or too few or too many tags."""

    name = "no-tags"

    def broken(self, answer: Answer) -> bool:
        """Whether it is no list of 3 to 30 tags of at most four words."""
        found = tags_of(answer.text)
        long = any(len(tag.split()) > WORDS or len(tag) > 60 for tag in found)
        return not FEWEST <= len(found) <= MOST or long


PRESET = Preset(
    "tags",
    "List 5 to 20 tags for this image, separated by commas, on one line: objects, place, colours,"
    " mood, style. One to three words each, in lower case, and nothing else.",
    {"max_tokens": 150},
    (Empty(), Refusal(), Repetition(), Leftover(), NoTags()),
    finish=finish,
    again="Your last answer was: {text}\nWrite only the tags, separated by commas, each of"
    " them once.",
)
