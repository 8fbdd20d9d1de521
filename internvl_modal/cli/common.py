"""What several commands share: options, and how errors are printed."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from internvl_modal.errors import ConfigError, InternVLError

Backend = Annotated[str | None, typer.Option(help="local, endpoint, lmdeploy, modal or an URL.")]


BaseUrl = Annotated[str | None, typer.Option(help="URL of an OpenAI-compatible server.")]


Model = Annotated[
    str | None, typer.Option(help="Model there; 'demo' needs no download (local backend).")
]


Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, errors too.")]


def failed(error: InternVLError) -> int:
    """Print ``error`` as the command line asks for it; return its exit code."""
    if "--json" in sys.argv:
        print(json.dumps({"error": error_document(error)}))
        return exit_code(error)
    return fail(error)


def misused(error: Any) -> int:
    """Print what is wrong with the command line; return its exit code."""
    error.message = error.message.removeprefix("Value error, ")  # typer's
    if "--json" in sys.argv:
        return failed(ConfigError(error.format_message(), hint="see --help"))
    error.show()
    return 2


def fail(error: InternVLError) -> int:
    """Print ``error`` on one line; return its exit code."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return exit_code(error)


def exit_code(error: InternVLError) -> int:
    """2 for what the user can mend in the command, 1 for the rest."""
    return 2 if isinstance(error, ConfigError) else 1


def error_document(error: InternVLError) -> dict[str, object]:
    """An error for a program to read."""
    return {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
    }
