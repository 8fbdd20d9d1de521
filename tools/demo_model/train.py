"""Train the demo model from nothing: first the vision half on dense scenes, then all of it.

Run as `python tools/demo_model/train.py --out build/demo-train`.
Stops and goes on: the newest checkpoint in the folder is picked up again.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from data import NOTHING, Batch, Batches
from model import Config, DemoModel
from scenes import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES
from text import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler


@dataclass(frozen=True)
class Recipe:
    """How long and how fast; `vision` of the `steps` train the vision half alone."""

    steps: int = 3600
    vision: int = 1200
    batch: int = 64
    lr: float = 2e-3
    warmup: int = 100
    decay: float = 0.4
    weight_decay: float = 0.05
    ema: float = 0.99

    def rate(self, step: int) -> float:
        """Warm-up at each phase's start, then flat, then linear to zero over the last part."""
        since = step if step < self.vision else step - self.vision
        left = (self.steps - step) / (self.decay * self.steps)
        return self.lr * min(1.0, (since + 1) / self.warmup, left)


class Probe(nn.Module):
    """Linear readers of the image tokens, which only training uses: what lies in each cell."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shape = nn.Linear(dim, len(SHAPES) + 1)
        self.size = nn.Linear(dim, len(SIZES))
        self.colour = nn.Linear(dim, len(COLOURS))
        self.place = nn.Linear(dim, len(PLACES))
        self.background = nn.Linear(dim, len(BACKGROUNDS))

    def forward(self, image: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Loss and share of right answers for each attribute."""
        out = {}
        for name in ("shape", "size", "colour", "place", "background"):
            read, wanted = getattr(self, name)(image), getattr(batch, name)
            if name == "background":
                wanted = wanted[:, None].expand(read.shape[:2])
            read, wanted = read.flatten(0, 1), wanted.flatten()
            known = wanted != NOTHING
            right = (read.argmax(-1) == wanted)[known].float().mean()
            out[name] = (F.cross_entropy(read, wanted, ignore_index=NOTHING), right)
        return out


class Order(Sampler[int]):
    """Batch numbers from where a run stands."""

    def __init__(self, first: int, end: int) -> None:
        self.numbers = range(first, end)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


class Run:
    """Everything a checkpoint holds, and one step of training."""

    def __init__(self, config: Config, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(0)
        self.recipe, self.folder, self.step = recipe, folder, 0
        self.model = DemoModel(config)
        self.probe = Probe(config.dim)
        matrices, rest = [], [*self.probe.parameters()]
        for name, p in self.model.named_parameters():
            wide = p.ndim == 2 and name not in {"embed.weight", "vision.pos"}
            (matrices if wide else rest).append(p)
        self.optimizers = (
            torch.optim.Muon(
                matrices, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0),
        )
        self.ema = {k: v.clone() for k, v in self.model.state_dict().items()}
        if (newest := folder / "last.pt").exists():
            self._load(newest)

    def _load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.probe.load_state_dict(state["probe"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.ema, self.step = state["ema"], state["step"]

    def save(self) -> None:
        """Write `last.pt`, all or nothing."""
        state = {
            "config": self.model.c.to_dict(),
            "model": self.model.state_dict(),
            "probe": self.probe.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "ema": self.ema,
            "step": self.step,
        }
        part = self.folder / "last.pt.part"
        torch.save(state, part)
        part.replace(self.folder / "last.pt")

    def train(self, batch: Batch) -> dict[str, float]:
        """One step; returns what a log line shows."""
        alone = self.step < self.recipe.vision
        image = self.model.vision(batch.pixels)
        read = self.probe(image, batch)
        loss = sum((pair[0] for pair in read.values()), torch.zeros(()))
        shown = {name: right.item() for name, (_, right) in read.items()}
        if not alone:
            answer, shown["token"], shown["sentence"] = self._answer(image, batch)
            loss = answer + 0.3 * loss
            shown["answer"] = answer.item()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.step)
            optimizer.step()
        self.step += 1
        keep = min(self.recipe.ema, 1 - 1 / (self.step + 1))
        for name, value in self.model.state_dict().items():
            self.ema[name].lerp_(value, 1 - keep)
        return {"loss": loss.item(), **shown}

    def _answer(self, image: Tensor, batch: Batch) -> tuple[Tensor, float, float]:
        image = image.repeat(1, batch.copies, 1).flatten(0, 1)
        hidden = self.model.hidden(batch.tokens, image, batch.positions)
        asked = batch.labels != NOTHING
        logits = self.model.logits(hidden[asked])
        wanted = batch.labels[asked]
        right = torch.ones_like(asked)
        right[asked] = logits.argmax(-1) == wanted
        token = right[asked].float().mean().item()
        return F.cross_entropy(logits, wanted), token, right.all(1).float().mean().item()


def train(recipe: Recipe, folder: Path) -> None:
    """Run all steps that are left, with a log line and a checkpoint now and then."""
    config = Config(vocab=len(Tokenizer()))
    run = Run(config, recipe, folder)
    batches = Batches(recipe.batch, config.image_size, config.image_tokens, recipe.vision)
    order = Order(run.step, recipe.steps)
    loader = DataLoader(batches, None, sampler=order, num_workers=1, prefetch_factor=8)
    started, seen = time.monotonic(), run.step
    mean: dict[str, float] = {}
    for batch in loader:
        shown = run.train(batch)
        if not math.isfinite(shown["loss"]):
            raise SystemExit(f"loss is not finite at step {run.step}")
        mean = {k: 0.98 * mean.get(k, v) + 0.02 * v for k, v in shown.items()}
        if run.step % 50 == 0:
            pace = (time.monotonic() - started) / (run.step - seen)
            figures = " ".join(f"{k} {v:.4f}" for k, v in mean.items())
            print(f"{run.step} {pace:.3f}s lr {recipe.rate(run.step):.5f} {figures}", flush=True)
        if run.step % 250 == 0 or run.step == recipe.steps:
            run.save()


def main() -> None:
    """Parse arguments and train on one thread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/demo-train"))
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--vision", type=int, default=Recipe.vision)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    train(Recipe(steps=args.steps, vision=args.vision), args.out)


if __name__ == "__main__":
    main()
