"""A data set that is pushed to the Hub, by the packages that do it, to a Hub on loopback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pyarrow import parquet

from tests.batch.conftest import Fast
from tests.batch.hub_that_takes import Hub

WORK = """
import sys, internvl_modal as ivl
client = ivl.Client(base_url=sys.argv[1], model="internvl2_5-78b")
batch = client.describe_many(
    "pictures", "What is it?", out="hf://datasets/me/captions", detail=1, max_tokens=50
)
print(len(list(batch)))
"""


def push(hub: Hub, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WORK, url],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_" + "x" * 34,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HOME": str(Path("hf").absolute()),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_data_set_with_its_card(
    fast: Callable[..., Fast], pictures: Callable[[int], Path]
) -> None:
    folder, server = pictures(6), fast()
    (folder / "broken.jpg").write_bytes(b"")
    with Hub(refuse=True) as hub:
        refused = push(hub, server.url)
    assert "me/captions cannot be pushed" in refused.stderr
    assert "hf auth login" in refused.stderr
    assert len(server.report()["log"]) == 6
    with Hub() as hub:
        done = push(hub, server.url)
        assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr + str(hub.asked)
    assert server.report()["log"] == []  # what was paid for is in the journal
    (name,) = (name for name in hub.files if name.endswith(".parquet"))
    rows = parquet.read_table(io.BytesIO(hub.files[name])).to_pylist()
    assert len({row["key"] for row in rows}) == 6
    assert all(row["image"]["bytes"].startswith(b"\x89PNG") for row in rows)
    card = hub.files["README.md"].decode()
    for words in ("internvl2_5-78b", "What is it?", "| max_tokens | `50` |", "1 more failed",
                  "dataset_info", "internvl-modal", "revision", "flags"):  # fmt: skip
        assert words in card, card
