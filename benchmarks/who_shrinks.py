"""Who shrinks a picture: ``describe_many`` with 12 MP files and servers of several kinds.

    python -m benchmarks.who_shrinks [--rounds N]

Prints a table: pictures a second and the client's CPU for "always", "never" and "auto". The servers
are ``benchmarks.server``: as on another machine, they sleep for what preprocessing takes. Run it in
the environment that ``python -m benchmarks`` makes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.__main__ import go, null_server
from benchmarks.photographs import large

SERVERS = {
    "null server": ((), 400),
    "four workers": (("--workers", "4"), 240),
    "one worker": (("--workers", "1"), 96),
    "four workers behind 50 Mbit/s": (("--workers", "4", "--mbit", "50"), 240),
}
"""Arguments of the server, and how many pictures it gets."""
WAYS = ("batch-always", "batch-never", "batch")


def main() -> None:
    """Measure in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    rounds = parser.parse_args().rounds
    print("| server | always | never | auto |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        folder = large(Path(work) / "large", 4)
        for name, (arguments, count) in SERVERS.items():
            turns = []
            with null_server(("--latency", "0.05", *arguments)) as (url, key):
                for _ in range(rounds):
                    turns.append([go(way, url, key, folder, count) for way in WAYS])
            cells = [
                f"{statistics.median(turn[way]['rate'] for turn in turns):.1f}/s, CPU "
                f"{statistics.median(turn[way]['cpu_ms'] for turn in turns):.0f} ms"
                for way in range(len(WAYS))
            ]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
