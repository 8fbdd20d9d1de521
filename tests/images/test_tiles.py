from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_modal.images.tiles import (
    Tiling,
    auto_max_tiles,
    choose_grid,
    choose_grid_llama,
    plan_layout,
    target_size,
    tile_count,
)

SIDES = st.integers(1, 20_000)


def random_sizes() -> Iterator[tuple[int, int]]:
    rng = random.Random(448)
    for _ in range(20_000):
        top = rng.choice((60, 700, 5000))
        yield rng.randint(1, top), rng.randint(1, top)


@pytest.mark.parametrize(
    ("max_tiles", "digest"),
    [
        (1, "4767db743627e27d"),
        (6, "65f1878a729a5017"),
        (12, "db84ea471d5f30f6"),
        (24, "5b38fbd2567ecb4c"),
        (40, "99b01e1142555890"),
    ],
)
def test_grids_of_20000_sizes_are_those_of_lmdeploys_dynamic_preprocess(
    max_tiles: int, digest: str
) -> None:
    """The digests were taken of what ``lmdeploy.vl.model.internvl`` 0.7.3 chose."""
    chosen = hashlib.sha256()
    for width, height in random_sizes():
        chosen.update(b"%d %d " % choose_grid(width, height, max_tiles))
    assert chosen.hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("width", "height", "max_tiles", "grid", "tiles"),
    [
        (640, 488, 12, (4, 3), 13),
        (448, 448, 12, (1, 1), 1),
        (900, 900, 12, (2, 2), 5),
        (1500, 1500, 12, (3, 3), 10),
        (1344, 1344, 24, (4, 4), 17),
        (4000, 3000, 40, (4, 3), 13),
        (3000, 4000, 6, (2, 3), 7),
        (1920, 1080, 12, (4, 2), 9),
        (1000, 400, 12, (5, 2), 11),
        (1250, 1000, 12, (4, 3), 13),
        (1, 5000, 12, (1, 12), 13),
        (5000, 1, 40, (40, 1), 41),
    ],
)
def test_grids_known_from_lmdeploy(
    width: int, height: int, max_tiles: int, grid: tuple[int, int], tiles: int
) -> None:
    assert choose_grid(width, height, max_tiles) == grid
    assert tile_count(grid) == tiles


def test_no_two_grids_of_equal_area_ever_tie() -> None:
    """The official code leaves their order to a set; only neighbouring ratios can tie."""
    for limit in range(1, 41):
        areas: dict[Fraction, set[int]] = {}
        for i in range(1, limit + 1):
            for j in range(1, limit // i + 1):
                areas.setdefault(Fraction(i, j), set()).add(i * j)
        ratios = sorted(areas)
        assert not any(areas[a] & areas[b] for a, b in pairwise(ratios))


@pytest.mark.parametrize("max_tiles", [1, 2, 5, 6, 12, 24, 40])
def test_a_shrunk_picture_picks_the_same_grid_again(max_tiles: int) -> None:
    for width, height in random_sizes():
        grid = choose_grid(width, height, max_tiles)
        assert choose_grid(*target_size(width, height, grid), max_tiles) == grid


@given(SIDES, SIDES, st.one_of(st.integers(1, 40), st.sampled_from(["low", "high", "auto"])))
def test_nothing_is_enlarged_and_the_limit_holds(width: int, height: int, detail: object) -> None:
    layout = plan_layout(width, height, detail, Tiling())  # type: ignore[arg-type]
    assert layout.size[0] <= width
    assert layout.size[1] <= height
    assert layout.grid[0] * layout.grid[1] <= layout.max_tiles <= 40
    assert layout.tokens == 256 * layout.tiles


@pytest.mark.parametrize(
    ("width", "height", "tiles"),
    [(100, 100, 1), (500, 400, 1), (640, 488, 7), (1024, 768, 5), (1280, 960, 7), (4000, 3000, 13)],
)
def test_auto_takes_no_more_tiles_than_the_pixels_justify(
    width: int, height: int, tiles: int
) -> None:
    assert plan_layout(width, height, "auto", Tiling()).tiles == tiles


@given(SIDES, SIDES)
def test_auto_keeps_three_quarters_of_the_pixels_where_medium_does(width: int, height: int) -> None:
    def kept(limit: int) -> float:
        grid = choose_grid(width, height, limit)
        return grid[0] * grid[1] * 448**2 / (width * height)

    limit = auto_max_tiles(width, height)
    assert limit <= 12
    assert kept(limit) >= min(0.75, kept(12))


@pytest.mark.parametrize(("detail", "limit"), [("low", 6), ("medium", 12), ("high", 24), (33, 33)])
def test_detail_sets_the_limit_and_a_server_can_fix_it(detail: str | int, limit: int) -> None:
    assert plan_layout(3000, 2000, detail, Tiling()).max_tiles == limit  # type: ignore[arg-type]
    fixed = plan_layout(3000, 2000, detail, Tiling(max_tiles=9))  # type: ignore[arg-type]
    assert fixed.max_tiles == min(limit, 9)


@given(SIDES, SIDES, st.integers(1, 12), st.integers(1, 12))
def test_a_picture_is_shaped_for_a_server_with_a_limit_of_its_own(
    width: int, height: int, asked: int, limit: int
) -> None:
    """What is sent makes a server that allows more tiles cut no more than were asked for."""
    layout = plan_layout(width, height, asked, Tiling(max_tiles=limit))
    assert choose_grid(*layout.size, limit) == layout.grid
    assert layout.grid == choose_grid(width, height, min(asked, limit))
    assert layout.size[0] <= max(width, 448 * layout.grid[0])
    assert layout.size[1] <= max(height, 448 * layout.grid[1])


LLAMA = Tiling(tile_pixels=96, tokens_per_tile=9, max_tiles=12, rule="llama.cpp")


@pytest.mark.parametrize(
    ("width", "height", "tiles"),
    [(96, 96, 1), (97, 20, 3), (192, 192, 5), (640, 488, 13), (150, 100, 5), (1, 500, 7)],
)
def test_llama_cpp_cuts_by_another_rule(width: int, height: int, tiles: int) -> None:
    """Counted from ``prompt_tokens`` of llama.cpp itself, with a 96-pixel model."""
    assert plan_layout(width, height, 12, LLAMA).tiles == tiles


@given(SIDES, SIDES, st.integers(1, 12))
def test_with_llama_cpp_a_smaller_picture_means_fewer_tiles(
    width: int, height: int, detail: int
) -> None:
    layout = plan_layout(width, height, detail, LLAMA)
    assert layout.tiles <= detail + 1
    assert layout.grid == choose_grid_llama(*layout.size, 12, 96)
