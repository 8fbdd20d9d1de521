"""The local backend with real engines: the bundled model, and one of several tiles."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

import internvl_modal as ivl
from internvl_modal.backends.local import HUB_MODELS, LocalBackend
from internvl_modal.weights import WeightsCache
from tests.loopback_hub import LoopbackHub
from tests.tiny_model import REAL_TILE, TOKENS_PER_TILE, write_tiny_model

ROOT = Path(__file__).parents[1]


def scene() -> Image.Image:
    picture = Image.new("RGB", (480, 480), "white")
    ImageDraw.Draw(picture).ellipse((170, 170, 310, 310), fill="red")
    return picture


def photograph(width: int, height: int) -> Image.Image:
    small = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def demo() -> Iterator[ivl.Client]:
    with ivl.Client("local", model="demo") as client:
        yield client


def engine_pids(parent: int) -> list[int]:
    """Processes of llama.cpp started by ``parent`` that still run."""
    lines = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,stat,args"], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 3) for line in lines.stdout.splitlines()[1:]]
    return [
        int(r[0])
        for r in rows
        if "llamacpp_main" in r[3] and int(r[1]) == parent and r[2][0] != "Z"
    ]


def alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


class TestDemo:
    def test_a_scene_is_described(self, demo: ivl.Client) -> None:
        description = demo.describe(scene())
        assert "red circle" in description.text
        assert description.finish_reason == "stop"
        assert description.model == "demo"
        assert description.usage.prompt_tokens > description.images[0].tokens == 9
        assert "worthless" in description.warnings[0]

    def test_the_same_text_in_pieces(self, demo: ivl.Client) -> None:
        stream = demo.stream(scene())
        pieces = list(stream)
        assert len(pieces) > 3
        assert "".join(pieces) == stream.description.text == demo.describe(scene()).text

    def test_async(self) -> None:
        async def run() -> str:
            async with ivl.AsyncClient("local", model="demo") as client:
                both = await asyncio.gather(client.describe(scene()), client.describe(scene()))
                assert both[0].text == both[1].text
                return both[0].text

        assert "red circle" in asyncio.run(run())

    def test_the_module_level_calls(self) -> None:
        assert "red circle" in ivl.describe(scene(), model="demo").text
        assert "red circle" in asyncio.run(ivl.adescribe(scene(), model="demo")).text

    def test_an_estimate_needs_no_engine(self, demo: ivl.Client) -> None:
        picture = photograph(640, 488)
        before = demo.estimate(picture)
        assert (before.tiles, before.tokens) == (1, 9)
        demo.describe(picture)
        assert demo.estimate(picture) == before

    def test_models(self, demo: ivl.Client) -> None:
        assert demo.models() == ["demo"]


class TestEngine:
    def test_it_is_shared_and_ends_with_its_last_user(self) -> None:
        before = set(engine_pids(os.getpid()))
        first, second = LocalBackend("demo", n_ctx=1024), LocalBackend("demo", n_ctx=1024)
        assert first.start() == first.start() == second.start()
        (pid,) = set(engine_pids(os.getpid())) - before
        first.stop()
        first.stop()
        assert alive(pid)
        second.stop()
        assert not alive(pid)

    def test_it_is_started_again_when_it_died(self) -> None:
        before = set(engine_pids(os.getpid()))
        with ivl.Client(LocalBackend("demo", n_ctx=2048)) as client:
            client.describe(scene())
            (pid,) = set(engine_pids(os.getpid())) - before
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # all its threads, too
            assert "red circle" in client.describe(scene()).text

    def test_a_long_log_does_not_lose_its_address(self) -> None:
        with ivl.Client(LocalBackend("demo", n_ctx=512)) as client:
            endpoint = client.backend.start()
            wrong = {"messages": [{"role": "user", "content": "x"}], "grammar": "root ::= bad bad"}
            with httpx.Client(headers=dict(endpoint.headers), trust_env=False, timeout=60) as noisy:
                for _ in range(60):  # each is six lines in the engine's log, which keeps 200
                    noisy.post(f"{endpoint.base_url}/chat/completions", json=wrong)
            assert client.backend.start() == endpoint
            assert "red circle" in client.describe(scene()).text

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_it_ends_with_its_parent(self, how: signal.Signals) -> None:
        code = (
            "import internvl_modal as ivl, time\n"
            "ivl.Client('local', model='demo').backend.start()\n"
            "print('up', flush=True)\n"
            "time.sleep(600)"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert parent.stdout is not None
        with parent.stdout as output:
            assert output.readline() == b"up\n"
            (pid,) = engine_pids(parent.pid)
            parent.send_signal(how)
            parent.wait(timeout=60)
        deadline = time.monotonic() + 60
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(pid)

    def test_another_process_runs_its_own(self, demo: ivl.Client) -> None:
        ours = demo.backend.start().base_url
        code = "import internvl_modal as ivl; print(ivl.Client('local', model='demo').backend.start().base_url)"
        theirs = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert theirs.stdout.strip() != ours

    def test_a_key_is_needed(self, demo: ivl.Client) -> None:
        endpoint = demo.backend.start()
        assert endpoint.base_url.startswith("http://127.0.0.1:")
        with (
            ivl.Client(base_url=endpoint.base_url, model="demo", api_key="wrong") as stranger,
            pytest.raises(ivl.AuthenticationError),
        ):
            stranger.describe(scene())

    @pytest.mark.parametrize(
        ("kept", "reason"), [(None, "this GGUF file is version"), (100_000, "incomplete")]
    )
    def test_a_broken_file(self, tmp_path: Path, kept: int | None, reason: str) -> None:
        whole = Path(ivl.__file__).parent / "demo" / "demo.gguf"
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(whole.read_bytes()[:kept] if kept else b"GGUF but not really")
        with (
            ivl.Client(LocalBackend((broken, broken))) as client,
            pytest.raises(
                ivl.ServerUnavailableError, match=rf"^local engine \(broken\) ended.*{reason}"
            ) as caught,
        ):
            client.describe(scene())
        assert len(caught.value.message) < 400
        assert str(broken) in caught.value.hint
        assert "load_model" in str(caught.value.__context__), "which has all of its last words"


class TestTiles:
    def test_twelve_megapixels(self, tiny: tuple[Path, Path]) -> None:
        with ivl.Client(LocalBackend(tiny)) as client:
            description = client.describe(photograph(4000, 3000), max_tokens=4)
        assert description.images[0].tiles == 13
        assert description.usage.prompt_tokens > 13 * TOKENS_PER_TILE
        assert description.seen == "unverifiable"

    def test_the_command(self, tiny: tuple[Path, Path], tmp_path: Path) -> None:
        photograph(4000, 3000).save(tmp_path / "big.jpg")
        command = [sys.executable, "-m", "internvl_modal", "describe", "big.jpg", "--json"]
        done = subprocess.run(
            [*command, "--model", f"{tiny[0]},{tiny[1]}", "--max-tokens", "4"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout)["images"][0]["tiles"] == 13


class TestModels:
    @pytest.mark.parametrize(
        ("model", "hint"),
        [
            ("gpt-5", "(use demo, internvl2_5-1b, "),
            ("internvl2_5-78b", "(it needs GPUs: deploy it and use backend 'modal', or give the"),
            ("internvl25-78b", "(did you mean 'internvl2_5-78b'? it needs GPUs"),
            ("OpenGVLab/InternVL2_5-1B", "(did you mean 'internvl2_5-1b'? use demo, "),
            ("internvl2.5-4b", "(did you mean 'internvl2_5-4b'? use demo, "),
        ],
    )
    def test_an_unknown_name(self, model: str, hint: str) -> None:
        with pytest.raises(ivl.ConfigError) as caught:
            ivl.Client("local", model=model)
        assert f"no model {model!r} {hint}" in str(caught.value)

    def test_a_missing_file(self) -> None:
        with pytest.raises(ivl.ConfigError, match=r"a\.gguf is not a file"):
            ivl.Client("local", model="a.gguf,b.gguf")

    def test_a_pair_of_paths(self, tiny: tuple[Path, Path]) -> None:
        with ivl.Client("local", model=f"{tiny[0]},{tiny[1]}") as client:
            assert client.models() == ["tiny"]

    def test_a_model_of_today_from_the_hub(self, tmp_path: Path) -> None:
        """Files of InternVL3.5's repository, by its names, through a real engine."""
        model, mmproj = write_tiny_model(tmp_path, tile=REAL_TILE)
        files = {
            "InternVL3_5-1B-f16.gguf": model.read_bytes(),
            "mmproj-InternVL3_5-1B-f16.gguf": mmproj.read_bytes(),
        }
        with LoopbackHub() as hub:
            hub.commit("QuantStack/InternVL3_5-1B-gguf", files)
            cache = WeightsCache(tmp_path / "models", endpoint=hub.url)
            cache.ensure("internvl3_5-1b", variant="gguf", progress=None)
        backend = LocalBackend("internvl3_5-1b", cache_dir=tmp_path / "models")
        with ivl.Client(backend) as client:
            described = client.describe(photograph(900, 450), max_tokens=4)
        assert described.model == "internvl3_5-1b"
        assert described.seen == "confirmed"
        assert described.images[0].tokens == described.images[0].tiles * 256

    @pytest.mark.parametrize("model", HUB_MODELS)
    def test_without_the_hub(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        begun = time.monotonic()
        with (
            ivl.Client(LocalBackend(model, cache_dir=tmp_path / "models")) as client,
            pytest.raises(ivl.WeightsError, match="model='demo' runs offline") as caught,
        ):
            client.describe(scene())
        assert time.monotonic() - begun < 20
        message = str(caught.value)
        assert "mmproj-InternVL" in message
        assert str(tmp_path / "models") in message
        assert f"`internvl-modal weights ensure {model} --variant gguf` fetches" in message
