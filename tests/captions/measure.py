"""Precision and recall of each rule: python -m tests.captions.measure [shown|held-back].

``answers.jsonl`` was labelled before there were rules. The rules were written with the half that
is "shown"; the other half only measures them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_modal.captions.answer import Answer
from internvl_modal.captions.rules import RULES, flags

ANSWERS = Path(__file__).with_name("answers.jsonl")


@dataclass(frozen=True)
class Measured:
    rule: str
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0

    @property
    def row(self) -> str:
        counts = f"{self.right + self.missed} | {self.right} | {self.wrong}"
        return f"| `{self.rule}` | {counts} | {self.precision:.2f} | {self.recall:.2f} |"


def labelled(part: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["part"] == part]


def flagged(row: dict[str, Any]) -> tuple[str, ...]:
    told = ("text", "prompt", "finish_reason", "language")
    return flags(Answer(**{name: row[name] for name in told}))


def measure(part: str) -> list[Measured]:
    rows = [(set(row["flags"]), set(flagged(row))) for row in labelled(part)]
    return [
        Measured(
            rule.name,
            sum(rule.name in label and rule.name in found for label, found in rows),
            sum(rule.name not in label and rule.name in found for label, found in rows),
            sum(rule.name in label and rule.name not in found for label, found in rows),
        )
        for rule in RULES
        if rule.name != "same-text"  # of several answers
    ]


def table(part: str = "held-back") -> str:
    head = "| rule | labelled so | found | found wrongly | precision | recall |\n|---|---|---|---|---|---|"
    return "\n".join([head, *(each.row for each in measure(part))])


if __name__ == "__main__":
    part = sys.argv[1] if len(sys.argv) > 1 else "held-back"
    print(table(part))
    if part == "shown":
        for row in labelled(part):
            if set(row["flags"]) != set(found := flagged(row)):
                print(row["id"], row["flags"], found, repr(row["text"][:90]))
