"""What a batch takes as it grows: CPU for each picture, and memory, in one process for each size.

    python -m benchmarks.growth [MOST]

Tiny pictures under as many keys against the null server; MOST is a million by default.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.__main__ import null_server
from benchmarks.peers import ROOT


def batch(url: str, folder: str, count: int) -> None:
    """One batch to the end; prints CPU ms for each picture and the most MiB that were resident."""
    import re

    import internvl_modal as ivl
    from benchmarks.ways import Meter

    file = next(str(path) for path in Path(folder).iterdir())

    def pairs(number: int) -> Iterator[tuple[str, str]]:
        return ((f"photos/{index:07}.jpg", file) for index in range(number))

    meter = Meter()
    with tempfile.TemporaryDirectory() as out, ivl.Client(base_url=url) as client:
        list(client.describe_many(pairs(64)))
        meter.start()
        many = client.describe_many(
            pairs(count), out=f"{out}/captions.jsonl", concurrency=64, detail=1
        )
        described = sum(outcome.ok for outcome in many)
    assert described == count
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    print(json.dumps({**meter.report(count), "mib": int(found[1]) / 1024}))


def main() -> None:
    """Print the table."""
    from PIL import Image

    match sys.argv[1:]:
        case ["child", url, folder, count]:
            batch(url, folder, int(count))
            return
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print("| pictures | CPU ms each | pictures/s | most MiB |\n|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as folder,
        null_server(("--latency", "0")) as (url, _),
    ):
        Image.new("RGB", (64, 48), "teal").save(f"{folder}/teal.jpg")
        count = 1
        while count <= most:
            command = [sys.executable, "-m", "benchmarks.growth", "child", url, folder, str(count)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {count:,} | {found['cpu_ms']:.2f} | {found['rate']:.0f} | {found['mib']:.0f} |",
                flush=True,
            )
            count *= 10


if __name__ == "__main__":
    main()
