"""The command ``internvl-modal``: parsing and printing only.

Exit codes: 0; 1 for a failed description or check; 2 for wrong usage.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

import internvl_modal
from internvl_modal.cli import (
    batch,
    complete,
    deploy,
    describe,
    doctor,
    gallery,
    managing,
    plan,
    serve,
    weights,
)
from internvl_modal.cli.common import fail, failed, mend_console, misused, typer_app
from internvl_modal.errors import InternVLError, WeightsInterruptedError


class _Commands(typer.core.TyperGroup):
    """Typer ends at any KeyboardInterrupt without a word; ours says how to go on."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WeightsInterruptedError as error:
            failed(error)
            raise


app = typer_app(
    "Describe images with InternVL: on this machine, on Modal's GPUs, or on any server.",
    cls=_Commands,
    add_completion=False,
    # Rich tracebacks print local variables, keys among them.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command; any error of ours is one line on standard error."""
    mend_console()
    if complete.COMPLETE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        # Otherwise click would end the process itself, and turn our errors into tracebacks.
        code = app(prog_name="internvl-modal", standalone_mode=False) or 0
    except InternVLError as error:
        code = failed(error)
    except typer.Exit as stop:
        code = stop.exit_code
    except typer.Abort:
        # 128 + SIGINT, as shells have it.
        code = 130
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        # ``| head`` closes the pipe: no fault, and no message.
        if error.errno in (errno.ENOSPC, errno.EPIPE):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed at the end
            full = InternVLError(f"cannot write: {error}", hint="make room")
            code = fail(full) if error.errno == errno.ENOSPC else 1
        else:
            code = _fault(error)
    except Exception as error:  # noqa: BLE001 - the last place to say it in a line
        # By its method and not by its class: typer may bring a click of its own.
        wrong_usage = hasattr(error, "format_message")  # click's
        code = misused(error) if wrong_usage else _fault(error)
    sys.exit(code)


def _fault(error: Exception) -> int:
    """Say what should not have happened; ``python -X dev`` shows where."""
    if sys.flags.dev_mode:
        raise error
    hint = "a fault of this program; python -X dev -m internvl_modal ... shows where it is"
    return fail(InternVLError(f"unexpected {type(error).__name__}: {error}", hint=hint))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"internvl-modal {internvl_modal.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


for command in (
    describe.describe,
    describe.models,
    plan.plan,
    doctor.doctor,
    batch.batch,
    gallery.gallery,
    deploy.deploy,
    deploy.status,
    deploy.logs,
    deploy.scale,
    deploy.stop,
    deploy.connect,
    managing.cost,
    managing.stats,
    managing.prewarm,
    managing.stop_after,
    managing.unschedule,
    serve.serve,
    complete.complete,
):
    app.command()(command)
app.add_typer(weights.app, name="weights")
