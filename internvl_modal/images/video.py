"""Evenly spaced frames of a video, upright; needs the extra ``video`` (PyAV).

InternVL reads a video as so many pictures of one tile ("Frame1: ..."). PyAV bundles FFmpeg, and
FFmpeg reads whatever it is given, so it is given a file that is open and nothing else.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_modal.errors import ConfigError, ImageError, MissingExtraError
from internvl_modal.images.names import source_name

if TYPE_CHECKING:
    from PIL.Image import Image

_ALONE = {"protocol_whitelist": ""}
"""FFmpeg reads the file that is given and opens nothing that is named in it, as playlists do."""


def read_frames(
    path: str | Path, *, frames: int = 8, start: float = 0.0, end: float | None = None
) -> tuple[Image, ...]:
    """``frames`` RGB pictures from the middles of equal parts of ``start`` to ``end`` (seconds).

    That is how InternVL's own code samples a video. A shorter video gives each of its frames at
    most once. Raises ConfigError, ImageError or MissingExtraError.
    """
    if frames < 1 or start < 0 or (end is not None and end <= start):
        raise ConfigError(
            f"frames={frames}, start={start}, end={end} choose no frame",
            hint="frames >= 1 and 0 <= start < end, in seconds",
        )
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video") from error
    name = source_name(path)
    # FFmpeg would fetch it, and whatever it names, from anywhere.
    if isinstance(path, str) and "://" in path:
        raise ImageError("a video is not fetched", source=name, hint="download it; give the file")
    try:
        # A file and not a name: FFmpeg takes some names for devices and protocols.
        with Path(path).open("rb") as file, av.open(file, container_options=_ALONE) as container:
            pictures = _sample(container, name, frames, start, end)
    except (av.FFmpegError, OSError, ValueError) as error:  # a name may hold a NUL
        reason = getattr(error, "strerror", None) or error
        raise ImageError(
            f"not a readable video: {reason}", source=name, hint="give a video file"
        ) from error
    if not pictures:
        raise ImageError("no frame lies in that range", source=name, hint="check start= and end=")
    return pictures


def _sample(
    container: Any, source: str, count: int, start: float, end: float | None
) -> tuple[Image, ...]:
    """Decode once, from the keyframe before ``start``: the frame on display at each time."""
    if not container.streams.video:
        raise ImageError("it holds no video stream", source=source, hint="give a video file")
    stream = container.streams.video[0]
    # Frames too are decoded by several threads; the default is slices only.
    stream.thread_type = "AUTO"
    origin = float((stream.start_time or 0) * stream.time_base)
    length = _seconds(container, stream, source)
    if start >= length:
        raise ImageError(
            f"start={start:g} lies beyond its end at {length:.3f} s",
            source=source,
            hint="check start=, in seconds",
        )
    last = min(length, end) if end is not None else length
    # The middles: the ends of a video are often black.
    times = [start + (last - start) * (index + 0.5) / count for index in range(count)]
    # To the keyframe before it: decoding can begin at keyframes only.
    if start:
        container.seek(int((start + origin) / stream.time_base), stream=stream)
    pictures: list[Image] = []
    held = None
    for frame in container.decode(stream):
        now = float((frame.pts or 0) * stream.time_base) - origin
        # The frame before has been on display until now.
        if held is not None and now > times[0]:
            pictures.append(_upright(held))
            times = [time for time in times if time >= now]
            if not times:
                return tuple(pictures)
        held = frame
    return (*pictures, _upright(held)) if held is not None else ()


def _seconds(container: Any, stream: Any, source: str) -> float:
    """Length of the video in seconds, by its header or, where that is silent, by its packets."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None:
        return float(Fraction(container.duration, 1_000_000))
    # A recording that was never finished says nothing of its length: its packets do.
    ends = [p.pts + (p.duration or 0) for p in container.demux(stream) if p.pts is not None]
    if not ends:
        hint = "put it into an MP4 first: ffmpeg -i IN -c copy OUT.mp4"
        raise ImageError("its frames have no times", source=source, hint=hint)
    container.seek(0)
    return float((max(ends) - (stream.start_time or 0)) * stream.time_base)


def _upright(frame: Any) -> Image:
    """The frame as a picture, turned as its display matrix says (degrees, counter-clockwise)."""
    picture: Image = frame.to_image()
    turn = round(getattr(frame, "rotation", 0)) % 360
    return picture.rotate(turn, expand=True) if turn else picture
