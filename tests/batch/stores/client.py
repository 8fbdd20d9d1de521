"""Describe what lies at an address, in a process whose environment says which store it is.

python -m tests.batch.stores.client ADDRESS URL [--put] [--out]

The store holds the files of ``FILES`` under the address, or gets them with ``--put``. Prints JSON:
for each source the keys that were described, and what was said of the others.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from fsspec.core import url_to_fs

import internvl_modal as ivl
from tests.batch.stores.files import FILES, SOURCES


def put(address: str) -> None:
    """Write the files as users do, with the store's own client."""
    system, top = url_to_fs(address)
    for name, data in FILES.items():
        system.pipe_file(f"{top}/{name}", data)


def described(client: ivl.Client, images: Any, **options: Any) -> dict[str, str]:
    """What became of each key; "" is a description."""
    found: dict[str, str] = {}
    try:
        for outcome in client.describe_many(images, detail=1, progress=False, **options):
            found[outcome.key] = str(outcome.error or "")
    except ivl.InternVLError as error:
        found["raised"] = f"{type(error).__name__}: {error}"
    return found


def written(client: ivl.Client, address: str, out: str) -> list[object]:
    """A run and the same again: what each described, and what the second skipped."""
    source = f"{address}/deep"
    first = described(client, source, out=f"{address}-out/{out}")
    again = client.describe_many(source, detail=1, out=f"{address}-out/{out}", progress=False)
    return [first, list(again), again.summary.skipped]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("url")
    parser.add_argument("--put", action="store_true")
    parser.add_argument("--out", action="store_true")
    told = parser.parse_args()
    if told.put:
        put(told.address)
    report: dict[str, object] = {}
    with ivl.Client(base_url=told.url, retry=ivl.Retry(attempts=2, initial=0.01)) as client:
        for source, options in SOURCES.items():
            report[source] = described(client, f"{told.address}{source}", **options)
        if told.out:
            for out in ("captions.jsonl", "captions.parquet"):
                report[out] = written(client, told.address, out)
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
