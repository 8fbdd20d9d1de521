"""The grid that ``images/tiles.py`` chooses is the one that LMDeploy's tiler chooses."""

from __future__ import annotations

import json
import random
import subprocess

import pytest

from internvl_modal.images.tiles import choose_grid, target_size
from tests.conformance.environment import VERSIONS, lmdeploy_executable, standin

LIMITS = (1, 6, 12, 24, 40)
SIZES = 20_000

CHOOSE = """
import json, sys, types
sys.path.insert(0, sys.argv[1])
import lmdeploy_standin
from lmdeploy.vl.model import internvl

real = internvl.find_closest_aspect_ratio
work = json.load(sys.stdin)

def candidates(limit):
    # dynamic_preprocess sorts its grids on every call, which takes most of its time: once a limit
    # is enough.
    asked = []
    internvl.find_closest_aspect_ratio = lambda *given: asked.append(given[1]) or (1, 1)
    resized = types.SimpleNamespace(crop=lambda box: None)
    image = types.SimpleNamespace(size=(1, 1), resize=lambda size: resized)
    internvl.dynamic_preprocess(image, 1, limit, 448, True)
    return asked[0]

for limit, sizes in work:
    grids = candidates(limit)
    print(json.dumps([real(w / h, grids, w, h, 448) for w, h in sizes]))
"""


Sizes = list[tuple[int, int]]


def lmdeploys(version: str, work: list[tuple[int, Sizes]]) -> list[Sizes]:
    """The grids that LMDeploy chooses with each limit for its sizes."""
    python = lmdeploy_executable(version).with_name("python")
    done = subprocess.run(
        [str(python), "-c", CHOOSE, str(standin(version))],
        input=json.dumps(work),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()[-len(work) :]
    return [[(i, j) for i, j in json.loads(line)] for line in lines]


@pytest.fixture(scope="module")
def sizes() -> Sizes:
    """Random ones up to 16,384 pixels, and exact ratios of small numbers, where grids tie."""
    made = random.Random(448)
    sides = [int(2 ** made.uniform(0, 14)) for _ in range(2 * (SIZES - 1000))]
    found = list(zip(sides[::2], sides[1::2], strict=True))
    ratios = [(i, j) for i in range(1, 11) for j in range(1, 11)]
    return found + [(i * side, j * side) for i, j in ratios for side in range(300, 310)]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_grid_is_lmdeploys(enabled: None, version: str, sizes: Sizes) -> None:
    assert len(sizes) == SIZES
    theirs = lmdeploys(version, [(limit, sizes) for limit in LIMITS])
    for limit, grids in zip(LIMITS, theirs, strict=True):
        assert [choose_grid(*size, limit) for size in sizes] == grids


@pytest.mark.parametrize("version", VERSIONS)
def test_a_shrunk_payload_picks_its_grid_again(enabled: None, version: str, sizes: Sizes) -> None:
    work, expected = [], []
    for limit in LIMITS:
        grids = [choose_grid(*size, limit) for size in sizes]
        sent = [target_size(*size, grid) for size, grid in zip(sizes, grids, strict=True)]
        assert sum(a != b for a, b in zip(sizes, sent, strict=True)) > SIZES // 20
        work.append((limit, sent))
        expected.append(grids)
    assert lmdeploys(version, work) == expected
