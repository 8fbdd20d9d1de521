"""What a check of a cached model found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verification:
    """What a verification found; ``bad`` files are missing, cut or changed."""

    model: str
    commit: str
    variants: tuple[str, ...]
    files: int
    bad: tuple[str, ...]
    deep: bool

    @property
    def ok(self) -> bool:
        """Whether every file is as the manifest says."""
        return not self.bad
