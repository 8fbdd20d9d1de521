"""The command ``internvl-modal``: parsing and printing only, a module for each command.

``main`` puts the commands together. On top of everything; imported by nobody.

All of these modules are imported for ``--help``. At the top they import typer, ``errors``, what is
known without pydantic, and nothing else; a command imports what it needs when it runs
(``tests/test_start_up.py``).
"""

import sys
from typing import NoReturn

from internvl_modal import __version__

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command; its version is told before a command, or what one needs, is imported."""
    if sys.argv[1:] == ["--version"]:
        print(f"internvl-modal {__version__}")
        sys.exit()
    from internvl_modal.cli.main import main as run

    run()
