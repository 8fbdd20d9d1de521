"""Ours and theirs in one interleaved run; writes the tables of this folder's README.

    python -m benchmarks [--rounds N] [--only ROW ...] [--lmdeploy]

Installs the peers in an environment of its own and runs there. ``--lmdeploy`` also starts
LMDeploy's own front end, whose environment (4 GB) the conformance tests make. Each row's ways take
turns, each in a new process against one server, so that what else the machine does falls on all of
them; the ratio is the median over the rounds, with the least and the most beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import ROOT, environment

README = Path(__file__).with_name("README.md")
PICTURE = Path(__file__).with_name("bars.png")
BEGIN, END = "<!-- bars: begin -->\n", "<!-- bars: end -->\n"
INSIDE = "BENCHMARKS_INSIDE_THEIR_ENVIRONMENT"


@dataclass(frozen=True)
class Row:
    """Two ways over the same pictures; the bars are of ours by theirs."""

    name: str
    ours: str
    theirs: str
    pictures: str
    count: int
    server: tuple[str, ...] = ("--latency", "0.05")
    least_rate: float | None = None
    most_cpu: float | None = None


ROWS = {
    "small": Row(
        "100 KB JPEGs, files to captions", "batch", "loop", "small", 5000,
        least_rate=2.5, most_cpu=0.35,
    ),
    "large": Row(
        "12 MP, null server, all shrunk", "batch-always", "loop", "large", 40,
        least_rate=0.45, most_cpu=2.5,
    ),
    "large-auto": Row(
        "12 MP, null server, as it is measured", "batch", "loop", "large", 1000, least_rate=0.45,
        most_cpu=2.5,
    ),
    "call": Row(
        "whole call, 235 KB from memory", "calls", "openai", "noise", 800,
        server=("--latency", "0"), least_rate=3,
    ),
    "threads": Row(
        "sync client in 32 threads, against the async one", "threads", "calls-32", "noise", 800,
        server=("--latency", "0"), least_rate=0.7,
    ),
    "shrinking": Row(
        "12 MP to its grid, two threads against one", "shrink-2", "shrink-1", "large", 60,
        least_rate=1.7,
    ),
    "local": Row(
        "100 KB JPEGs through the bundled engine, against raw HTTP", "local", "local-raw", "small",
        40, least_rate=0.95,
    ),
    "demo": Row(
        "scenes through the demo model, against raw HTTP", "demo", "demo-raw", "scenes", 300,
    ),
    "lmdeploy": Row(
        "12 MP into LMDeploy's front end", "batch", "loop", "large", 48, server=(), least_rate=5,
    ),
    "lmdeploy-before": Row(
        "the same, brought to their grid before", "batch-before", "loop", "large", 48, server=(),
    ),
}  # fmt: skip
PREPARING = {"prepare": ("with `fast`", 45), "prepare-plain": ("without", 60)}
STARTS = {
    "`internvl-modal --version`": (["-m", "internvl_modal", "--version"], 120),
    "`internvl-modal --help`": (["-m", "internvl_modal", "--help"], 250),
    "`Client(base_url=...)` made": (
        ["-c", "import internvl_modal as i; i.Client(base_url='http://127.0.0.1:9/v1')"],
        300,
    ),
    "`describe` with the demo model": (
        ["-m", "internvl_modal", "describe", "--backend", "local", "--model", "demo", "{scene}"],
        600,
    ),
}


@contextmanager
def null_server(arguments: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """A server of ours: its URL, and a key that it does not look at."""
    command = [sys.executable, "-m", "benchmarks.server", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), "k"
        finally:
            server.terminate()
            server.communicate()


@contextmanager
def lmdeploy(folder: Path) -> Iterator[tuple[str, str]]:
    """LMDeploy's own front end; only the tokens are ours."""
    from tests.conformance.environment import NEW
    from tests.conformance.serving import serving

    model = folder / "InternVL3-8B"
    model.mkdir(exist_ok=True)
    with serving(NEW, model, folder / "lmdeploy.log") as front:
        yield front.url, front.key


def go(way: str, url: str, key: str, folder: Path, count: int) -> dict[str, float]:
    """One way, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ways", way, url, key, str(folder), str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(row: Row, folder: Path, url: str, key: str, rounds: int) -> list[list[dict[str, float]]]:
    """Ours and theirs in turn, so many times."""
    turns = []
    for _ in range(rounds):
        turns.append([go(way, url, key, folder, row.count) for way in (row.ours, row.theirs)])
        print(f"{row.name}: {turns[-1]}", file=sys.stderr, flush=True)
    return turns


def spread(values: list[float]) -> str:
    """Median, and least to most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def line(row: Row, turns: list[list[dict[str, float]]]) -> str:
    """A row of the table."""
    rates = [ours["rate"] / theirs["rate"] for ours, theirs in turns]
    cpus = [ours["cpu_ms"] / theirs["cpu_ms"] for ours, theirs in turns]
    each = [statistics.median(turn[i]["cpu_ms"] for turn in turns) for i in (0, 1)]
    bars = [f"rate >= {row.least_rate:g}"] if row.least_rate else []
    bars += [f"CPU <= {row.most_cpu:g}"] if row.most_cpu else []
    cells = [row.name, spread(rates), spread(cpus), *(f"{value:.2f}" for value in each)]
    return "| " + " | ".join([*cells, ", ".join(bars)]) + " |"


def starting(scene: Path, rounds: int) -> Iterator[str]:
    """CPU milliseconds of whole processes, the least of several."""
    for name, (arguments, bar) in STARTS.items():
        used = []
        for _ in range(2 * rounds + 1):
            words = [word.format(scene=scene) for word in arguments]
            child = subprocess.Popen(
                [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            begun = time.perf_counter()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            assert child.returncode == 0, name
            used.append((usage.ru_utime + usage.ru_stime, time.perf_counter() - begun))
        cpu, wall = (1000 * min(values) for values in zip(*used, strict=True))
        yield f"| {name} | {cpu:.0f} | {wall:.0f} | {bar} |"


def disturbance() -> float:
    """How much longer than its CPU time a busy second takes here: 1 on an idle machine."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 1:
        pass
    return time.perf_counter() - wall


def tables(names: list[str], rounds: int, work: Path) -> tuple[str, dict[str, list[float]]]:
    """All that is written into the README, and the ratios of rates for the picture."""
    from benchmarks.photographs import large, noise, small

    folders = {"small": small(work / "small", 200), "large": large(work / "large", 4)}
    folders["noise"] = work / "noise"
    folders["noise"].mkdir()
    (folders["noise"] / "noise.jpg").write_bytes(noise())
    folders["scenes"] = work / "scenes"
    folders["scenes"].mkdir()
    draw_scene(folders["scenes"] / "scene.png")
    tiny_model(work / "model")
    busy = [disturbance()]
    rows, ratios = [], {}
    for name in names:
        row = ROWS[name]
        server = null_server(row.server) if row.server else lmdeploy(work)
        with server as (url, key):
            turns = run(row, folders[row.pictures], url, key, rounds)
        rows.append(line(row, turns))
        ratios[row.name] = [ours["rate"] / theirs["rate"] for ours, theirs in turns]
        busy.append(disturbance())
    preparing = [
        f"| 12 MP to its grid, {how} | {min(figures):.0f} | {bar} |"
        for way, (how, bar) in PREPARING.items()
        if (figures := [go(way, "", "", folders["large"], 25)["cpu_ms"] for _ in range(rounds)])
    ]
    started = list(starting(folders["scenes"] / "scene.png", rounds))
    text = [
        f"{rounds} rounds, in which ours and theirs took turns; a busy second took {min(busy):.2f} "
        f"to {max(busy):.2f} s meanwhile (1 on an idle machine). Ratios are ours by theirs: the "
        "median, and the least and the most.\n",
        "| work | rate | CPU | ours, ms | theirs, ms | bar |\n|---|---|---|---|---|---|",
        *rows,
        "\n| picture | CPU ms, least | bar |\n|---|---|---|",
        *preparing,
        "\n| process | CPU ms, least | ms in all, least | bar |\n|---|---|---|---|",
        *started,
        "\n![rates](bars.png)",
    ]
    return "\n".join(text) + "\n", ratios


def tiny_model(folder: Path) -> None:
    """An InternVL of random weights, 5 MB, with tiles of 448 pixels."""
    from tests.tiny_model import REAL_TILE, write_tiny_model

    folder.mkdir()
    write_tiny_model(folder, tile=REAL_TILE)


def draw_scene(path: Path) -> Path:
    """A picture that the demo model knows."""
    from PIL import Image, ImageDraw

    scene = Image.new("RGB", (448, 448), "white")
    ImageDraw.Draw(scene).ellipse((150, 150, 298, 298), fill="red")
    scene.save(path)
    return path


def draw(ratios: dict[str, list[float]]) -> None:
    """The ratios of rates as bars, with their spread."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = list(ratios)[::-1]
    middle = [statistics.median(ratios[name]) for name in names]
    below = [value - min(ratios[name]) for name, value in zip(names, middle, strict=True)]
    above = [max(ratios[name]) - value for name, value in zip(names, middle, strict=True)]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 * len(names) + 1))
    axes.barh(names, middle, xerr=[below, above], color="tab:blue", ecolor="grey")
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xlabel="pictures a second, ours by theirs")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(ROWS))
    parser.add_argument("--lmdeploy", action="store_true")
    given = parser.parse_args()
    if os.environ.get(INSIDE) != "1":
        python = environment()
        command = [str(python), "-m", "benchmarks", *sys.argv[1:]]
        raise SystemExit(subprocess.call(command, env={**os.environ, INSIDE: "1"}, cwd=ROOT))
    names = given.only or [name for name, row in ROWS.items() if given.lmdeploy or row.server]
    with tempfile.TemporaryDirectory() as work:
        text, ratios = tables(names, given.rounds, Path(work))
    print(text)
    if given.only:
        return
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + BEGIN + text + END + after)
    draw(ratios)


if __name__ == "__main__":
    main()
