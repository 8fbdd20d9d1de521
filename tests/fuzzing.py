"""Coverage-guided fuzzing: ``python -m tests.fuzzing pictures|answers|manifests [OPTION...]``.

Needs atheris and this package in one environment (CONTRIBUTING.md). Whatever comes in, nothing but
our own errors may come out. Options are libFuzzer's, such as ``-max_total_time=900``.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["internvl_modal", "PIL"]):
    import pyarrow as pa
    from PIL import Image
    from pyarrow import parquet

    import internvl_modal as ivl
    from internvl_modal.batch.sources.choice import Choice
    from internvl_modal.batch.sources.inputs import check_choice, read
    from internvl_modal.images import estimate, prepare
    from internvl_modal.protocol.call import ChatCall
    from internvl_modal.protocol.completion import decode_completion, decode_models
    from internvl_modal.protocol.completion_stream import CompletionStream
    from internvl_modal.protocol.http import HttpResponse
    from internvl_modal.schema.options import DescribeOptions

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM", "AVIF")
ENDINGS = (".csv", ".tsv", ".jsonl", ".txt", ".parquet", ".tar", ".tar.gz")
MOST = 1000
"""Rows that are read of one manifest."""
_folder = Path(tempfile.mkdtemp())
_call = ChatCall(
    ivl.Endpoint("http://127.0.0.1/v1"), ivl.Capabilities(), "m", (), DescribeOptions()
)


def pictures(data: bytes) -> None:
    """Look at a picture, and prepare it."""
    for use in (estimate, prepare):
        try:
            use(data, max_pixels=1_000_000)
        except ivl.ImageError:
            continue


def answers(data: bytes) -> None:
    """Read an answer of a status in the first byte, whole and as a stream in two pieces."""
    status = (200, 200, 400, 401, 404, 413, 422, 429, 500, 503)[data[0] % 10] if data else 200
    response, half = HttpResponse(status, {}, data[1:]), len(data) // 2
    stream = CompletionStream(_call)

    def streamed() -> None:
        for piece in (data[1:half], data[max(1, half) :]):
            list(stream.feed(piece))
        stream.finish()

    for use in (
        lambda: decode_completion(response, _call),
        lambda: decode_models(response),
        streamed,
    ):
        try:
            use()
        except ivl.ServerError:
            continue


def manifests(data: bytes) -> None:
    """Read a manifest of the kind that the first byte says."""
    path = _folder / f"manifest{ENDINGS[data[0] % len(ENDINGS)] if data else '.csv'}"
    path.write_bytes(data[1:])
    try:
        check_choice(path, Choice())
        for _ in islice(read(path, Choice()), MOST):
            pass
    except (ivl.ConfigError, ivl.ImageError):
        return


def seeds(target: str) -> list[bytes]:
    """Where the fuzzer begins."""
    if target == "pictures":
        files = [io.BytesIO() for _ in FORMATS]
        for file, format in zip(files, FORMATS, strict=True):
            Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(file, format)
        return [file.getvalue() for file in files]
    if target == "answers":
        said = {"choices": [{"message": {"content": "A cat."}, "finish_reason": "stop"}]}
        event = {"choices": [{"delta": {"content": "A"}, "finish_reason": None}], "usage": {}}
        return [
            b"\0" + json.dumps(said).encode(),
            b"\0data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n",
            b'\2{"error": {"message": "no", "code": "context_length_exceeded"}}',
        ]
    table = io.BytesIO()
    parquet.write_table(pa.table({"image": ["a.png", "b.png"], "id": [1, 2]}), table)
    rows = b"id,image\n1,a.png\n2,b.png\n"
    lines = b'{"id": 1, "image": "a.png"}\n'
    return [b"\0" + rows, b"\1" + rows, b"\2" + lines, b"\3a.png\n", b"\4" + table.getvalue()]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "pictures": pictures,
    "answers": answers,
    "manifests": manifests,
}


def main() -> None:
    """Fuzz until libFuzzer ends."""
    target, *options = sys.argv[1:] or ["none"]
    if target not in TARGETS:
        raise SystemExit(__doc__)
    corpus = Path(tempfile.mkdtemp())
    for number, seed in enumerate(seeds(target)):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
