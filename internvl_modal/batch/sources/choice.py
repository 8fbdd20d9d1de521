"""What a caller says of columns, and of how much is read."""

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


@dataclass(frozen=True)
class Part:
    """What of a source is read: all of it, the first ``limit``, or ``sample`` drawn from it."""

    limit: int | None = None
    sample: int | None = None
    seed: int = 0

    @property
    def is_part(self) -> bool:
        """Whether it is not all."""
        return self.limit is not None or self.sample is not None

    def of(self, whole: int | None) -> int | None:
        """How many inputs that are, of ``whole``; None where nobody knows."""
        most = self.limit if self.limit is not None else self.sample
        return whole if most is None else most if whole is None else min(most, whole)
