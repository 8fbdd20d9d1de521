"""What several commands share: options, and how errors are printed.

Everything about a terminal is here: commands return numbers and raise errors, and only ``main``
ends the process.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from internvl_modal._utils.user_warning import InternVLWarning
from internvl_modal.cli.wording import remember, spoken
from internvl_modal.errors import ConfigError, InternVLError

_PREFIX = "INTERNVL_MODAL_"
_warned: set[str] = set()
"""What this process has warned of."""

Backend = Annotated[str | None, typer.Option(help="local, endpoint, lmdeploy, modal or a URL.")]


BaseUrl = Annotated[str | None, typer.Option(help="URL of an OpenAI-compatible server.")]


Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Model there; 'demo' needs no download (local backend)."),
]


Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, errors too.")]


class _Command(typer.core.TyperCommand):
    """Has its errors told in its own flags, and names of variables checked before it runs."""

    def invoke(self, ctx: Any) -> Any:
        logging.basicConfig(format="%(message)s", level=logging.WARNING)  # on standard error
        remember(self.params, ctx.params)
        warnings.simplefilter("default", InternVLWarning)  # printed, and never raised
        warnings.showwarning = _show_warning
        for line in _misspelt():
            warn(line)
        return super().invoke(ctx)


class _App(typer.Typer):
    def command(self, name: str | None = None, **more: Any) -> Any:
        return super().command(name, **{"cls": _Command, **more})


def warn(text: str, *, again: bool = False) -> None:
    """Print a warning, once; with ``again`` whenever Python has not shown it as one of its own."""
    if text not in _warned:
        say(f"warning: {text}", err=True)
    if not again:
        _warned.add(text)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **_: Any) -> None:
    """In place of Python's: ours in the words of the command line, others as ever."""
    if issubclass(category, InternVLWarning):
        warn(str(message))
    else:
        say(warnings.formatwarning(message, category, *place[:2]).rstrip(), err=True)


def _misspelt() -> list[str]:
    """What is wrong with the names of variables; nothing is imported where there are none."""
    file = Path(".env")
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    if not any(_PREFIX in name.upper() for name in (*os.environ, *lines)):
        return []
    from internvl_modal.settings import misspelt_variables

    if not any(f"{_PREFIX}DEPLOY_" in name.upper() for name in (*os.environ, *lines)):
        return misspelt_variables()
    from internvl_modal.deployment.options import PREFIX, DeployOptions

    return misspelt_variables(PREFIX + name.upper() for name in DeployOptions.model_fields)


def typer_app(help_text: str, **more: Any) -> typer.Typer:
    """An application that shows its help when nothing is asked of it.

    In plain text: importing rich takes twice as long as everything else that ``--help`` needs.
    """
    return _App(help=help_text, no_args_is_help=True, rich_markup_mode=None, **more)


def mend_console() -> None:
    """Have nothing fail for want of a console: what one cannot show is escaped there."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed; the next file would get its number
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
            setattr(sys, name, nowhere)
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # A Windows console or a C locale has no letters for a Chinese description.
            stream.reconfigure(errors="backslashreplace")


def check_output() -> None:
    """Raise ConfigError where standard output is closed: an answer would be paid and lost."""
    if getattr(sys.stdout, "name", None) == os.devnull:
        raise ConfigError("standard output is closed", hint="the answer would be lost")


def say(text: str, *, err: bool = False) -> None:
    """Print a line, if somebody is there to read it: a batch goes on without.

    For what is told beside the answer; the answer itself is printed with ``print``, and fails
    aloud.
    """
    stream = sys.stderr if err else sys.stdout
    # Above a bar and not on it: tqdm takes its bars away meanwhile, where it shows any.
    bars = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    try:
        with nullcontext() if bars is None else bars.external_write_mode(file=stream):
            print(text, file=stream, flush=True)
    except OSError:
        with suppress(OSError):  # flushed again at the end
            # Python flushes again when it ends, and would print a traceback then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except ValueError:  # closed
        pass


def failed(error: InternVLError) -> int:
    """Print ``error`` as the command line asks for it; return its exit code.

    ``--json`` is looked for in the arguments, as the error may come before they are parsed.
    """
    if "--json" in sys.argv:
        print(json.dumps({"error": error_document(error)}))
        return exit_code(error)
    return fail(error)


def misused(error: Any) -> int:
    """Print what is wrong with the command line; return its exit code."""
    error.message = error.message.removeprefix("Value error, ")  # typer's
    # A program that reads JSON must get JSON for a wrong option as well.
    if "--json" in sys.argv:
        return failed(ConfigError(error.format_message(), hint="see --help"))
    error.show()
    return 2


def fail(error: InternVLError) -> int:
    """Print ``error`` on one line; return its exit code."""
    message, hint = spoken(error)
    told = str(InternVLError(message, hint=hint))
    print(f"error: {' '.join(told.split())}", file=sys.stderr)
    return exit_code(error)


def exit_code(error: InternVLError) -> int:
    """2 for what the user can mend in the command, 1 for the rest.

    The numbers that argparse and most Unix tools use.
    """
    return 2 if isinstance(error, ConfigError) else 1


def error_document(error: InternVLError) -> dict[str, object]:
    """An error for a program to read."""
    message, hint = spoken(error)
    return {
        "type": type(error).__name__,
        "message": message,
        "hint": hint,
        "retryable": error.retryable,
    }
