"""Seeded scenes of one to three shapes, their pixels, and the one sentence that describes each.

A scene lives on the unit square, cut into 3 x 3 cells; every shape lies wholly inside its own
cell. Seed, number of shapes and picture size settle every byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

SHAPES = ("circle", "square", "triangle", "cross", "star")
SIZES = ("small", "large")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 40),
    "orange": (250, 135, 25),
    "yellow": (245, 220, 50),
    "green": (30, 150, 65),
    "blue": (40, 75, 220),
    "purple": (135, 45, 165),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (246, 246, 246),
    "gray": (150, 150, 150),
    "black": (16, 16, 16),
    "pink": (255, 190, 212),
}
PLACES = (
    "at the top left",
    "at the top",
    "at the top right",
    "at the left",
    "in the center",
    "at the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)
HELD_OUT = 1 << 40
"""Training uses seeds below this number, evaluation and examples seeds from it on."""

_RADIUS = {"small": (0.056, 0.070), "large": (0.112, 0.132)}
_MARGIN = 0.012


@dataclass(frozen=True)
class Thing:
    """One shape: names, cell in reading order, and geometry in parts of the canvas' side."""

    shape: str
    size: str
    colour: str
    cell: int
    rgb: tuple[int, int, int]
    centre: tuple[float, float]
    radius: float
    angle: float

    @property
    def name(self) -> str:
        """Colour and shape, which no two shapes of a scene share."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """A background and its shapes, in reading order of their cells."""

    background: str
    rgb: tuple[int, int, int]
    things: tuple[Thing, ...]


def make_scene(seed: int, count: int | None = None) -> Scene:
    """Draw the scene that belongs to a seed; `count` fixes how many shapes it has."""
    rng = np.random.default_rng(seed)
    drawn = int(rng.integers(1, 4))
    count = count or drawn
    cells = np.sort(rng.permutation(9)[:count])
    names = rng.permutation(len(COLOURS) * len(SHAPES))[:count]
    background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    things = []
    for cell, name in zip(cells.tolist(), names.tolist(), strict=True):
        colour, shape = list(COLOURS)[name // len(SHAPES)], SHAPES[name % len(SHAPES)]
        size = SIZES[rng.integers(2)]
        radius = float(rng.uniform(*_RADIUS[size]))
        slack = 1 / 6 - radius - _MARGIN
        x, y = rng.uniform(-slack, slack, 2).tolist()
        centre = ((cell % 3 + 0.5) / 3 + x, (cell // 3 + 0.5) / 3 + y)
        rgb = _jitter(rng, COLOURS[colour], 10)
        angle = float(rng.uniform(-0.12, 0.12))
        things.append(Thing(shape, size, colour, cell, rgb, centre, radius, angle))
    return Scene(background, _jitter(rng, BACKGROUNDS[background], 8), tuple(things))


def _jitter(rng: np.random.Generator, rgb: tuple[int, int, int], by: int) -> tuple[int, int, int]:
    r, g, b = (np.array(rgb) + rng.integers(-by, by + 1, 3)).clip(0, 255).tolist()
    return r, g, b


def relation(a: Thing, b: Thing) -> str:
    """Where `a` lies seen from `b`: along the axis on which their cells lie farther apart."""
    dx, dy = a.cell % 3 - b.cell % 3, a.cell // 3 - b.cell // 3
    if abs(dx) >= abs(dy):
        return "right of" if dx > 0 else "left of"
    return "below" if dy > 0 else "above"


def describe(scene: Scene) -> str:
    """The sentence for a scene: shapes in reading order, background, relations of the second."""
    things = scene.things
    parts = [f"a {t.size} {t.colour} {t.shape} {PLACES[t.cell]}" for t in things]
    listed = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    text = f"{listed[0].upper()}{listed[1:]}, on a {scene.background} background."
    if len(things) == 1:
        return text
    others = [things[0], *things[2:]]
    clauses = [f"{relation(things[1], other)} the {other.name}" for other in others]
    return f"{text} The {things[1].name} is {' and '.join(clauses)}."


def render(scene: Scene, size: int) -> Image.Image:
    """The scene as a picture `size` pixels square, anti-aliased."""
    out = np.empty((size, size, 3), np.uint8)
    out[:] = scene.rgb
    at = (np.arange(size) + 0.5) / size
    for t in scene.things:
        reach = t.radius + 2 / size
        x0, x1 = np.searchsorted(at, [t.centre[0] - reach, t.centre[0] + reach])
        y0, y1 = np.searchsorted(at, [t.centre[1] - reach, t.centre[1] + reach])
        x, y = at[x0:x1] - t.centre[0], at[y0:y1, None] - t.centre[1]
        cos, sin = np.cos(t.angle), np.sin(t.angle)
        turned = (x * cos + y * sin) / t.radius, (y * cos - x * sin) / t.radius
        alpha = np.clip(0.5 - _distance(t.shape, *turned) * (t.radius * size), 0, 1)[..., None]
        under = out[y0:y1, x0:x1].astype(np.float64)
        out[y0:y1, x0:x1] = np.rint(under + (np.array(t.rgb) - under) * alpha)
    return Image.fromarray(out)


def _distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to a shape of radius one, negative inside; exact enough near the edge."""
    if shape == "circle":
        return np.hypot(x, y) - 0.95
    if shape == "square":
        return np.maximum(abs(x), abs(y)) - 0.82
    if shape == "cross":
        ax, ay = abs(x), abs(y)
        return np.minimum(np.maximum(ax - 0.98, ay - 0.3), np.maximum(ay - 0.98, ax - 0.3))
    if shape == "triangle":
        return np.maximum(0.866 * abs(x) - 0.5 * (y - 0.1) - 0.48, y - 0.1 - 0.62)
    return _star(x, y)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five points: a point lies inside when at most one of the five edge lines cuts it off."""
    turns = np.arange(5) * (2 * np.pi / 5) + np.pi / 2
    lines = np.stack([x * np.cos(a) + y * np.sin(a) for a in turns])
    return np.sort(lines, axis=0)[-2] - 0.305
