"""Open any picture: its header is read, its structure judged, its pixels not yet decoded.

The header is read by Pillow and the structure by our own ``survey``, so that limits are kept before
a decoder touches the pixels: a file of a few KB can claim gigapixels. A picture that needs no
change is never decoded at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from io import BytesIO

from PIL import ExifTags, Image

from internvl_modal._utils.local_trouble import is_local_trouble
from internvl_modal.errors import ImageError, InternVLError, OutOfResourcesError
from internvl_modal.images.arrays import from_array
from internvl_modal.images.formats import format_of
from internvl_modal.images.names import source_name
from internvl_modal.images.pixels import is_srgb
from internvl_modal.images.sources import Reading, read_bytes
from internvl_modal.images.survey import Survey, UnfitError
from internvl_modal.images.survey.png import wrong_checksum
from internvl_modal.images.survey.tiff import is_sound
from internvl_modal.schema.inputs import BinaryFile, ImageSource

MAX_PIXELS = 200_000_000
"""The default of ``max_pixels``: more than the 150 megapixels of the largest cameras."""


@dataclass(frozen=True)
class Picture:
    """A picture whose header has been read; its pixels may still be undecoded.

    Of one call: Pillow's lazily loaded image in it is not safe for several threads.
    """

    name: str
    image: Image.Image = field(repr=False)
    survey: Survey | None = field(repr=False)
    """The encoded file and what is known of it, None for pictures that came as pixels."""
    format: str
    size: tuple[int, int]
    """Width and height, upright."""
    orientation: int
    frames: int
    warnings: tuple[str, ...] = ()

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height as the file has them."""
        return self.size[::-1] if self.orientation >= 5 else self.size

    @property
    def deep_colour(self) -> bool:
        """Whether its colours, or its grey with alpha, have 16 bits: Pillow keeps the upper 8."""
        if self.survey is None or self.image.mode not in ("RGB", "RGBA", "LA"):
            return False
        if self.format == "PNG":
            return self.survey.data[24] == 16  # the bit depth in IHDR
        return self.format == "TIFF" and 16 in getattr(self.image, "tag_v2", {}).get(258, ())

    @property
    def icc(self) -> bytes | None:
        """The embedded colour profile, unless it is sRGB."""
        profile = (self.survey and self.survey.profile) or self.image.info.get("icc_profile")
        return profile if isinstance(profile, bytes) and not is_srgb(profile) else None

    def check_whole(self) -> None:
        """Raise ImageError for a file that is cut off or whose chunks changed, undecoded.

        JPEG without its end marker, PNG by its checksums: what decoding would find, at a thirtieth
        of the time.
        """
        if self.survey is None:
            return
        fault = self.survey.cut
        if not fault and self.format == "PNG" and (kind := wrong_checksum(self.survey.data)):
            fault = f"the checksum of its part {kind} is wrong"
        if fault:
            raise damaged(self.name, ValueError(fault))

    def decode(self) -> Image.Image:
        """Decode the pixels, in the file's own mode; raises ImageError for damaged files."""
        try:
            self.image.load()
        # MemoryError is one of them, and is told apart by ``damaged``.
        except Exception as error:  # decoders raise anything
            raise damaged(self.name, error) from error
        if self.image.format == "WEBP":  # whose decoder holds two canvases until it is let go
            self.image._decoder = None  # type: ignore[attr-defined]
        return self.image


def open_picture(source: ImageSource, reading: Reading) -> Picture:
    """Read a picture's header; raises ImageError for what is not a usable picture."""
    name = source_name(source)
    survey: Survey | None = None
    warnings: tuple[str, ...] = ()
    if isinstance(source, Image.Image):
        # Not copied: a batch copies what its caller may change.
        image, kind = source, source.format or "PIL"
    elif isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview, BinaryFile)):
        image, survey = _open_file(read_bytes(source, reading), name)
        kind = "MPO" if survey.previews else image.format or ""
    elif hasattr(source, "__array_interface__"):  # after texts: numpy's own have it too
        (image, warnings), kind = from_array(source, name), "array"
    else:
        raise ImageError(
            "not a kind of picture that can be read",
            source=name,
            hint="give a path, URL, data URL, bytes, binary file, PIL image or numpy array",
        )
    _check_size(image, kind, name, reading.get("max_pixels", MAX_PIXELS))
    orientation = _orientation(image, survey)
    # Pillow turns TIFFs itself while it decodes.
    size = image.size[::-1] if orientation >= 5 and kind != "TIFF" else image.size
    frames = _frames(image, survey) if survey else 1
    return Picture(name, image, survey, kind, size, orientation, frames, warnings)


def _open_file(data: bytes, name: str) -> tuple[Image.Image, Survey]:
    found = format_of(data, name)
    try:
        survey = found.survey(data)
        return found.open(BytesIO(survey.data), name), survey
    except UnfitError as error:
        raise ImageError(f"not decoded: {error}", source=name, hint=error.hint) from error
    except InternVLError:
        raise
    except Exception as error:  # decoders raise anything
        raise damaged(name, error) from error


def _frames(image: Image.Image, survey: Survey) -> int:
    """Of AVIF and HEIF only the decoder knows, and from the header."""
    return getattr(image, "n_frames", 1) if image.format in ("AVIF", "HEIF") else survey.frames


def damaged(name: str, error: Exception) -> InternVLError:
    """What a decoder's error means."""
    if is_local_trouble(error) or "out of memory" in str(error).lower():
        return out_of_memory(name)
    hint = "the file is damaged or cut off; save or download it again"
    if isinstance(error, Image.DecompressionBombError):
        hint = "shrink it; Pillow refuses to decode it"
    detail = str(error) or type(error).__name__
    return ImageError(f"cannot be decoded: {detail:.200}", source=name, hint=hint)


def out_of_memory(name: str) -> OutOfResourcesError:
    """The trouble is this machine's, not the picture's."""
    return OutOfResourcesError(
        f"no memory is left to decode {name}",
        hint="prepare fewer pictures at once, or lower max_pixels or max_bytes_decoded",
    )


def _check_size(image: Image.Image, kind: str, name: str, max_pixels: int) -> None:
    """Refuse by the header's numbers, before anything is decoded; raises ImageError."""
    width, height = image.size
    hint = "shrink it, or raise max_pixels"
    pillows = Image.MAX_IMAGE_PIXELS if kind == "TIFF" else None
    if pillows is not None and pillows < max_pixels:  # its own check cannot be passed by
        max_pixels, hint = pillows, "shrink it"
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels ({width}x{height})", source=name)
    if width * height > max_pixels:
        raise ImageError(
            f"{width}x{height} is more than {max_pixels:,} pixels", source=name, hint=hint
        )


def _orientation(image: Image.Image, survey: Survey | None) -> int:
    """EXIF orientation 1-8; 1 where it is missing or makes no sense."""
    block = image.info.get("exif")
    # An EXIF block can claim a million entries, and each is read in Python.
    if isinstance(block, bytes) and not is_sound(block.removeprefix(b"Exif\0\0")):
        return 1
    try:
        # Pillow decodes a PNG to look for EXIF data behind its pixels.
        if survey is not None and (image.format != "PNG" or b"eXIf" not in survey.data):
            exif = Image.Image.getexif(image)
        else:
            exif = image.getexif()
        value = exif.get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001, broken EXIF must not cost the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
