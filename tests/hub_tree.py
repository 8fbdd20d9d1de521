"""A repository's folders, as a Hugging Face Hub lists them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def entries(
    siblings: Iterable[dict[str, Any]], folder: str, *, deep: bool
) -> list[dict[str, Any]] | None:
    """Files in ``folder`` and, with ``deep``, below, and the folders in it; None for no folder."""
    start = f"{folder}/" if folder else ""
    found, folders = [], {}
    for each in siblings:
        path = each["rfilename"]
        if not path.startswith(start):
            continue
        parts = path.removeprefix(start).split("/")
        for depth in range(1, len(parts) if deep else min(len(parts), 2)):
            name = start + "/".join(parts[:depth])
            folders[name] = {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
        if deep or len(parts) == 1:
            file = {"type": "file", "path": path, "size": each["size"], "oid": each["blobId"]}
            lfs = {"lfs": {**each["lfs"], "oid": each["lfs"]["sha256"]}} if "lfs" in each else {}
            found.append(file | lfs)
    return [*folders.values(), *found] or None
