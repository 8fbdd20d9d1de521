"""What a caller says of columns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """Which columns hold pictures and keys, and what divides them; None where it shows.

    Checked against the source by ``inputs.check_choice`` before anything is read.
    """

    column: str | None = None
    key: str | None = None
    delimiter: str | None = None
    pages: str | int | tuple[int, ...] | None = None
    """Of a PDF; None for all."""
    fields: tuple[str, ...] | None = ()
    """Further columns that rows must bring along, as prompts name them; None: all of them."""
    prompts: str = ""
    """Which argument needs rows, for messages; '' where none does."""

    @property
    def given(self) -> str:
        """What is said of columns, for messages; '' where nothing is."""
        said = {"column": self.column, "key": self.key, "delimiter": self.delimiter}
        named = [f"{name}={value!r}" for name, value in said.items() if value is not None]
        return ", ".join([*named, *filter(None, [self.prompts])])
