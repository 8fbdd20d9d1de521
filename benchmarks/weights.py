"""What verification costs: the weights cache against snapshot_download and sha256sum.

``staged`` is what the cache could be instead: snapshot_download and then one pass that hashes every
file. A loopback Hub in a process of its own serves generated files; each download runs in a fresh
process, alternately, and the best of ``--rounds`` counts: seconds, and seconds of processor time,
which a loaded machine changes less. Run it as
``python benchmarks/weights.py --megabytes 1024 --files 8 --folder /dev/shm``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPO = "benchmark/InternVL2_5-1B"

SERVE = """
import sys, time
from pathlib import Path
from tests.loopback_hub import LoopbackHub
folder = Path(sys.argv[1])
with LoopbackHub() as hub:
    hub.commit("{repo}", {{p.name: p for p in folder.iterdir()}})
    print(hub.url, flush=True)
    sys.stdin.read()
"""
MEASURE = """
import re, sys, time
from pathlib import Path
target, endpoint = sys.argv[1:]
{setup}
start, busy = time.perf_counter(), time.process_time()
{run}
took, busy = time.perf_counter() - start, time.process_time() - busy
# Not ru_maxrss, which begins with that of the process that started this one.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(took, busy, int(peak) / 1024)
"""
SNAPSHOT = (
    "from huggingface_hub import snapshot_download",
    f"snapshot_download({REPO!r}, local_dir=target, endpoint=endpoint, max_workers=8)",
)
STAGED = (
    SNAPSHOT[0]
    + """
import hashlib
from concurrent.futures import ThreadPoolExecutor
def digest(path):
    found, buffer = hashlib.sha256(), memoryview(bytearray(4 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            found.update(buffer[:count])
    return found.hexdigest()
""",
    SNAPSHOT[1]
    + "\nwith ThreadPoolExecutor(8) as pool: list(pool.map(digest, Path(target).glob('[!.]*.*')))",
)
OURS = (
    "import huggingface_hub, huggingface_hub.hf_api\n"
    "from internvl_modal.weights import WeightsCache, install",
    f"WeightsCache(target, endpoint=endpoint).ensure({REPO!r}, progress=None)",
)
DEEP = (
    "from internvl_modal.weights import WeightsCache",
    f"assert WeightsCache(target).verify({REPO!r}, deep=True).ok",
)


def python(code: str, *arguments: str) -> list[float]:
    """Run code in a fresh interpreter; the numbers it prints."""
    environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [float(word) for word in done.stdout.split()]


def measure(what: tuple[str, str], target: Path, endpoint: str) -> list[float]:
    """Seconds, those of the processor, and peak MiB of one run."""
    return python(MEASURE.format(setup=what[0], run=what[1]), str(target), endpoint)


def sha256sum(folder: Path, workers: int) -> float:
    """Seconds that coreutils takes over the same files, ``workers`` of them at once."""
    files = [path for path in folder.rglob("*.safetensors") if path.is_file()]
    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda p: subprocess.run(["sha256sum", p], check=True, stdout=-3), files))
    return time.perf_counter() - start


def compare(work: Path, endpoint: str, rounds: int, size: int) -> dict[str, float]:
    """Alternate the candidates; speeds in MB/s, ratios of them, and our peak memory."""
    runs: dict[str, list[list[float]]] = {"snapshot_download": [], "staged": [], "ensure": []}
    deep, sums = [], []
    for number in range(rounds):
        for name, what in zip(runs, (SNAPSHOT, STAGED, OURS), strict=True):
            target = work / f"{name}{number}"
            runs[name].append(measure(what, target, endpoint))
            if name == "ensure":
                deep.append(measure(DEEP, target, endpoint)[0])
                sums.append(min(sha256sum(target, 1), sha256sum(target, os.cpu_count() or 1)))
            shutil.rmtree(target)
    found = {}
    for name, measured in runs.items():
        took, busy, _ = (min(values) for values in zip(*measured, strict=True))
        found |= {f"{name}_mb_s": size / took / 1e6, f"{name}_cpu_s_per_gb": busy / size * 1e9}
    return found | {
        "ensure_ratio": found["ensure_mb_s"] / found["snapshot_download_mb_s"],
        "staged_ratio": found["staged_mb_s"] / found["snapshot_download_mb_s"],
        "sha256sum_mb_s": size / min(sums) / 1e6,
        "deep_verify_mb_s": size / min(deep) / 1e6,
        "deep_ratio": min(sums) / min(deep),
        "ensure_peak_mib": max(memory for _, _, memory in runs["ensure"]),
    }


def main() -> None:
    """Generate, serve, compare, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    size = options.megabytes * 1_000_000 // options.files
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        (work / "repo").mkdir()
        (work / "repo/config.json").write_text("{}")
        for index in range(1, options.files + 1):
            shard = f"model-{index:05}-of-{options.files:05}.safetensors"
            (work / "repo" / shard).write_bytes(os.urandom(size))
        root = str(Path(__file__).parents[1])
        with subprocess.Popen(
            [sys.executable, "-c", SERVE.format(repo=REPO), str(work / "repo")],
            env={**os.environ, "PYTHONPATH": root},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdout
            endpoint = server.stdout.readline().strip()
            print(json.dumps(compare(work, endpoint, options.rounds, size * options.files)))
            server.communicate("")


if __name__ == "__main__":
    main()
