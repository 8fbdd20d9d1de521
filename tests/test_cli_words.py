"""The command line speaks of the command line: flags in errors, every option, variables, shells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from internvl_modal.cli.describe_flags import Flags
from internvl_modal.cli.main import app
from internvl_modal.cli.wording import Flag, in_flags
from internvl_modal.schema.options import DescribeOptions
from tests.documented import ROOT
from tests.loopback import Loopback, Reply, completion

PHOTO = str(ROOT / "examples" / "images" / "coffee.jpg")
FLAGS = {
    "max_tokens": Flag("--max-tokens"),
    "model": Flag("--model"),
    "out": Flag("--out"),
    "allow_private_urls": Flag("--allow-private-urls"),
    "resume": Flag("--resume", "--no-resume"),
    "base_url": Flag("--base-url"),
}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "internvl_modal", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("pass model= or set INTERNVL_MODAL_MODEL", "pass --model or set INTERNVL_MODAL_MODEL"),
        ("set INTERNVL_MODAL_API_KEY or pass api_key=", "set INTERNVL_MODAL_API_KEY"),
        ("pass allow_private_urls=True if you trust", "pass --allow-private-urls if you trust"),
        ("choose another out=, or resume=False", "choose another --out, or --no-resume"),
        ("max_tokens=5.5: too odd", "--max-tokens 5.5: too odd"),
        ("raise max_tokens", "raise --max-tokens"),
        ("it belongs to the client: Client(model=...)", "it belongs to the client: --model"),
        ("leave the model out", "leave the model out"),
        ("see help(DescribeOptions)", "see --help"),
        ("describe_many('a.pdf', pages='1-20')", "internvl-modal batch a.pdf --pages 1-20"),
        ("raise timeout=", "raise INTERNVL_MODAL_TIMEOUT"),
        ("Retry(resend=) says how often", "Retry(resend=) says how often"),
        ("my/max_tokens.jpg", "my/max_tokens.jpg"),
    ],
)
def test_hints_name_flags(told: str, said: str) -> None:
    assert in_flags(told, FLAGS) == said


def test_options_of_deploy_without_a_flag() -> None:
    assert in_flags("give startup_timeout=", {"options": Flag("--option")}) == (
        "give --option startup_timeout="
    )


def test_errors_of_commands() -> None:
    wrong = run("describe", PHOTO, "--top-p", "7", "--json")
    told = json.loads(wrong.stdout)["error"]
    assert told["message"].startswith("--top-p 7.0: ")
    assert told["hint"] == "see --help"
    address = run("describe", PHOTO, "--backend", "endpoint").stderr
    assert "(pass --base-url or set INTERNVL_MODAL_BASE_URL)" in address


def test_describe_has_every_option() -> None:
    assert set(DescribeOptions.model_fields) <= set(Flags.__annotations__)


def test_options_reach_the_server(loopback: Loopback) -> None:
    run(
        "describe", PHOTO, "--base-url", loopback.url, "-p", "Why?", "-m", "m", "--top-p", "0.5",
        "--top-k", "7", "--seed", "9", "--system", "Be brief.", "--stop", "a", "--stop", "b",
        "--repetition-penalty", "1.5", "--temperature", "1", "--shrink", "never", "--timeout", "60",
    )  # fmt: skip
    sent = loopback.chats[0].json
    told = {name: sent[name] for name in ("model", "top_p", "top_k", "seed", "stop")}
    assert told == {"model": "m", "top_p": 0.5, "top_k": 7, "seed": 9, "stop": ["a", "b"]}
    assert sent["repetition_penalty"] == 1.5
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert sent["messages"][1]["content"][0]["text"].endswith("Why?")


def test_out(loopback: Loopback, tmp_path: Path) -> None:
    done = run("describe", PHOTO, PHOTO, "--base-url", loopback.url, "--json", "-o", "answer.jsonl")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = (tmp_path / "answer.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["A cat."] * 2
    kept = (tmp_path / "answer.jsonl").read_text()
    loopback.will(Reply(400, {"message": "no"}))
    failed = run("describe", PHOTO, "--base-url", loopback.url, "-o", "answer.jsonl")
    assert failed.returncode == 1
    assert "error: " in failed.stderr
    assert (tmp_path / "answer.jsonl").read_text() == kept
    assert not list(tmp_path.glob(".answer*"))
    for place in (".", "missing/answer.txt"):
        wrong = run("describe", PHOTO, "--base-url", loopback.url, "-o", place)
        assert wrong.returncode == 2
        assert f"--out {place}" in wrong.stderr


@pytest.mark.parametrize("where", ["the environment", ".env"])
def test_a_misspelt_variable_is_told(loopback: Loopback, tmp_path: Path, where: str) -> None:
    wrong = {"INTERNVL_MODAL_BASE_ULR": "x", "INTERNVL_MODAL_DEPLOY_GPPU": "H200"}
    if where == ".env":
        text = "".join(f"{name}={value}\n" for name, value in wrong.items())
        (tmp_path / ".env").write_text(f"OTHER=1\n{text}")
    right = {"INTERNVL_MODAL_BASE_URL": loopback.url, "INTERNVL_MODAL_DEPLOY_GPU": "H200"}
    variables = right if where == ".env" else {**right, **wrong}
    done = run("describe", PHOTO, **variables)
    assert done.stdout == "A cat.\n"
    assert sorted(done.stderr.splitlines()) == [
        f"warning: {name}, from {where}, is no setting; did you mean {near}?"
        for name, near in (
            ("INTERNVL_MODAL_BASE_ULR", "INTERNVL_MODAL_BASE_URL"),
            ("INTERNVL_MODAL_DEPLOY_GPPU", "INTERNVL_MODAL_DEPLOY_GPU"),
        )
    ]


def test_an_error_says_where_the_address_came_from(loopback: Loopback, tmp_path: Path) -> None:
    url = {"INTERNVL_MODAL_BASE_URL": loopback.url}
    loopback.will(Reply(401, {"message": "wrong key"}))
    words = "the address is INTERNVL_MODAL_BASE_URL's, from"
    assert f"{words} the environment" in run("describe", PHOTO, **url).stderr
    assert words not in run("describe", PHOTO, "--base-url", loopback.url, **url).stderr
    (tmp_path / ".env").write_text("INTERNVL_MODAL_BASE_URL=nonsense\n")
    assert f"{words} .env" in run("models").stderr
    loopback.will(Reply(body=completion("")))
    assert words not in run("describe", PHOTO, **url).stderr


def test_short_options() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = {
        (name, option): max(parameter.opts, key=len)
        for name, command in commands.items()
        for parameter in command.params
        for option in parameter.opts
        if len(option) == 2
    }
    for name in ("describe", "batch"):
        for short, long in (("-m", "--model"), ("-o", "--out"), ("-p", "--prompt")):
            assert found[name, short] == long


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """The script, and what it runs when a tab is pressed."""
    shown = run("complete", shell)
    assert "_INTERNVL_MODAL_COMPLETE" in shown.stdout, shown.stderr
    asked = {
        "_INTERNVL_MODAL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "internvl-modal desc",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "internvl-modal desc",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": "desc",
    }
    assert "describe" in run(**asked).stdout


def test_a_bash_completes(tmp_path: Path) -> None:
    (tmp_path / "internvl-modal").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m internvl_modal "$@"\n'
    )
    (tmp_path / "internvl-modal").chmod(0o755)
    code = (
        'eval "$(internvl-modal complete bash)"; COMP_WORDS=(internvl-modal describe --top); '
        'COMP_CWORD=2; _internvl_modal_completion internvl-modal; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", code],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == ["--top-p", "--top-k"]


def test_a_fault_is_a_line_and_no_traceback() -> None:
    code = (
        "import sys\n"
        "import internvl_modal\n"
        "from internvl_modal.cli.main import main\n"
        "def broken(*args, **kwargs): raise RuntimeError('oh no')\n"
        "internvl_modal.plan = broken\n"
        "sys.argv = ['internvl-modal', 'plan', 'internvl2_5-8b']\n"
        "main()\n"
    )
    for flags, traceback in (((), False), (("-X", "dev"), True)):
        run = [sys.executable, *flags, "-W", "ignore", "-c", code]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is traceback
        assert "RuntimeError: oh no" in done.stderr
