"""Write the pages of the documentation that are made from the code: cli.md, errors.md, settings.md.

Run from the repository's root as ``python -m tools.site_pages``; ``tests/test_site.py`` holds the
pages to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from internvl_modal import errors
from internvl_modal.cli.common import exit_code
from internvl_modal.cli.main import app
from internvl_modal.settings import settings_table

DOCS = Path(__file__).parents[1] / "docs"

REMEDIES = {
    "InternVLError": "Catch it to catch every error of this package, and show `.hint` to whoever "
    "can act on it.",
    "ConfigError": "Correct the argument, option or variable that the message names.",
    "MissingExtraError": "Install the extra that the hint names, in the environment that runs "
    "your program.",
    "ImageError": "Look at the picture that `.source` names: the hint says whether to save it "
    "again, to convert it, to raise a limit, or to allow an address.",
    "OutOfResourcesError": "Free memory or disk, raise the limit of open files (`ulimit -n`), or "
    "ask for fewer pictures at once, then run it again.",
    "SpendLimitError": "Raise `max_usd`, or give fewer pictures (`limit=`, `sample=`); with `out=` "
    "the same call goes on where this one stopped. [What a batch may "
    "cost](captions.md#what-a-batch-may-cost) says how it is reckoned.",
    "AnswerFlaggedError": "Read `.text`, which is kept, and `.flags`; ask in other words, take "
    'another model, or let `on_flag="record"` keep the answer with its flags.',
    "WeightsError": "Call again: a download goes on where it stopped. Where the model is not "
    "public, set `HF_TOKEN` or create the Modal Secret `huggingface-secret`.",
    "WeightsInterruptedError": "Call again to go on with the download.",
    "PlanError": "Take one of the GPUs that the hint names, fewer or smaller pictures, or a "
    "smaller model. [Plan and cost](planning.md) says how the numbers come about.",
    "DeployError": "Read the last lines of the log in the message, and `internvl-modal logs NAME`. "
    "[Deploying](deploy.md) says what is checked before and what is put back after a failure.",
    "ServerError": "Look at `.status` and `.body`, and give `.request_id` to whoever runs the "
    "server.",
    "AuthenticationError": "Pass the server's own key as `api_key=`. A deployment's is printed by "
    "`internvl-modal connect NAME --show-key`, and that of a gateway by `internvl-modal serve`.",
    "RequestRejectedError": "Change what the message names; the same request will be refused "
    "again.",
    "ContextLengthError": "Send fewer tiles (`detail=`) or pictures, a shorter prompt, or a "
    "smaller `max_tokens`; `.needed` and `.available` say by how much.",
    "RateLimitedError": "Ask for fewer pictures at once, or later: `.retry_after` says when.",
    "ServerUnavailableError": "See that the server runs and that its address is right. A cold "
    "deployment needs minutes: raise `timeout=`.",
    "AnswerLostError": "Ask again if it may cost twice; `Retry(resend=...)` does so by itself.",
    "DeadlineExceededError": "Raise `timeout=`, ask for less, or find out what is slow: "
    "`description.timings` of other calls says where the time goes.",
    "EngineError": "See the server's log; the same call may work when it is made again.",
    "EmptyAnswerError": "Read `.reasoning` and the message: raise `max_tokens` where the model "
    "spent it on thinking, and ask otherwise where it refused.",
    "ImageNotSeenError": "Do not use the text. See the server's log for why it could not load the "
    "picture, and whether it limits the tiles of a picture.",
    "OutputInvalidError": "Read `.text`, the raw answer; make the schema simpler or say in the "
    "prompt what is wanted. Raise `max_tokens` where the answer was cut.",
}
"""What to do about each kind of error, for somebody who has just met it."""


def cli_page() -> str:
    """Every command with its help, as it is printed on a terminal of 96 columns."""
    parts = [
        "# The command line",
        "Every command and every option, as `--help` prints them. "
        "`python -m internvl_modal` is the same command. It ends with 0 when all went well, with 1 "
        "when a description, a check or a deployment failed, and with 2 when the command itself "
        "is wrong. Errors go to standard error, on one line; with `--json` they are JSON on "
        'standard output. With `eval "$(internvl-modal complete bash)"` in `~/.bashrc` the shell '
        "completes commands and options; zsh, fish and PowerShell take the same.",
    ]
    for command in commands():
        name = " ".join(("internvl-modal", *command))
        parts.append(
            f"{'###' if len(command) > 1 else '##'} {name}\n\n```text\n{_help(command)}```"
        )
    return "\n\n".join(parts) + "\n"


def commands() -> Iterator[tuple[str, ...]]:
    """The words of each command, the command itself first."""

    def below(group: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, command in getattr(group, "commands", {}).items():
            yield from below(command, (*words, name))

    return below(typer.main.get_command(app), ())


def _help(command: tuple[str, ...]) -> str:
    runner = CliRunner(env={"COLUMNS": "96", "TERMINAL_WIDTH": "96", "NO_COLOR": "1"})
    shown = runner.invoke(app, [*command, "--help"], prog_name="internvl-modal")
    return shown.output


def errors_page() -> str:
    """The tree of errors, and each one with its cause and what to do."""
    tree = (errors.__doc__ or "").split("\n\n", 1)[1].strip()
    parts = [
        "# Errors",
        "Every failure of a call is an `InternVLError`. Its text says what went wrong and, in "
        "brackets, what to do next; `.message` and `.hint` are the two apart. `.retryable` says "
        "whether the same call may work later. All of them can be pickled, and none holds a key "
        "or a picture.",
        f"```text\n{tree}\n```",
    ]
    parts += [_error(getattr(errors, name)) for name in sorted(errors.__all__)]
    return "\n\n".join(parts) + "\n"


def _error(kind: type[errors.InternVLError]) -> str:
    said = inspect.cleandoc(kind.__doc__ or "").split("\n\n>>>")[0].replace("``", "`")
    code = exit_code(kind.__new__(kind))
    retried = "is tried again by the client" if kind.retryable else "is not tried again"
    notes = f"It {retried}. The command line ends with {code}."
    return "\n\n".join(
        [f"## {kind.__name__}", said, f"**What to do.** {REMEDIES[kind.__name__]}", notes]
    )


def settings_page() -> str:
    """Every setting by its variable, with where it is taken from."""
    return f"""# Settings

Each setting is taken from the first of these that has it: an argument, an environment variable,
the file `.env` in the working folder, the default. An empty variable counts as not set. One
that is misspelt is [told](observing.md#warnings). Keys and tokens are never shown, in no message,
log or `repr`.

{settings_table()}
`internvl-modal doctor` says which of them are set. The options of a command, such as `--base-url`
and `--model`, win over all of them. What `deploy` takes from `INTERNVL_MODAL_DEPLOY_...` is listed
with [its options](deploy.md#options).
"""


PAGES = {"cli.md": cli_page, "errors.md": errors_page, "settings.md": settings_page}


def main() -> None:
    """Write them."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
