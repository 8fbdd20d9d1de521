"""2,000 pictures, and a server that answers one in ten of them badly, in ten ways."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import internvl_modal as ivl
from tests.batch.conftest import lines, make_pictures
from tests.captions.conftest import QUICK, Bad
from tests.captions.server import SAME, WAYS, bad_way, cure

PICTURES = 2000
ASKED = "Describe this image in detail."


def digests(log: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The requests of each picture, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in log:
        found.setdefault(each["picture"], []).append(each)
    return found


def expected(digest: str) -> set[str]:
    """The flags of what stays bad."""
    way = bad_way(digest, 0.1)
    flags = {
        "cut": {"cut"},
        "repetition": {"cut", "repetition"},
        "thinking": {"leftover"},
        "language": {"language", "same-text"},
        "refusal": {"refusal", "same-text"},
        "one-word": {"one-word", "same-text"},
        None: set(),
    }
    return flags.get(way, {str(way)})


@pytest.mark.parametrize("on_flag", ["record", "retry", "fail"])
def test_no_flagged_answer_is_in_the_output_unmarked(
    bad: Callable[..., Bad], tmp_path: Path, on_flag: Any
) -> None:
    server, out = bad("--bad", "0.1"), tmp_path / "captions.jsonl"
    folder = make_pictures(tmp_path / "photos", PICTURES)
    with (
        ivl.Client(base_url=server.url, retry=QUICK) as client,
        client.describe_many(
            folder, ASKED, out=out, on_flag=on_flag, language="en", progress=False
        ) as batch,
    ):
        outcomes = list(batch)
    asked, written = digests(server.log()), lines(out)
    assert len(asked) == PICTURES
    keys = Counter(line["key"] for line in written)
    assert len(keys) == PICTURES
    assert set(keys.values()) == {1}
    assert {outcome.key: outcome.flags for outcome in outcomes} == {
        line["key"]: tuple(line.get("flags", ())) for line in written
    }

    # Every text that the server gave as a bad one is marked; the first three of a text may be so.
    bad_texts = {
        each["text"]: digest
        for digest, requests in asked.items()
        for each in requests
        if bad_way(digest, 0.1) is not None and each["temperature"] < cure(digest)
    }
    unmarked = [
        line
        for line in written
        if "error" not in line and line["text"] in bad_texts and not line["flags"]
    ]
    assert len(unmarked) <= 3
    assert all(line["text"] == SAME for line in unmarked)
    for line in written:
        if line.get("flags") and "error" not in line and line["text"] != SAME:
            assert set(line["flags"]) <= expected(bad_texts[line["text"]]) | {"same-text"}
    good = [line for line in written if not line.get("flags") and "error" not in line]
    assert len(good) - len(unmarked) == len(
        [line for line in good if line["text"] not in bad_texts]
    )

    # What the ladder did is counted, by the server and by the batch.
    requests = sum(map(len, asked.values()))
    assert requests == sum(line["attempts"] for line in written)
    summary = batch.summary
    assert summary.flagged == sum(
        bool(line.get("flags")) and "error" not in line for line in written
    )
    climbed = [line for line in written if line.get("tried")]
    assert summary.asked_again == len(climbed)
    ways = {bad_way(digest, 0.1) for digest in asked} - {None}
    assert ways == set(WAYS)
    if on_flag == "retry":
        assert len(climbed) > 100
        for line in climbed:
            if not line.get("flags") and "error" not in line:
                assert line["tried"][-1].endswith("good")
        # Most are cured on the way; what is not is marked.
        assert summary.flagged < 0.5 * len(climbed)
    else:
        assert not climbed
    failed = [line for line in written if "error" in line]
    assert summary.failed == len(failed)
    for line in failed:
        kind = line["error"]["type"]
        assert kind in ("EmptyAnswerError", "AnswerFlaggedError")
        if kind == "AnswerFlaggedError":
            assert on_flag == "fail"
            assert line["flags"]
            assert line["error"]["text"] in bad_texts
    print(json.dumps({"on_flag": on_flag, "requests": requests, "flagged": summary.flagged,
                      "asked again": len(climbed), "failed": len(failed)}))  # fmt: skip
