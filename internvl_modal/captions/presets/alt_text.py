"""Alt text: what a screen reader says in place of a picture.

At most 125 characters, as screen readers pause there, in whole sentences, and without "image of",
which the reader says itself (W3C, "An alt Decision Tree"; the length is the custom of editors).
"""

from __future__ import annotations

from internvl_modal.captions.presets.base import Preset
from internvl_modal.captions.presets.limits import TooLong, Unfinished
from internvl_modal.captions.rules import Empty, Leftover, OneWord, Opener, Refusal, Repetition

CHARACTERS = 125

PRESET = Preset(
    "alt-text",
    "Write alt text for this image: one or two whole sentences of at most 100 characters in all"
    " that say what matters in it. Do not begin with 'image of' or 'picture of'.",
    {"max_tokens": 80},
    (
        Empty(),
        Refusal(),
        OneWord(),
        Repetition(),
        Leftover(),
        Opener(),
        TooLong(CHARACTERS),
        Unfinished(),
    ),
    finish=str.strip,
    again="Your last text had {characters} characters: {text}\nWrite another, shorter one, in one"
    " whole sentence of at most 80 characters.",
)
