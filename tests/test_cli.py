"""The command as a user runs it: in a process of its own."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

import internvl_modal
from internvl_modal.backends.local import HUB_MODELS
from internvl_modal.cli import plan
from internvl_modal.cli.plan import models_text
from internvl_modal.models.catalogue import MODELS
from tests.loopback import Loopback, Reply, completion, stream_events
from tests.loopback_hub import LoopbackHub

ROOT = Path(__file__).parents[1]
SCENE = str(ROOT / "examples" / "images" / "scene.png")
PHOTO = str(ROOT / "examples" / "images" / "coffee.jpg")
SENTENCE = (
    "A large red circle at the top left and a small blue square at the top right, on a gray "
    "background. The blue square is right of the red circle."
)


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    result = subprocess.run(  # noqa: PLW1510 - the code is what is tested
        [sys.executable, "-W", "error", "-m", "internvl_modal", *arguments],
        capture_output=True,
        input=stdin,
        env=os.environ,
    )
    return subprocess.CompletedProcess(
        result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
    )


def test_the_demo_model_describes_the_scene() -> None:
    result = run("describe", SCENE, "--model", "demo")
    assert (result.returncode, result.stdout.strip()) == (0, SENTENCE)
    assert result.stderr.startswith("warning: the demo model knows only generated scenes")
    assert result.stderr.count("\n") == 1


def test_a_stream_says_the_same() -> None:
    assert run("describe", SCENE, "--model", "demo", "--stream").stdout.strip() == SENTENCE


def test_standard_input() -> None:
    result = run("describe", "-", "--model", "demo", stdin=Path(SCENE).read_bytes())
    assert result.stdout.strip() == SENTENCE


def test_json(loopback: Loopback) -> None:
    result = run("describe", PHOTO, "--base-url", loopback.url, "--json", "--detail", "1")
    document = json.loads(result.stdout)
    assert document["text"] == "A cat."
    assert document["image"] == PHOTO
    assert document["images"][0]["tiles"] == 1


def test_options_are_passed_on(loopback: Loopback) -> None:
    run(
        "describe", PHOTO, "--base-url", loopback.url, "--prompt", "Why?", "--model", "m",
        "--max-tokens", "7", "--temperature", "0.5",
    )  # fmt: skip
    sent = loopback.chats[0].json
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("m", 7, 0.5)
    assert sent["messages"][0]["content"][0]["text"].endswith("Why?")


def test_one_bad_picture_does_not_stop_the_rest(loopback: Loopback, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    result = run("describe", PHOTO, "bad.jpg", "gone.jpg", PHOTO, "--base-url", loopback.url)
    assert result.returncode == 1
    assert result.stdout == f"{PHOTO}: A cat.\n" * 2
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert re.match(r"error: bad\.jpg: .*\(.*\)", lines[0])
    assert lines[1].startswith("error: gone.jpg: ")


@pytest.mark.parametrize("prompt", ["What is this?", "Why?", "Describe it"])
def test_a_prompt_among_the_pictures(loopback: Loopback, prompt: str) -> None:
    result = run("describe", PHOTO, prompt, "--base-url", loopback.url)
    assert result.stdout == f"{PHOTO}: A cat.\n"
    assert "that goes after --prompt" in result.stderr


def test_errors_in_json(loopback: Loopback, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    result = run("describe", "bad.jpg", PHOTO, "--base-url", loopback.url, "--json")
    bad, good = map(json.loads, result.stdout.splitlines())
    assert bad["error"]["type"] == "ImageError"
    assert bad["error"]["hint"]
    assert good["text"] == "A cat."
    assert (result.returncode, result.stderr) == (1, "")
    for wrong in (["--backend", "nope"], ["--max-tokens", "many"], ["--paint"]):
        refused = run("describe", PHOTO, *wrong, "--json")
        assert json.loads(refused.stdout)["error"]["type"] == "ConfigError"
        assert (refused.returncode, refused.stderr) == (2, "")


def test_what_fails_for_every_picture_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = run("describe", SCENE, PHOTO, "--model", "internvl2_5-1b")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "--model demo runs offline" in result.stderr


def test_a_reader_that_leaves_and_a_closed_input(loopback: Loopback) -> None:
    command = f"{sys.executable} -m internvl_modal describe --base-url {loopback.url}"
    left = subprocess.run(
        ["bash", "-c", f"{command} {PHOTO} {SCENE} | true; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        check=False,
    )
    assert (left.returncode, left.stderr) == (1, b"")
    closed = subprocess.run(["bash", "-c", f"{command} - <&-"], capture_output=True, check=False)
    assert closed.returncode == 1
    assert closed.stderr.startswith(b"error: bytes (0 bytes): empty")


@pytest.mark.parametrize("how", ["", "--stream", "--json"])
def test_a_full_disk(loopback: Loopback, how: str) -> None:
    command = f"{sys.executable} -m internvl_modal describe --base-url {loopback.url}"
    full = subprocess.run(
        ["bash", "-c", f"{command} {PHOTO} {how} > /dev/full"], capture_output=True, check=False
    )
    assert full.returncode == 1
    assert full.stderr == b"error: cannot write: [Errno 28] No space left on device (make room)\n"


def test_a_stream_that_breaks_is_an_error(loopback: Loopback) -> None:
    loopback.will(Reply(chunks=stream_events("A ", done=False)))
    result = run("describe", PHOTO, "--base-url", loopback.url, "--stream")
    assert (result.returncode, result.stdout) == (1, "A \n")
    assert "ended early" in result.stderr


def test_a_private_url_needs_permission(loopback: Loopback) -> None:
    picture = Loopback()
    picture.will(Reply(body=Path(PHOTO).read_bytes()))
    with picture:
        command = ["describe", f"{picture.origin}/a.jpg", "--base-url", loopback.url]
        refused = run(*command)
        assert (refused.returncode, "leads to a loopback address" in refused.stderr) == (1, True)
        assert run(*command, "--allow-private-urls").stdout == "A cat.\n"


def test_an_interrupted_download_says_how_to_go_on(tmp_path: Path) -> None:
    with LoopbackHub(rate=100_000) as hub:
        hub.commit("me/model", {"config.json": b"{}", "model.safetensors": bytes(10_000_000)})
        arguments = ["weights", "ensure", "me/model", "--folder", str(tmp_path)]
        process = subprocess.Popen(
            [sys.executable, "-m", "internvl_modal", *arguments],
            env={**os.environ, "HF_ENDPOINT": hub.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not any(sent for sent in hub.sent.values()) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "run this again: it continues where it stopped" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["describe"], "IMAGE"),
        (["describe", "x.png", "--backend", "local", "--base-url", "http://h/v1"], "no --base-url"),
        (["describe", "x.png", "--temperature", "5"], "--temperature 5.0"),
        (["describe", "x.png", "--detail", "huge"], "--detail huge"),
        (["describe", "x.png", "--backend", "nope"], "no backend is named 'nope'"),
        (["describe", "x.png", "--max-tokens", "many"], "--max-tokens"),
        (["paint"], "paint"),
        (["weights", "ensure", "m", "--variant", "x"], "'--variant': 'x' is not one of"),
    ],
)
def test_wrong_usage_is_code_two(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_the_key_is_never_printed(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVL_MODAL_API_KEY", "sk-hidden")
    loopback.will(Reply(401, {"message": "wrong key"}))
    result = run("describe", PHOTO, "--base-url", loopback.url)
    assert result.returncode == 1
    assert "wrong key" in result.stderr
    assert "sk-hidden" not in result.stdout + result.stderr
    assert loopback.chats[0].headers["authorization"] == "Bearer sk-hidden"


def test_warnings_go_to_standard_error(loopback: Loopback) -> None:
    loopback.will(Reply(body=completion(finish="length")))
    result = run("describe", PHOTO, "--base-url", loopback.url)
    assert result.stdout == "A cat.\n"
    assert "warning: the answer was cut" in result.stderr


def test_models(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("models", "--base-url", loopback.url).stdout == "internvl\n"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing can be fetched
    assert run("models").stdout.splitlines() == ["demo", *HUB_MODELS]
    demo = ROOT / "internvl_modal" / "demo"
    pair = f"{demo / 'demo.gguf'},{demo / 'mmproj-demo.gguf'}"
    assert json.loads(run("models", "--model", pair, "--json").stdout) == ["demo"]


def test_doctor() -> None:
    result = run("doctor")
    assert result.returncode == 0
    for words in ("Extras:", "local     ready", "Self-test with the demo model: 'A "):
        assert words in result.stdout
    found = json.loads(run("doctor", "--json").stdout)
    assert found["self_test"]["ok"]
    assert found["cache"]["models"] == {}
    extras = metadata.metadata("internvl-modal").get_all("Provides-Extra") or []
    assert sorted(found["extras"]) == sorted(set(extras) - {"all"})


def test_plan() -> None:
    result = run("plan", "internvl2_5-78b", "--gpu", "A100-80GB:2")
    assert result.returncode == 1
    assert "A100-80GB" in result.stdout
    larger = run("plan", "--json", "--max-batch-size", "5", "--images-per-request", "2")
    planned = json.loads(larger.stdout)
    assert (planned["fits"], planned["capacity"]["max_batch_size"]) == (True, 5)
    assert planned["capacity"]["request_tokens"] > 2 * 13 * 256


def test_plan_of_a_budget_alone() -> None:
    """The best model that it pays for, and all the others that it does."""
    shown = run("plan", "--budget", "3", "--engine", "vllm", "--json")
    made = json.loads(shown.stdout)
    assert made["engine"] == "vllm"
    assert made["cost"]["per_hour"] <= 3
    assert made["alternatives"][0]["model"] == made["model"]
    assert all(each["quality"]["source"] for each in made["alternatives"])
    table = run("plan", "--budget", "3", "--engine", "vllm").stdout
    assert "What the budget pays for" in table
    assert all(each["model"] in table for each in made["alternatives"])
    assert run("plan", "--budget", "0.5").returncode == 1


def test_plan_lists_the_catalog() -> None:
    assert run("plan", "--list").stdout == f"{models_text()}\n"
    assert json.loads(run("plan", "--list", "--json").stdout) == list(MODELS)


def test_plan_takes_what_the_call_takes() -> None:
    def defaults(function: Callable[..., object]) -> dict[str, object]:
        parameters = inspect.signature(function).parameters
        return {name: parameter.default for name, parameter in parameters.items()}

    command, call = defaults(plan.plan), defaults(internvl_modal.plan)
    assert {**call, **command} == {**command, **call}
    assert set(command) - set(call) == {"context", "list_", "as_json"}
    assert set(call) - set(command) == {"prices"}


def test_help_names_every_command() -> None:
    text = run("--help").stdout
    for command in ("describe", "models", "doctor", "plan", "batch", "weights", "deploy", "serve"):
        assert command in text
    assert run("--version").stdout.startswith("internvl-modal 0.")
