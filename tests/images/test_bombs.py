"""A decoder works no longer and takes no more memory than the picture deserves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from internvl_modal.errors import ImageError, OutOfResourcesError
from internvl_modal.images import estimate, prepare
from internvl_modal.images.encode import memory
from internvl_modal.images.pixels import STRIP, flatten
from tests.images import bombs

MEASURE = """
import resource, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from internvl_modal.errors import ImageError
from internvl_modal.images import prepare
from tests.images import bombs
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prepare(bombs.png(8, 8, 8, 2, filled=True))
before = peak()
for path in sys.argv[1:]:
    try:
        prepare(path)
    except ImageError:
        pass
print((peak() - before) // 1024)
"""


@pytest.mark.parametrize("name", bombs.REFUSED)
def test_bombs_that_are_refused(name: str) -> None:
    build, what = bombs.REFUSED[name]
    with pytest.raises(ImageError, match=what) as caught:
        prepare(build(), max_pixels=200_000_000)
    assert caught.value.hint


@pytest.mark.parametrize("name", bombs.READ)
def test_bombs_that_are_read(name: str) -> None:
    assert prepare(bombs.READ[name]()).info.frames <= 1_000


def test_all_of_them_take_less_than_400_mb(tmp_path: Path) -> None:
    paths = []
    for index, build in enumerate(
        [*(build for build, _ in bombs.REFUSED.values()), *bombs.READ.values()]
    ):
        paths.append(tmp_path / str(index))
        paths[-1].write_bytes(build())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 400


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "I;16", "F"])
def test_the_budget_of_bytes_can_be_set(mode: str) -> None:
    data = bombs.encoded("TIFF" if mode == "F" else "PNG", mode, 1_500, 1_500)
    prepare(data, max_bytes_decoded=30_000_000)
    with pytest.raises(ImageError, match="bytes to decode, more than 1,000,000") as caught:
        prepare(data, max_bytes_decoded=1_000_000)
    assert "max_bytes_decoded" in caught.value.hint


def test_what_a_picture_takes_is_known_before() -> None:
    data = bombs.encoded("PNG", "RGBA", 1_500, 1_500)
    needed = memory(data)
    prepare(data, max_bytes_decoded=needed)
    with pytest.raises(ImageError, match=f"takes {needed:,} bytes"):
        prepare(data, max_bytes_decoded=needed - 1)
    assert memory(bombs.encoded("PNG", "RGB", 300, 300)) == 0  # it goes as it is
    whole, halved = (memory(bombs.encoded(f, "RGB", 4_000, 3_000)) for f in ("PNG", "JPEG"))
    assert 0 < halved <= whole / 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "I;16", "F"])
@pytest.mark.parametrize("factor", [1, 3])
def test_strips_give_what_the_whole_gives(mode: str, factor: int) -> None:
    """5 megapixels are converted in two strips; the border between them does not show."""
    picture = Image.effect_noise((2_500, 2_000), 80)
    deep = mode in ("I;16", "F")
    given = (
        picture.convert("I").point(lambda v: v * 257).convert(mode)
        if deep
        else picture.convert(mode)
    )
    if mode == "P":
        given.info["transparency"] = 0
    assert given.width * given.height > STRIP
    whole, _ = flatten(given, "red", "x", full=True, factor=factor)
    middle = (0, 1_500, 2_500, 1_800)
    part, _ = flatten(given.crop(middle), "red", "x", full=True, factor=factor)
    assert whole.crop((0, 1_500 // factor, part.width, 1_800 // factor)).tobytes() == part.tobytes()


def test_frames_and_pages_are_counted_up_to_a_thousand() -> None:
    assert prepare(bombs.GIF + bombs.FRAME * 999 + b";").info.frames == 999
    assert prepare(bombs.GIF + bombs.FRAME * 1_500 + b";").info.frames == 1_000
    assert estimate(bombs.tiff_pages(300)).tiles == prepare(bombs.tiff_pages(300)).info.tiles == 1
    assert prepare(bombs.tiff_pages(300)).info.frames == 300
    assert prepare(bombs.tiff_pages(1_001)).info.frames == 1_000


STARVED = """
import resource, sys
from internvl_modal.errors import OutOfResourcesError
from internvl_modal.images import prepare
from tests.images import bombs
data = bombs.png(9_000, 9_000, 8, 2, filled=True)
prepare(bombs.png(8, 8, 8, 2, filled=True))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000,) * 2)
try:
    prepare(data)
except OutOfResourcesError as error:
    print(error)
"""


def test_no_memory_is_nobodys_pictures_fault() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARVED], capture_output=True, text=True, check=True
    )
    assert "no memory is left to decode bytes (" in done.stdout
    assert not issubclass(OutOfResourcesError, ImageError)
