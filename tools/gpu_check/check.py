"""Hold the planner against a GPU: memory of weights, ViT and KV, and the speed of the ViT.

    python -m tools.gpu_check.check                                    # on a GPU, minutes
    python -m tools.gpu_check.check --count                            # anywhere: parameters only
    python -m tools.gpu_check.check --device cpu --layers 2 --tiles 1  # anywhere: all of it, small

Prints a line for each figure and writes all of them to ``--out`` as JSON. Random weights: it says
nothing about answers, and nothing about LMDeploy's or vLLM's own buffers.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from internvl_modal.models.catalogue import MODELS
from internvl_modal.models.shapes import ModelSpec
from internvl_modal.planning.footprint import vision_work
from internvl_modal.planning.gpus import GPUS
from internvl_modal.planning.throughput import BEST, WORST
from tools.gpu_check.model import build, buildable, fill, parts

TILES = (1, 3, 7, 13, 26, 41)
KV_TOKENS = 8192
PASSES = 5


def main() -> None:
    """Every check of every model that was asked for."""
    given = arguments()
    found: list[dict[str, Any]] = []
    for figure in figures(given):
        print(json.dumps(figure), flush=True)
        found.append(figure)
    if given.out:
        told = {"device": device_name(given.device), "figures": found}
        Path(given.out).write_text(json.dumps(told))


def figures(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One after the other: what was measured must not be lost where the next does not fit."""
    if given.count:
        yield from (counted(spec) for spec in MODELS.values() if buildable(spec))
        return
    for name in given.models:
        spec = shortened(MODELS[name], given.layers)
        yield from checked(spec, given.device, given.tiles, vision_only=given.vision_only)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["internvl3-8b", "internvl3_5-8b"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--count", action="store_true", help="count parameters of all models")
    parser.add_argument("--vision-only", action="store_true", help="leave the language model out")
    parser.add_argument("--layers", type=int, help="make models of so many layers")
    parser.add_argument("--tiles", type=int, nargs="*", default=list(TILES))
    parser.add_argument("--out", help="a JSON file")
    return parser.parse_args()


def shortened(spec: ModelSpec, layers: int | None) -> ModelSpec:
    """The model with fewer layers, so that a small machine holds it; the planner gets it too."""
    if layers is None:
        return spec
    return replace(spec, llm=replace(spec.llm, layers=layers), vit=replace(spec.vit, layers=layers))


def counted(spec: ModelSpec) -> dict[str, Any]:
    """Parameters of both parts, as built and as the planner counts them."""
    made = {name: count(part) for name, part in parts(build(spec)).items()}
    planned = {"vision": spec.vision_params, "llm": spec.llm.params}
    return {"model": spec.name, "what": "parameters", "made": made, "planned": planned}


def checked(
    spec: ModelSpec, device: str, tiles: list[int], *, vision_only: bool
) -> Iterator[dict[str, Any]]:
    """Weights, ViT and KV of one model."""
    model = build(spec)
    halves = parts(model)
    yield weights(spec, "vision", halves["vision"], spec.vision_bytes, device)
    for number in tiles:
        yield vision(spec, model, number, device)
    if not vision_only:
        yield weights(spec, "llm", halves["llm"], spec.llm_bytes, device)
        yield cache(spec, model, device)
    del model, halves
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def weights(
    spec: ModelSpec, name: str, module: torch.nn.Module, planned: int, device: str
) -> dict[str, Any]:
    """Bytes that a part takes once it is there."""
    before = allocated(device)
    fill(module, device)
    taken = allocated(device) - before if device == "cuda" else 2 * count(module)
    return {"model": spec.name, "what": f"{name} weights", "made": taken, "planned": planned}


@torch.inference_mode()
def vision(spec: ModelSpec, model: Any, tiles: int, device: str) -> dict[str, Any]:
    """One pass of so many tiles: its peak above the weights, its time, its share of the GPU."""
    pixels = torch.randn(tiles, 3, *[spec.vit.image_size] * 2, device=device, dtype=torch.bfloat16)
    look = model.model.get_image_features
    look(pixels)
    before = allocated(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(lambda: look(pixels), device)
    peak = torch.cuda.max_memory_allocated() - before if device == "cuda" else None
    vit = spec.vit
    flop = tiles * (
        2 * spec.vision_params * vit.tokens + 4 * vit.layers * vit.tokens**2 * vit.hidden
    )
    gpu = next((each for each in GPUS.values() if each.name in device_name(device)), None)
    return {
        "model": spec.name,
        "what": f"vision, {tiles} tiles",
        "peak": peak,
        "planned": vision_work(spec.vit, tiles, flash_attention=True),
        "planned, scores in full": vision_work(spec.vit, tiles, flash_attention=False),
        "seconds": seconds,
        "tiles a second": tiles / seconds,
        "share of peak": flop / seconds / (gpu.tflops * 1e12) if gpu else None,
        "planned shares": [WORST.vision, BEST.vision],
    }


@torch.inference_mode()
def cache(spec: ModelSpec, model: Any, device: str) -> dict[str, Any]:
    """Bytes of the keys and values of a prompt."""
    tokens = KV_TOKENS if device == "cuda" else 64
    prompt = torch.zeros(1, tokens, dtype=torch.long, device=device)
    kept = model.model.language_model(input_ids=prompt, use_cache=True).past_key_values
    layers = [(layer.keys, layer.values) for layer in kept.layers]
    taken = sum(each.numel() * each.element_size() for pair in layers for each in pair)
    planned = spec.kv_bytes_per_token() * tokens
    return {"model": spec.name, "what": f"KV, {tokens} tokens", "made": taken, "planned": planned}


def timed(work: Any, device: str) -> float:
    """Seconds of one pass, the least of several."""
    best = float("inf")
    for _ in range(PASSES if device == "cuda" else 1):
        begun = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return best


def allocated(device: str) -> int:
    """Bytes that torch has given out; 0 on a CPU, where nobody counts them."""
    return torch.cuda.memory_allocated() if device == "cuda" else 0


def count(module: torch.nn.Module) -> int:
    """Parameters of a module."""
    return sum(weight.numel() for weight in module.parameters())


def device_name(device: str) -> str:
    """The GPU's name, or "cpu"."""
    return torch.cuda.get_device_name() if device == "cuda" else device


if __name__ == "__main__":
    main()
