"""What the documentation site needs beside ``docs/``: pages that live elsewhere in the repository.

Links are written so that they work in the repository; here they are turned to the site's pages.
Used by MkDocs (``hooks`` in mkdocs.yml): ``mkdocs build --strict``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "performance.md",
}
"""Files of the repository that are pages of the site."""
PICTURES = {
    "benchmarks/batch-memory.png": "batch-memory.png",
    "examples/images/scene.png": "scene.png",
}
ADDRESSES = {**PAGES, **PICTURES, "README.md": "start.md"}
_WORD = re.compile(r"^(```\w+) [\w-]+$", re.M)
"""What a test calls a block, behind its language; the site's Markdown takes it for no fence."""
_LINK = re.compile(r"(!?\[([^\]]*)\]\()(?!https?:|#|mailto:)([^)#\s]+)([^)]*\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures from outside of ``docs``."""
    for source, name in (PAGES | PICTURES).items():
        content = (ROOT / source).read_bytes()
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """``markdown`` with its links turned to the site's own pages."""
    homes = {name: source for source, name in PAGES.items()}
    source = homes.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def turned(match: re.Match[str]) -> str:
        path = (ROOT / source).parent.joinpath(match[3]).resolve()
        where = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else match[3]
        if where in ADDRESSES or where.startswith("docs/"):
            return match[1] + ADDRESSES.get(where, where.removeprefix("docs/")) + match[4]
        # The code is no part of the site, and where it is published a copy cannot know.
        return match[2] if path.exists() else match[0]

    return _LINK.sub(turned, _WORD.sub(r"\1", markdown))
