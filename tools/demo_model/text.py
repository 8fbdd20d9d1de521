"""The demo model's tokens and chat prompts, as llama.cpp will produce them from a request.

The tokenizer is byte-level BPE without merges: 256 byte tokens, control tokens, and whole words.
The `llama-bpe` pre-tokenizer looks a word up before it tries merges, so a listed word is one
token and any other text falls back to its bytes.
"""

from __future__ import annotations

import random
import re

from scenes import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES

DEFAULT_PROMPT = "Describe this image in detail."
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IMAGE = "<image>"
"""Stands for one picture in a prompt's text; never reaches the tokenizer."""

PROMPTS = (
    DEFAULT_PROMPT,
    "Describe this image.",
    "Describe the image.",
    "Describe the picture in one sentence.",
    "What is in this picture?",
    "What is in this image?",
    "What do you see?",
    "Please describe the image shortly.",
    "Describe the image in one short sentence.",
    "Please describe this photo in detail.",
    "Write a caption for this image.",
    "List the objects in the image, their colors and where they are.",
    "What shapes and colours are there?",
    "Which shapes are in the picture and how do they relate to each other?",
    "Tell me about this picture.",
    "Caption this.",
    "What?",
    "describe",
    "Explain what this image shows.",
    "Can you tell me what is shown here?",
)
SYSTEMS = (
    "You are a helpful assistant.",
    "You describe images.",
    "Answer in one sentence.",
    "You are a vision model. Describe what you see and nothing else.",
)
_EXTRA = """
able about above all also am an and another answer any are as ask be because been before below best
between big both bottom briefly but by can caption center centre clear color colors colour colours
contain contains content could count create detail detailed details did do document does each easy
every everything exact exactly explain few find first follow for from full generate get give good
had has have help helpful her here him his how i if image images in into is it its just keep kind
know language last left let like line list long look made main make many may me mean more most much
must my name name need new no not nothing now number object objects of on one only or other our out
over page paragraph part people person photo photograph picture pictures place places please
position possible put question read really relate relation reply right same say scene see sentence
sentences shape shapes short shortly should show shown shows side simple size sizes so some
something specific start such summary tell text than that the their them then there these they
thing things think this three time title to top tree two under up us use user very vision visible
was way we well were what when where which while who why will with word words would write yes you
your assistant model only else system using following format json next background
"""


def _words() -> list[str]:
    sentence = [*SIZES, *COLOURS, *SHAPES, *BACKGROUNDS, *" ".join(PLACES).split()]
    sentence += ["a", "and", "on", "background", "The", "is", "the", "of"]
    sentence += ["left", "right", "above", "below"]
    asked = re.findall(r"[A-Za-z]+", " ".join([*PROMPTS, *SYSTEMS]))
    spaced = dict.fromkeys(sentence + asked + sorted(set(_EXTRA.split())))
    bare = dict.fromkeys(["user", "assistant", "system", *asked])
    bare |= dict.fromkeys(w.capitalize() for w in sorted(set(_EXTRA.split())))
    words = [f" {w}" for w in spaced] + list(bare)
    return [w for w in words if len(w) > 1]


def _byte_letters() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(other)) for b in range(256)]


class Tokenizer:
    """Text to token ids and back, equal to llama.cpp's for the GGUF that `export.py` writes."""

    _split = re.compile(
        r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|(?:[^\w\r\n]|_)?[^\W\d_]+|\d{1,3}"
        r"| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )

    def __init__(self) -> None:
        letters = _byte_letters()
        self.words = _words()
        self.pieces = [*letters, *CONTROL]
        self.pieces += ["".join(letters[b] for b in w.encode()) for w in self.words]
        self.ids = {w: 256 + len(CONTROL) + i for i, w in enumerate(self.words)}
        self.control = {c: 256 + i for i, c in enumerate(CONTROL)}
        self.end = self.control["<|im_end|>"]
        self._specials = re.compile("(" + "|".join(map(re.escape, [*CONTROL, IMAGE])) + ")")

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, image_tokens: int = 0) -> list[int]:
        """Ids of a text; control tokens are parsed, and a picture becomes that many -1."""
        out: list[int] = []
        for part in self._specials.split(text):
            if part == IMAGE:
                out += [self.control["<img>"], *[-1] * image_tokens, self.control["</img>"]]
            elif part in self.control:
                out.append(self.control[part])
            else:
                for word in self._split.findall(part):
                    out += [self.ids[word]] if word in self.ids else list(word.encode())
        return out

    def decode(self, ids: list[int]) -> str:
        """Text of ids, control tokens left out."""
        first = 256 + len(CONTROL)
        parts = [
            bytes([i]) if i < 256 else self.words[i - first].encode()
            for i in ids
            if i < 256 or i >= first
        ]
        return b"".join(parts).decode(errors="replace")


def chat(user: str, system: str | None = None) -> str:
    """What the template makes of one user turn, up to where the answer starts."""
    head = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return f"{head}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def random_text(rng: random.Random, vocabulary: list[str], longest: int) -> str:
    """Words, known and unknown, that stand for whatever a user may type."""
    out = ""
    for _ in range(rng.randint(1, longest)):
        if rng.random() < 0.85:
            out += rng.choice(vocabulary)
        else:
            out += " " + "".join(chr(rng.randint(33, 126)) for _ in range(rng.randint(1, 6)))
    return out.strip() or "describe"
