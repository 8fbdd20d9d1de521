"""Write ``internvl_modal/deployment/image_packages.txt``: run it when a requirement changes.

What this distribution requires in a container, resolved by uv for the Python that runs there.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from internvl_modal.deployment.container_images import PINS, PYTHON, required

HEADER = "# Written by tools/image_packages.py\n"


def main() -> None:
    """Resolve and write."""
    command = ["uv", "pip", "compile", "-q", "--no-header", "--no-annotate", "-"]
    command += ["--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_28"]
    done = subprocess.run(
        command, input="\n".join(required()), capture_output=True, text=True, check=True
    )
    Path(str(PINS)).write_text(HEADER + done.stdout)


if __name__ == "__main__":
    main()
