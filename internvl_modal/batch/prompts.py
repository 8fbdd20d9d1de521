"""What is asked of each input: one prompt, or several by name, alike for all or one a row.

A prompt that a row fills in is part of what a line is known by: with another one the same picture
is asked about again, and with the same one it never is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from internvl_modal.batch.outcome import FIELDS, asked_digest
from internvl_modal.errors import ConfigError

__all__ = ["Filler", "NoPromptError", "Prompt", "Prompts"]

Prompt: TypeAlias = str | Callable[[Mapping[str, Any]], str]
"""A text, or what makes one of a row; ``{name}`` in a text is the row's column of that name."""

_BRACES = re.compile(r"\{([^{}]+)\}")


class NoPromptError(ValueError):
    """A row from which no prompt can be made; the message says why."""


@dataclass(frozen=True)
class Prompts:
    """What is asked, as it was written; ``names`` of several, none of a single one."""

    written: tuple[Prompt, ...]
    names: tuple[str, ...] = ()
    column: str | None = None
    """The column that holds the prompts, in place of the one that is written."""

    @classmethod
    def parse(cls, prompt: object, several: object, column: str | None, *, default: str) -> Prompts:
        """Check what a caller gives; raises ConfigError."""
        given = {"a prompt": prompt, "prompts=": several, "prompt_column=": column}
        said = [name for name, value in given.items() if value is not None]
        if len(said) > 1:
            raise ConfigError(f"{' and '.join(said)} are given", hint="give one of them")
        if several is None:
            return cls((_checked(prompt or default, "the prompt"),), column=column)
        if not isinstance(several, Mapping) or not several:
            raise ConfigError("prompts= is no mapping of names to prompts", hint='{"short": ...}')
        for name in several:
            if not isinstance(name, str) or not name or name in FIELDS:
                raise ConfigError(
                    f"prompts= cannot be called {name!r}", hint="lines have fields of that name"
                )
        texts = (_checked(text, f"prompts[{name!r}]") for name, text in several.items())
        return cls(tuple(texts), tuple(several))

    @property
    def fields(self) -> tuple[str, ...] | None:
        """Columns that a row may be asked for, besides those of pictures; None: all of them."""
        if any(callable(each) for each in self.written):
            return None
        if self.column is not None:
            return (self.column,)
        texts = [each for each in self.written if isinstance(each, str)]
        return tuple(name for text in texts for name in _BRACES.findall(text))

    @property
    def of_rows(self) -> str:
        """Which argument needs a source with rows; '' where none does."""
        if self.column is not None:
            return f"prompt_column={self.column!r}"
        return "the prompt is a function of the row" if self.fields is None else ""

    @property
    def document(self) -> object:
        """What names a run: texts as they are written, functions as such."""
        texts = ["a function" if callable(each) else each for each in self.written]
        if self.names:
            return {"prompts": dict(zip(self.names, texts, strict=True))}
        if self.column is not None:
            return {"prompt_column": self.column}
        return {"prompt": texts[0]} if callable(self.written[0]) else texts[0]

    @property
    def plain(self) -> tuple[str, ...]:
        """The texts as they are written, where they are texts."""
        return tuple("" if callable(each) else each for each in self.written)

    def named(self, texts: tuple[str, ...]) -> str | Mapping[str, str]:
        """The texts of one input as an outcome tells of them; "" where they are as written."""
        if not texts or (self.column is None and texts == self.written):
            return ""
        return dict(zip(self.names, texts, strict=True)) if self.names else texts[0]


class Filler:
    """Makes the prompts of one row after the other; of one run, as it learns the columns."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts
        self._columns: set[str] = set()
        self._rows = False

    def texts(self, row: Mapping[str, Any] | None) -> tuple[tuple[str, ...], str]:
        """What is asked of the row, and the digest of that where rows may differ in it.

        Raises NoPromptError where the row lacks something, ConfigError where there is no row.
        """
        prompts = self._prompts
        self._rows = self._rows or row is not None
        if row is None and prompts.of_rows:
            # A picture beside the table, such as one that metadata.csv does not list.
            if self._rows:
                raise NoPromptError("is in no row, and the prompt is the row's")
            raise ConfigError(f"{prompts.of_rows}, but the source has no rows", hint="give a table")
        if prompts.column is not None and row is not None:
            texts: tuple[str, ...] = (self._cell(row, prompts.column),)
        else:
            texts = tuple(self._text(each, row) for each in prompts.written)
        named = prompts.named(texts)
        return texts, asked_digest(named)

    def _text(self, written: Prompt, row: Mapping[str, Any] | None) -> str:
        if callable(written):
            made: object = written(row or {})
            if not isinstance(made, str) or not made.strip():
                raise ConfigError(f"the prompt of a row is {made!r:.60}", hint="return a text")
            return made
        made = _BRACES.sub(lambda found: self._filled(found, row or {}), written)
        if written.strip() and not made.strip():
            raise NoPromptError(f"makes nothing of the prompt {written!r}")
        return made

    def _filled(self, found: re.Match[str], row: Mapping[str, Any]) -> str:
        name = found[1]
        # A line of JSON may lack a column that the lines before it had: nobody asks "{name}" then.
        if name in row or name in self._columns:
            return self._cell(row, name)
        return found[0]

    def _cell(self, row: Mapping[str, Any], name: str) -> str:
        if name in row:
            self._columns.add(name)
        value = row.get(name)
        if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN
            raise NoPromptError(f"has nothing in column {name}")
        if _is_held(value):
            raise NoPromptError(f"has no text in column {name}")
        text = str(value)
        if name == self._prompts.column and not text.strip():
            raise NoPromptError(f"has no prompt in column {name}")
        return text


def _is_held(value: Any) -> bool:
    """Whether a cell holds pictures or bytes, which as a text would cost more than the picture."""
    if isinstance(value, Mapping):
        return any(map(_is_held, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_is_held, value[:1]))
    # Numpy's numbers have no dimensions.
    pixels = hasattr(value, "getpalette") or getattr(value, "ndim", 0) > 0
    return isinstance(value, bytes | bytearray) or pixels


def _checked(given: object, what: str) -> Prompt:
    """A prompt; raises ConfigError for what is none."""
    if isinstance(given, str) or callable(given):
        return given
    raise ConfigError(f"{what} is {given!r:.60}", hint="give a text, or a function of a row")
