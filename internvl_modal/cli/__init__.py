"""The command ``internvl-modal``: parsing and printing only, a module for each command.

``main`` puts the commands together. On top of everything; imported by nobody.
"""

from internvl_modal.cli.main import main

__all__ = ["main"]
