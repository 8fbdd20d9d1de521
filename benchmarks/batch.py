"""Batches against a server on this machine: memory, the cost of writing, the best concurrency.

python benchmarks/batch.py memory [PLOT.png] | writing | auto
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.batch.conftest import Fast, make_pictures

INPUTS = 100_000


def resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def batch(url: str, folder: str, out: str, inputs: int) -> None:
    """One batch over few files under many keys; prints [done, seconds, MiB] now and then."""
    import internvl_modal as ivl

    files = sorted(str(path) for path in Path(folder).iterdir())

    def pairs() -> Iterator[tuple[str, str]]:
        for index in range(inputs):
            yield f"photos/{index:06}.jpg", files[index % len(files)]

    begun = time.monotonic()
    with ivl.Client(base_url=url) as client:
        outcomes = client.describe_many(pairs(), out=out or None, detail=1, concurrency=16)
        for number, _ in enumerate(outcomes, 1):
            if number % 500 == 0:
                print(json.dumps([number, time.monotonic() - begun, resident()]), flush=True)


def child(server: Fast, folder: Path, out: str, inputs: int) -> list[list[float]]:
    """Run ``batch`` in a process of its own; what it printed, and its peak at the end."""
    done = subprocess.run(
        [sys.executable, __file__, "child", server.url, str(folder), out, str(inputs)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def memory(plot: str | None) -> None:
    """Memory of one process over 100,000 inputs."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_pictures(Path(temporary) / "pictures", 1000)
        server = Fast()
        try:
            rows = child(server, folder, f"{temporary}/out.jsonl", INPUTS)
        finally:
            server.end()
        written = Path(temporary, "out.jsonl").read_bytes().count(b"\n")
    for number, seconds, size in rows:
        if number in (500, 10_000, 25_000, 50_000, 75_000, INPUTS):
            print(f"{number:7,} done in {seconds:6.0f} s: {size:6.1f} MiB")
    print(f"{written:,} lines; peak {max(row[2] for row in rows):.1f} MiB")
    if plot:
        _draw(rows, plot)


def _draw(rows: list[list[float]], plot: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3))
    axes.plot([row[0] for row in rows], [row[2] for row in rows])
    axes.axhline(150, linestyle=":", color="grey")
    axes.set(xlabel="pictures done", ylabel="MiB resident", ylim=(0, 160), xlim=(0, rows[-1][0]))
    figure.tight_layout()
    figure.savefig(plot, dpi=110)


def writing() -> None:
    """Seconds that 100,000 lines cost, a few at a time, and that their pictures cost."""
    from internvl_modal.batch.outcome import Outcome
    from internvl_modal.batch.sinks.jsonl import JsonLines
    from internvl_modal.schema.results import Description, Usage

    usage = Usage(prompt_tokens=3000, completion_tokens=150)
    text = "A red bus waits at a stop in the rain. " * 16
    described = Description(text=text, model="m", finish_reason="stop", usage=usage)
    with tempfile.TemporaryDirectory() as temporary:
        sink = JsonLines(Path(temporary) / "out.jsonl", resume=True, retry_errors=False)
        sink.open("run")
        begun = time.perf_counter()
        for start in range(0, INPUTS, 4):
            sink.write([Outcome(f"photos/{start + i}.jpg", "", described) for i in range(4)])
        sink.close()
        lines = (time.perf_counter() - begun) / INPUTS
        server = Fast()
        try:
            folder = make_pictures(Path(temporary) / "pictures", 1000)
            picture = child(server, folder, "", 5000)[-1][1] / 5000
        finally:
            server.end()
    print(f"{lines * 1e6:.0f} us a line, fsync included; {picture * 1e6:.0f} us the least that")
    print(f"a picture takes on this machine without output: {lines / picture:.1%}")


def auto() -> None:
    """Pictures per second against a server of 16 slots, 50 ms each."""
    import internvl_modal as ivl

    with tempfile.TemporaryDirectory() as temporary:
        folder = make_pictures(Path(temporary) / "pictures", 3000)
        for concurrency in (4, 8, 16, 32, "auto"):
            server = Fast("--latency", "0.05", "--slots", "16")
            try:
                with ivl.Client(base_url=server.url) as client:
                    begun = time.monotonic()
                    done = list(
                        client.describe_many(str(folder), detail=1, concurrency=concurrency)
                    )
                    rate = len(done) / (time.monotonic() - begun)
                print(f"{concurrency!s:>5}: {rate:6.1f} pictures/s")
            finally:
                server.end()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["child", url, folder, out, inputs]:
            batch(url, folder, out, int(inputs))
        case ["memory", *rest]:
            memory(rest[0] if rest else None)
        case ["writing"]:
            writing()
        case ["auto"]:
            auto()
        case _:
            sys.exit(__doc__)
