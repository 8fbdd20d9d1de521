"""A data set as buckets hold it, and how it is named."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as arrow
from pyarrow import parquet

from tests.batch.sources import png, tar


def _rows(count: int, group: int) -> bytes:
    """Parquet as ``datasets`` writes it, read with seeks."""
    out = io.BytesIO()
    rows = [{"image": {"bytes": png(n), "path": "x.png"}, "id": f"r{n}"} for n in range(count)]
    parquet.write_table(arrow.Table.from_pylist(rows), out, row_group_size=group)
    return out.getvalue()


FILES: dict[str, bytes] = {
    **{f"deep/{n}.png": png(n) for n in range(3)},
    "deep/3.png": b"no picture",
    "deep/.hidden.png": png(),
    "deep/notes.txt": b"not of interest",
    "shard-0.tar": tar(("0.png", "1.png"))[0],
    "shard-1.tar": tar(("0.png", "1.png"))[0][:2100],
    "list.csv": b"image,id\ndeep/0.png,a\ndeep/none.png,b\n",
    "set.parquet": _rows(40, 15),
}

SOURCES: dict[str, dict[str, Any]] = {
    "": {},
    "/deep/[12].png": {},
    "/**/*.png": {},
    "/shard-{0..2}.tar": {},
    "/list.csv": {"key": "id"},
    "/set.parquet": {},
    "/deep/0.png": {},
    "/none": {},
    "-none/none": {},
}
"""What is added to the address, and options."""
