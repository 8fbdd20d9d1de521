"""Measure the demo model through llama.cpp on held-out scenes, attribute by attribute.

Run as `python tools/demo_model/evaluate.py --scenes 1000`.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xllamacpp
from PIL import Image
from scenes import HELD_OUT, Scene, describe, make_scene, render

MODELS = Path(__file__).parents[2] / "internvl_modal" / "demo"
PROMPT = "Describe this image in detail."
ATTRIBUTES = ("count", "size", "colour", "shape", "place", "background", "relation", "sentence")
_THING = re.compile(r"\ba (small|large) (\w+) (\w+) ((?:at|in) the [a-z ]+?)(?=,| and a |\.|$)")


@contextmanager
def server(folder: Path, threads: int) -> Iterator[str]:
    """llama.cpp's own HTTP server on a free port, with the demo model; yields its address."""
    params = xllamacpp.CommonParams()
    params.model.path = str(folder / "demo.gguf")
    params.mmproj.path = str(folder / "mmproj-demo.gguf")
    params.model_alias = {"demo"}
    params.n_ctx = 4096
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = threads
    params.warmup = False
    params.verbosity = 0
    params.port = 0
    running = xllamacpp.Server(params)
    try:
        yield running.listening_address
    finally:
        del running


def ask(address: str, picture: Image.Image, prompt: str = PROMPT) -> str:
    """The model's greedy answer to one picture."""
    packed = io.BytesIO()
    picture.save(packed, "PNG", compress_level=1)
    url = "data:image/png;base64," + base64.b64encode(packed.getvalue()).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
    body = {"messages": [{"role": "user", "content": parts}], "temperature": 0, "max_tokens": 128}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def compare(said: str, meant: str, seen: Counter[str], right: Counter[str]) -> None:
    """Count every attribute the sentence should have, and those that it has in the same place."""
    (told, got), (due, want) = (_read(text) for text in (meant, said))
    pairs: list[tuple[str, bool]] = [
        ("count", len(told) == len(due)),
        ("background", got["background"] == want["background"]),
        ("sentence", said == meant),
    ]
    if got["relation"]:
        pairs.append(("relation", got["relation"] == want["relation"]))
    for i, thing in enumerate(told):
        other = due[i] if i < len(due) else ("", "", "", "")
        same = [a == b for a, b in zip(thing, other, strict=True)]
        pairs += zip(("size", "colour", "shape", "place"), same, strict=True)
    for name, hit in pairs:
        seen[name] += 1
        right[name] += hit


def _read(text: str) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """Shapes, background and relation clauses that a sentence names."""
    first, _, rest = text.partition(" background.")
    things = _THING.findall(first[:1].lower() + first[1:])
    return things, {"background": first.rpartition("on a ")[2], "relation": rest.strip()}


def scene(index: int, counts: tuple[int, ...]) -> tuple[Scene, Image.Image]:
    """A held-out scene of one of the counts, and its picture at a size that belongs to it."""
    rng = np.random.default_rng(HELD_OUT + index)
    drawn = make_scene(HELD_OUT + index, counts[index % len(counts)])
    return drawn, render(drawn, int(rng.integers(256, 641)))


def measure(
    address: str, scenes: int, counts: tuple[int, ...], show: int = 0
) -> dict[int, Counter[str]]:
    """Right answers by number of shapes; keys with a leading `/` count what was asked for."""
    results = {c: Counter[str]() for c in counts}
    for i in range(scenes):
        # one seed range per group, so that no two groups share a scene
        drawn, picture = scene(i + 10_000_000 * max(counts), counts)
        said, meant = ask(address, picture), describe(drawn)
        seen, right = Counter[str](), Counter[str]()
        compare(said, meant, seen, right)
        of = results[len(drawn.things)]
        of.update(right)
        of.update({f"/{name}": n for name, n in seen.items()})
        if said != meant and show > 0:
            show -= 1
            print(f"  meant: {meant}\n  said:  {said}")
    return results


def share(counter: Counter[str], name: str) -> str:
    """Per cent of right answers, or a dash where the attribute does not occur."""
    total = counter[f"/{name}"]
    return f"{100 * counter[name] / total:6.2f}" if total else "     -"


def main() -> None:
    """Parse arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=1000, help="scenes in each of the two groups")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show", type=int, default=0, help="print so many wrong answers")
    args = parser.parse_args()
    started = time.monotonic()
    with server(args.models, args.threads) as address:
        few = measure(address, args.scenes, (1, 2), args.show)
        three = measure(address, args.scenes, (3,), args.show)
    print("per cent right  " + " ".join(f"{name:>10}" for name in ATTRIBUTES))
    both = {"1 or 2 shapes": few[1] + few[2], "3 shapes": three[3]}
    for label, counter in {"1 shape": few[1], "2 shapes": few[2], **both}.items():
        cells = " ".join(f"{share(counter, name):>10}" for name in ATTRIBUTES)
        print(f"{label:<15} {cells}   of {counter['/sentence']}")
    print(f"{2 * args.scenes} scenes in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
