"""What is imported where: most of a short call is imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.loopback import Loopback

CLIENT = ("PIL", "aiohttp", "dotenv", "httpx", "huggingface_hub", "modal", "pydantic_settings")
SENT = ("PIL", "httpx", "modal", "huggingface_hub", "pydantic_settings")


def loaded(code: str, *names: str) -> str:
    """Those of ``names`` that a new Python has imported after ``code``."""
    ask = f"{code}\nimport sys\nprint([n for n in {names!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("client", ["Client", "AsyncClient"])
def test_a_client_is_made(client: str) -> None:
    code = f"import internvl_modal as ivl\nivl.{client}(base_url='http://127.0.0.1:9/v1')"
    names = CLIENT if client == "Client" else tuple(n for n in CLIENT if n != "aiohttp")
    assert loaded(code, *names) == "[]"


def test_a_question_without_a_picture(loopback: Loopback) -> None:
    code = (
        f"import internvl_modal as ivl\nclient = ivl.Client(base_url={loopback.url!r})\n"
        "client.chat([{'role': 'user', 'text': 'hi'}])"
    )
    assert loaded(code, *SENT) == "[]"


def command(*words: str) -> str:
    """Code that runs the command, and goes on when it ends well."""
    return (
        f"import sys\nsys.argv = ['internvl-modal', *{words!r}]\n"
        "from internvl_modal.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )


def test_the_version_is_told_before_a_command_is_imported() -> None:
    names = ("typer", "pydantic", "internvl_modal.cli.main", "rich")
    assert loaded(command("--version"), *names) == "[]"


@pytest.mark.parametrize(
    "words", [(), ("describe",), ("batch",), ("plan",), ("doctor",), ("weights", "ensure")]
)
def test_help_needs_no_client(words: tuple[str, ...]) -> None:
    heavy = ["rich", "internvl_modal.client", "internvl_modal.settings", "asyncio"]
    if not words:
        heavy.append("pydantic")  # typer itself reads a command's options with it
    assert loaded(command(*words, "--help"), *heavy, *CLIENT) == "[]"


def test_help_cuts_no_command_short() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "internvl_modal", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert "weights" in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2]
