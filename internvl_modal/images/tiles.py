"""InternVL's grid arithmetic: how many tiles a picture becomes, and what is worth sending.

Two rules are known. The official one (OpenGVLab, LMDeploy, vLLM, transformers) takes the grid
whose aspect ratio is closest. llama.cpp takes the grid that keeps the most pixels and wastes the
least, and leaves small pictures whole.

Pure, and held against the servers' own code in the tests: LMDeploy's ``dynamic_preprocess`` for the
one rule and llama.cpp's server for the other. Sizes are (width, height) in pixels, grids (columns,
rows) in tiles.

>>> choose_grid(640, 488, 12), choose_grid(800, 600, 12)
((4, 3), (4, 3))
>>> plan_layout(4000, 3000, "medium", Tiling()).tokens
3328
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from internvl_modal.schema.options import DETAIL_TILES, Detail

MAX_TILES = 40
"""InternVL is documented for up to 40 tiles of a picture at inference."""
AUTO_TILES = DETAIL_TILES["medium"]
AUTO_SHARE = 0.75
"""Three quarters of the pixels are 87% of each side: hardly seen, while each tile is paid for."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """How one server cuts pictures; the defaults are InternVL 2.5 behind LMDeploy."""

    tile_pixels: int = 448
    tokens_per_tile: int = 256
    max_tiles: int | None = None
    """A limit fixed in the server, which ``detail`` cannot raise; None: each request sets it."""
    rule: Literal["internvl", "llama.cpp"] = "internvl"


@dataclass(frozen=True)
class Layout:
    """What becomes of one picture: the size to send and what the server makes of it.

    ``max_tiles`` is the limit that goes to the server with the picture; ``tiles`` counts the
    thumbnail, the limit does not.
    """

    size: Size
    grid: Size
    tiles: int
    tokens: int
    max_tiles: int


def plan_layout(width: int, height: int, detail: Detail, tiling: Tiling) -> Layout:
    """Decide the size to send for an upright picture and count its tiles."""
    limit = _limit(width, height, detail, tiling)
    if tiling.rule == "llama.cpp":
        return _plan_llama(width, height, limit, tiling)
    grid = choose_grid(width, height, limit, tiling.tile_pixels)
    size = target_size(width, height, grid, tiling.tile_pixels)
    # The server will not be told a limit: the shape of what is sent must make it choose the grid.
    if tiling.max_tiles is not None:
        size = _steered(size, grid, tiling.max_tiles, tiling.tile_pixels)
    count = tile_count(grid)
    return Layout(size, grid, count, tokens(count, tiling.tokens_per_tile), limit)


def unshrunk(width: int, height: int, layout: Layout, tiling: Tiling) -> Layout | None:
    """``layout`` for a picture that stays as large as it is; None where its tiles would change."""
    if tiling.rule == "llama.cpp":
        return None
    limit = tiling.max_tiles or layout.max_tiles
    if choose_grid(width, height, limit, tiling.tile_pixels) != layout.grid:
        return None
    return replace(layout, size=(width, height))


def _limit(width: int, height: int, detail: Detail, tiling: Tiling) -> int:
    """Most tiles for this picture, thumbnail aside, by ``detail`` and the server's own limit."""
    if detail == "auto":
        asked = auto_max_tiles(width, height, tiling.tile_pixels)
    else:
        asked = DETAIL_TILES[detail] if isinstance(detail, str) else detail
    return min(asked, tiling.max_tiles or MAX_TILES)


@lru_cache(maxsize=4096)  # a data set has few sizes
def choose_grid(width: int, height: int, max_tiles: int, tile_pixels: int = 448) -> Size:
    """(columns, rows) by the official rule: closest aspect ratio, ties broken as it does.

    A tie goes to the later (larger) grid when the picture covers more than half of it. The
    official code leaves the order of grids of equal area to a set; no two of those ever tie.

    From ``find_closest_aspect_ratio`` of InternVL's own code. A grid may be larger than the
    picture, which is then enlarged: 640x488 becomes 4x3 tiles.
    """
    aspect = width / height
    best, best_difference = (1, 1), math.inf
    for grid in _candidates(max_tiles):
        difference = abs(aspect - grid[0] / grid[1])
        if difference < best_difference:
            best, best_difference = grid, difference
        elif difference == best_difference and (
            width * height > 0.5 * tile_pixels * tile_pixels * grid[0] * grid[1]
        ):
            best = grid
    return best


@lru_cache(maxsize=MAX_TILES)
def _candidates(max_tiles: int) -> tuple[Size, ...]:
    """All grids of up to ``max_tiles``, by area; cached, as there are 40 answers and
    many pictures.
    """
    grids = [(i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles // i + 1)]
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def tile_count(grid: Size) -> int:
    """Tiles of a grid, with the thumbnail that joins when there is more than one.

    >>> tile_count((1, 1)), tile_count((4, 3))
    (1, 13)
    """
    tiles = grid[0] * grid[1]
    return tiles + 1 if tiles > 1 else 1


def tokens(tiles: int, tokens_per_tile: int = 256) -> int:
    """Prompt tokens that ``tiles`` cost."""
    return tiles * tokens_per_tile


def target_size(width: int, height: int, grid: Size, tile_pixels: int = 448) -> Size:
    """The size to send: no side larger than the grid's where the grid has the smaller area.

    Such a picture picks the same grid again: its shape lies between the picture's and the
    grid's. With a larger grid it need not (1344x1344 with 24 tiles picks 4x4, not 3x3), so then
    it stays as it is.

    >>> target_size(4000, 3000, (4, 3)), target_size(640, 488, (4, 3))
    ((1792, 1344), (640, 488))
    """
    columns, rows = grid[0] * tile_pixels, grid[1] * tile_pixels
    if columns * rows >= width * height:
        return width, height
    return min(columns, width), min(rows, height)


def _steered(size: Size, grid: Size, max_tiles: int, tile_pixels: int) -> Size:
    """A size from which a server with a limit of its own picks ``grid``.

    The grid depends on the shape, so a picture that would get more tiles gets the grid's own
    shape, into which the server would have stretched it anyway: inside the picture if that is
    large enough for the grid to be picked, else with as many pixels, else with all the grid's.
    """
    if choose_grid(*size, max_tiles, tile_pixels) == grid:
        return size
    inside = min(size[0] // grid[0], size[1] // grid[1])
    equal = math.isqrt(size[0] * size[1] // (grid[0] * grid[1]))
    for side in (inside, equal, tile_pixels):
        tile = min(max(side, 1), tile_pixels)
        shaped = grid[0] * tile, grid[1] * tile
        if choose_grid(*shaped, max_tiles, tile_pixels) == grid:
            return shaped
    return size


def auto_max_tiles(width: int, height: int, tile_pixels: int = 448) -> int:
    """The fewest tiles whose grid keeps three quarters of the picture's pixels, at most 12.

    >>> auto_max_tiles(448, 448), auto_max_tiles(4000, 3000)
    (1, 12)
    """
    for limit in range(1, AUTO_TILES):
        columns, rows = choose_grid(width, height, limit, tile_pixels)
        if columns * rows * tile_pixels**2 >= AUTO_SHARE * width * height:
            return limit
    return AUTO_TILES


def _plan_llama(width: int, height: int, limit: int, tiling: Tiling) -> Layout:
    """Shrink to the grid asked for, then count what llama.cpp makes of it with its own limit."""
    fixed = tiling.max_tiles or AUTO_TILES
    columns, rows = choose_grid_llama(width, height, limit, tiling.tile_pixels)
    scale = min(columns * tiling.tile_pixels / width, rows * tiling.tile_pixels / height, 1.0)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grid = choose_grid_llama(*size, fixed, tiling.tile_pixels)
    sliced = max(size) > tiling.tile_pixels
    count = grid[0] * grid[1] + 1 if sliced else 1
    return Layout(size, grid, count, tokens(count, tiling.tokens_per_tile), limit)


def choose_grid_llama(width: int, height: int, max_tiles: int, tile_pixels: int = 448) -> Size:
    """(columns, rows) by llama.cpp's rule: most pixels kept, then least area wasted.

    Pictures within one tile stay whole. The arithmetic is in single precision as there, because
    a tie hangs on its rounding.
    """
    if width <= tile_pixels and height <= tile_pixels:
        return (1, 1)
    return max(
        _by_columns(max_tiles),
        key=lambda grid: _fit(width, height, (grid[0] * tile_pixels, grid[1] * tile_pixels)),
    )


def _by_columns(max_tiles: int) -> Iterable[Size]:
    """llama.cpp's order; of equal grids the first wins."""
    return ((i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles // i + 1))


def _fit(width: int, height: int, canvas: Size) -> tuple[int, int]:
    """(pixels kept, minus pixels wasted) of a picture fitted into ``canvas``."""
    scale = min(_single(canvas[0] / width), _single(canvas[1] / height))
    fitted = int(_single(width * scale)) * int(_single(height * scale))
    kept = min(fitted, width * height)
    return kept, kept - canvas[0] * canvas[1]


def _single(value: float) -> float:
    """``value`` rounded to single precision."""
    return float(struct.unpack("f", struct.pack("f", value))[0])
