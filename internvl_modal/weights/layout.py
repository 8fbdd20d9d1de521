"""Where a model lies in the cache."""

from __future__ import annotations

import re

MANIFEST = "internvl-modal.json"


PARTIAL = ".partial"


COMMIT = re.compile(r"[0-9a-f]{40}")


PLACE = re.compile(rf"((?!\.|[^/]*--)[^/]+/[^/]+/{COMMIT.pattern})/")
"""A file of a model: no repository's name holds two dashes, but folders of huggingface_hub's do."""


def abbreviates(revision: str, commit: str) -> bool:
    """Say whether ``revision`` is the commit, or its beginning as git abbreviates."""
    return re.fullmatch(r"[0-9a-f]{7,40}", revision) is not None and commit.startswith(revision)
