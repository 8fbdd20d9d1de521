"""``internvl-modal complete``: what a shell needs to complete the command.

A command and not typer's two options, which cost every ``--help`` the import of pydantic.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

__all__ = ["COMPLETE", "complete"]

COMPLETE = "_INTERNVL_MODAL_COMPLETE"
"""Set by the script when a key is pressed."""


def complete(
    shell: Annotated[
        Literal["bash", "zsh", "fish", "powershell"], typer.Argument(help="The shell.")
    ],
) -> None:
    """Print what completes this command in a shell.

    For bash, a line of ~/.bashrc: eval "$(internvl-modal complete bash)"
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    print(get_completion_script(prog_name="internvl-modal", complete_var=COMPLETE, shell=shell))  # nosec B604  # its name
