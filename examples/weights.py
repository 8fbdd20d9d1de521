"""Fetch a small model for the laptop, check it, and tidy the cache.

Run it as ``python examples/weights.py [FOLDER]``; a second run needs no network.
"""

import sys

from internvl_modal import WeightsCache


def main(folder: str) -> None:
    """Fetch, verify, list, prune."""
    cache = WeightsCache(folder)
    model = cache.ensure("internvl2_5-1b", variant="gguf")
    print("llama.cpp can load", *(model.file(name) for name in model.files))

    found = cache.verify(model.model, deep=True)
    print(f"{found.files} files verified" if found.ok else f"bad files: {found.bad}")

    for entry in cache.list():
        print(entry.model, entry.commit[:12], f"{entry.size / 1e9:.2f} GB", entry.complete)
    cache.prune(keep=1)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "models")
