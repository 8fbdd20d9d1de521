"""The public calls, against a server on loopback."""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import json
import pickle
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel, RootModel, SecretStr

import internvl_modal as ivl
from internvl_modal import errors
from internvl_modal.backends.endpoint import EndpointBackend
from internvl_modal.batch.options import BatchSettings
from internvl_modal.credentials import checked_key
from internvl_modal.deployment.served_app import ServedApp
from internvl_modal.schema.options import DescribeOptions
from internvl_modal.settings import Settings
from tests.loopback import Heard, Loopback, Reply, completion, models_list, stream_events

PICTURE = Image.new("RGB", (900, 900), "red")


def png() -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def client(loopback: Loopback) -> Any:
    with ivl.Client(base_url=loopback.url) as made:
        yield made


def _as_path(folder: Path) -> object:
    path = folder / "p.png"
    path.write_bytes(png())
    return path


SOURCES: dict[str, Callable[[Path], object]] = {
    "path": lambda folder: str(_as_path(folder)),
    "Path": _as_path,
    "data URL": lambda _: "data:image/png;base64," + base64.b64encode(png()).decode(),
    "bytes": lambda _: png(),
    "bytearray": lambda _: bytearray(png()),
    "file": lambda _: io.BytesIO(png()),
    "PIL": lambda _: PICTURE,
    "numpy": lambda _: np.asarray(PICTURE),
}


def sent_picture(heard: Heard, message: int = -1) -> Image.Image:
    content = heard.json["messages"][message]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return Image.open(io.BytesIO(base64.b64decode(urls[0].partition(",")[2])))


class TestDescribe:
    @pytest.mark.parametrize("kind", SOURCES)
    def test_every_kind_of_source(
        self, client: ivl.Client, loopback: Loopback, tmp_path: Path, kind: str
    ) -> None:
        assert client.describe(SOURCES[kind](tmp_path)).text == "A cat."  # type: ignore[arg-type]
        assert sent_picture(loopback.chats[0]).convert("RGB").getpixel((5, 5)) == (255, 0, 0)

    def test_a_url_is_fetched_by_the_client(self, client: ivl.Client, loopback: Loopback) -> None:
        with Loopback() as site:
            site.will(Reply(body=png(), headers={"content-type": "image/png"}))
            description = client.describe(f"{site.origin}/p.png?token=x", allow_private_urls=True)
        assert description.images[0].width == 900
        assert sent_picture(loopback.chats[0]).size == (896, 896)

    @pytest.mark.parametrize(
        ("owner", "detail", "unused"),
        [
            ("openai", "low", False),
            ("openai", "high", True),
            ("openai", "auto", False),
            ("openai", 1, False),
            ("openai", "medium", False),
            ("openai", 12, False),
            ("llamacpp", "high", True),
            ("llamacpp", "low", False),
            ("llamacpp", "auto", False),
            ("lmdeploy", "high", False),
            ("lmdeploy", 1, False),
        ],
    )
    def test_a_detail_that_the_server_does_not_know(
        self, loopback: Loopback, owner: str, detail: Any, unused: bool
    ) -> None:
        loopback.models = Reply(body=models_list(owner))
        with ivl.Client(base_url=loopback.url) as client:
            warnings = client.describe(PICTURE, detail=detail).warnings
            text_only = client.chat([{"role": "user", "text": "Hi"}], detail=detail).warnings
        assert [f"detail={detail!r} had no effect" in w for w in warnings] == [True] * unused
        assert not text_only

    def test_a_private_url_is_refused(self, client: ivl.Client, loopback: Loopback) -> None:
        with pytest.raises(ivl.ImageError, match="allow_private_urls"):
            client.describe(f"{loopback.origin}/p.png")
        assert not loopback.chats

    @pytest.mark.parametrize("wrong", [None, 3, object(), {"a": 1}, {1, 2}])
    def test_anything_else_is_an_error(self, client: ivl.Client, wrong: object) -> None:
        with pytest.raises(ivl.ImageError) as caught:
            client.describe(wrong)  # type: ignore[arg-type]
        assert type(wrong).__name__ in str(caught.value)

    def test_no_picture(self, client: ivl.Client) -> None:
        with pytest.raises(ivl.ConfigError, match="no picture"):
            client.describe([])

    def test_several_pictures_in_order(self, client: ivl.Client, loopback: Loopback) -> None:
        loopback.will(Reply(body=completion(prompt_tokens=10_000)))
        description = client.describe([PICTURE, png()], "Which is red?")
        assert len(description.images) == 2
        text = loopback.chats[0].json["messages"][0]["content"][0]["text"]
        assert text == "Image-1: <IMAGE_TOKEN>\nImage-2: <IMAGE_TOKEN>\nWhich is red?"

    def test_a_prompt_is_a_text(self, client: ivl.Client) -> None:
        with pytest.raises(ivl.ConfigError, match="one list"):
            client.describe("a.png", Path("b.png"))  # type: ignore[arg-type]

    def test_options_arrive(self, client: ivl.Client, loopback: Loopback) -> None:
        client.describe(
            PICTURE, detail=1, max_tokens=7, temperature=0.5, top_p=0.9, top_k=9, seed=4,
            stop=["x"], repetition_penalty=1.2, system="Be brief.",
        )  # fmt: skip
        sent = loopback.chats[0].json
        assert {k: sent[k] for k in ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop")} == {
            "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 9, "seed": 4, "stop": ["x"],
        }  # fmt: skip
        assert sent["repetition_penalty"] == 1.2
        assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
        assert sent["messages"][1]["content"][1]["image_url"]["max_dynamic_patch"] == 1

    @pytest.mark.parametrize(
        "wrong",
        [
            {"temperature": -0.1}, {"temperature": 2.1}, {"top_p": 0}, {"top_p": 1.1},
            {"detail": 0}, {"detail": 41}, {"detail": "huge"}, {"max_tokens": 0}, {"top_k": 0},
            {"stop": [""]}, {"seed": -1}, {"timeout": 0}, {"colour": "red"},
            {"temperature": float("nan")}, {"repetition_penalty": 0},
        ],
    )  # fmt: skip
    def test_wrong_options_are_refused_before_anything_is_sent(
        self, client: ivl.Client, loopback: Loopback, wrong: Any
    ) -> None:
        with pytest.raises(ivl.ConfigError, match=next(iter(wrong))):
            client.describe(PICTURE, **wrong)
        assert not loopback.heard

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"max_token": 3}, "there is no option max_token (did you mean max_tokens?)"),
            ({"api_key": "k"}, "no option api_key (it belongs to the client: Client(api_key=...))"),
            ({"basurl": "k"}, "no option basurl (did you mean base_url?)"),
            ({"x": 1}, "no option x (options: detail, max_tokens,"),
            (
                {"detail": "huge"},
                "detail='huge': Input should be 'low', 'medium', 'high' or 'auto', "
                "or a valid integer (see help(DescribeOptions))",
            ),
            ({"detail": 41}, "or 'auto', or less than or equal to 40 ("),
            ({"stop": [""]}, "stop=['']: an empty stop string"),
        ],
    )
    def test_a_wrong_option_is_told_in_one_sentence(
        self, client: ivl.Client, wrong: Any, told: str
    ) -> None:
        with pytest.raises(ivl.ConfigError) as caught:
            client.describe(PICTURE, **wrong)
        assert told in str(caught.value)
        assert "Value error" not in str(caught.value)

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"outs": "a.jsonl"}, "there is no option outs (did you mean out?)"),
            ({"concurrency": "max"}, "concurrency='max': Input should be 'auto', or a valid int"),
        ],
    )
    def test_a_wrong_option_of_a_batch(self, client: ivl.Client, wrong: Any, told: str) -> None:
        with pytest.raises(ivl.ConfigError) as caught:
            client.describe_many([PICTURE], **wrong)
        assert told in str(caught.value)

    @given(
        detail=st.one_of(st.sampled_from(["low", "medium", "high", "auto"]), st.integers(1, 40)),
        max_tokens=st.integers(1, 10**6),
        temperature=st.floats(0, 2),
        top_p=st.floats(0, 1, exclude_min=True),
        stop=st.one_of(st.text(min_size=1), st.lists(st.text(min_size=1), max_size=8)),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_options_in_range_are_kept(self, **options: Any) -> None:
        parsed = DescribeOptions.parse(options)  # type: ignore[arg-type]
        for name in ("detail", "max_tokens", "temperature", "top_p", "seed"):
            assert getattr(parsed, name) == options[name]

    @given(st.integers() | st.floats() | st.text() | st.none())
    def test_a_detail_is_valid_or_named(self, detail: Any) -> None:
        try:
            parsed = DescribeOptions.parse({"detail": detail}).detail
        except ivl.ConfigError as error:
            assert "detail" in str(error)
        else:
            assert parsed in ("low", "medium", "high", "auto") or 1 <= int(parsed) <= 40


class TestDiscovery:
    def test_the_only_model_is_asked_for(self, loopback: Loopback) -> None:
        loopback.models = Reply(body=models_list("vllm", "a"))
        with ivl.Client(base_url=loopback.url) as client:
            assert client.models() == ["a"]
            client.describe(PICTURE)
            client.describe(PICTURE)
        assert [heard.json["model"] for heard in loopback.chats] == ["a", "a"]
        assert len(loopback.heard) == 4

    def test_a_server_without_a_list_needs_a_name(self, loopback: Loopback) -> None:
        loopback.models = Reply(404, "Not Found")
        with ivl.Client(base_url=loopback.url, model="given") as client:
            client.describe(PICTURE)
        assert loopback.chats[0].json["model"] == "given"
        with ivl.Client(base_url=loopback.url) as client, pytest.raises(ivl.RequestRejectedError):
            client.describe(PICTURE)

    def test_an_empty_list(self, loopback: Loopback) -> None:
        loopback.models = Reply(body={"data": []})
        with (
            ivl.Client(base_url=loopback.url) as client,
            pytest.raises(ivl.ServerError, match="lists no model"),
        ):
            client.describe(PICTURE)

    @pytest.mark.parametrize(
        ("owner", "text_first"), [("lmdeploy", True), ("llamacpp", False), ("openai", False)]
    )
    def test_the_dialect_follows_the_server(
        self, loopback: Loopback, owner: str, text_first: bool
    ) -> None:
        loopback.models = Reply(body=models_list(owner))
        with ivl.Client(base_url=loopback.url) as client:
            client.describe(PICTURE)
        kinds = [part["type"] for part in loopback.chats[0].json["messages"][0]["content"]]
        assert kinds == ["text", "image_url"] if text_first else ["image_url", "text"]

    def test_waiting_until_a_server_is_ready(self, loopback: Loopback) -> None:
        answers = [Reply(503, "loading"), Reply(503, "loading"), Reply(body=models_list())]
        loopback.models = lambda _: answers.pop(0)
        with ivl.Client(base_url=loopback.url) as client:
            client.wait_until_ready(timeout=30)
        assert not answers

    def test_waiting_in_vain(self, loopback: Loopback) -> None:
        """Until the next pause would be longer than what is left, which cuts no answer off."""
        later = [Reply(503, "loading"), Reply(503, "still loading", {"Retry-After": "100"})]
        loopback.models = lambda _: later.pop(0)
        with (
            ivl.Client(base_url=loopback.url) as client,
            pytest.raises(ivl.ServerUnavailableError, match="still loading"),
        ):
            client.wait_until_ready(timeout=50)
        assert not later


class TestSettings:
    def test_arguments_beat_environment_beats_file_beats_default(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        assert Settings.load().timeout == 600
        (tmp_path / ".env").write_text("INTERNVL_MODAL_TIMEOUT=1\nHF_TOKEN=hf_file\n")
        assert Settings.load().timeout == 1
        monkeypatch.setenv("INTERNVL_MODAL_TIMEOUT", "2")
        monkeypatch.setenv("HF_TOKEN", "hf_env")
        assert Settings.load().timeout == 2
        assert Settings.load(timeout=3.0).timeout == 3
        assert Settings.load().hf_token == SecretStr("hf_env")

    def test_a_backend_that_starts_while_the_client_closes_is_stopped(self) -> None:
        log: list[str] = []
        starting, closed = threading.Event(), threading.Event()

        class Slow:
            name = "slow"

            def start(self) -> ivl.Endpoint:
                starting.set()
                closed.wait(60)
                log.append("start")
                return ivl.Endpoint("http://127.0.0.1:9/v1")

            def stop(self) -> None:
                log.append("stop")

        client = ivl.Client(Slow())
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.models)
            starting.wait(60)
            client.close()
            closed.set()
            with pytest.raises(ivl.ConfigError, match="closed"):
                asked.result()
        assert log == ["stop", "start", "stop"]

    def test_a_backend_knows_how_long_its_start_takes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Slow:
            name = "slow"

            def start(self) -> ivl.Endpoint:
                return ivl.Endpoint("http://127.0.0.1:9/v1", timeout=1800.0)

            preview = start

            def stop(self) -> None: ...

        with ivl.Client(Slow()) as patient, ivl.Client(Slow(), timeout=5) as told:
            assert (patient._core.timeout, told._core.timeout) == (1800, 5)
        monkeypatch.setenv("INTERNVL_MODAL_TIMEOUT", "7")
        with ivl.Client(Slow()) as client:
            assert client._core.timeout == 7

    def test_secrets_are_never_shown(
        self, monkeypatch: pytest.MonkeyPatch, loopback: Loopback
    ) -> None:
        monkeypatch.setenv("INTERNVL_MODAL_API_KEY", "sk-hidden")
        monkeypatch.setenv("HF_TOKEN", "sk-hidden")
        loopback.will(Reply(401, "no"))
        with ivl.Client(base_url=loopback.url) as client:
            with pytest.raises(ivl.AuthenticationError) as caught:
                client.describe(PICTURE)
            shown = f"{client!r} {client.backend.start()!r} {Settings.load()!r} {caught.value!r}"
        assert "sk-hidden" not in shown
        assert loopback.chats[0].headers["authorization"] == "Bearer sk-hidden"

    def test_a_key_of_a_wrong_kind_is_in_no_traceback(self) -> None:
        key, variables = ["sk-" + "hidden"], {"PATH": "/", "HF_TOKEN": "hf-" + "hidden"}
        for wrong in (lambda: ivl.Client(api_key=key), lambda: ivl.deploy(env=variables)):  # type: ignore[arg-type]
            with pytest.raises(ivl.ConfigError) as caught:
                wrong()
            assert "hidden" not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize(
        "url", ["ftp://x", "http://", "ftp://u:p@h/v1", "http://u:p@/", "http://u:p@h:port", "h:1"]
    )
    def test_a_wrong_url(self, url: str) -> None:
        with pytest.raises(ivl.ConfigError, match="base_url") as caught:
            ivl.Client(base_url=url)
        assert ":p@" not in str(caught.value)

    @pytest.mark.parametrize("key", [" sk-1\n", "sk-1", SecretStr("sk-1\r\n")])
    def test_white_space_around_a_key_is_dropped(self, loopback: Loopback, key: Any) -> None:
        with ivl.Client(EndpointBackend(loopback.url, api_key=key)) as client:
            client.describe(PICTURE)
        assert loopback.chats[0].headers["authorization"] == "Bearer sk-1"

    @pytest.mark.parametrize("key", ["sk-sch\u00f6n", "sk-sch\x00n", "sk-sch\nn"])
    def test_a_key_that_cannot_be_sent(self, key: str) -> None:
        with pytest.raises(ivl.ConfigError, match="API key") as caught:
            ivl.Client("http://127.0.0.1:9", api_key=key)
        assert "sch" not in str(caught.value)

    def test_any_backend_may_check_its_keys(self) -> None:
        assert checked_key(" sk-1\n") == SecretStr("sk-1")
        assert checked_key(SecretStr(" \n")) is None
        with pytest.raises(ivl.ConfigError, match="the proxy secret holds") as caught:
            checked_key("sk-sch\nn", "the proxy secret")
        assert "sch" not in str(caught.value)

    def test_a_wrong_variable_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INTERNVL_MODAL_TIMEOUT", "soon")
        with pytest.raises(ivl.ConfigError, match="timeout='soon'"):
            ivl.Client("local")

    def test_an_unknown_backend(self) -> None:
        with pytest.raises(ivl.ConfigError, match=r"no backend is named 'nope' .*local"):
            ivl.Client("nope")
        with pytest.raises(ivl.ConfigError, match="neither a name"):
            ivl.Client(3)  # type: ignore[arg-type]
        with pytest.raises(ivl.ConfigError, match="needs a URL"):
            ivl.Client("endpoint")

    @pytest.mark.parametrize("kind", [ivl.Client, ivl.AsyncClient])
    @pytest.mark.parametrize(
        ("backend", "given"),
        [
            ("local", {"base_url": "http://127.0.0.1:9/v1"}),
            ("local", {"api_key": "sk-1"}),
            (None, {"api_key": "sk-1"}),
            ("lmdeploy", {"api_key": "sk-1", "model": "internvl2_5-8b"}),
            ("modal", {"base_url": "http://127.0.0.1:9/v1"}),
            ("http://127.0.0.1:8/v1", {"base_url": "http://127.0.0.1:9/v1"}),
            (EndpointBackend("http://127.0.0.1:9/v1"), {"base_url": "http://127.0.0.1:9/v1"}),
            (EndpointBackend("http://127.0.0.1:9/v1"), {"api_key": "sk-1"}),
        ],
    )
    def test_an_argument_that_the_backend_would_ignore(
        self, kind: Any, backend: Any, given: Any
    ) -> None:
        name = next(iter(given))
        with pytest.raises(ivl.ConfigError, match=f"takes no {name}") as caught:
            kind(backend, **given)
        assert "sk-1" not in str(caught.value)

    def test_a_password_in_an_url_that_conflicts_is_not_shown(self) -> None:
        with pytest.raises(ivl.ConfigError, match="by its URL takes no base_url") as caught:
            ivl.Client("http://me:sk-1@127.0.0.1/v1", base_url="http://127.0.0.1:9/v1")
        assert "sk-1" not in str(caught.value)

    def test_arguments_that_a_backend_takes(
        self, monkeypatch: pytest.MonkeyPatch, loopback: Loopback
    ) -> None:
        ivl.Client("endpoint", base_url=loopback.url, api_key="sk-1").close()
        ivl.Client(loopback.url, api_key="sk-1").close()
        monkeypatch.setenv("INTERNVL_MODAL_BASE_URL", loopback.url)
        ivl.Client(api_key="sk-1").close()
        monkeypatch.setenv("INTERNVL_MODAL_API_KEY", "sk-1")
        ivl.Client("local", model="demo").close()  # a setting for other clients is no argument

    def test_the_environment_chooses_the_endpoint(
        self, monkeypatch: pytest.MonkeyPatch, loopback: Loopback
    ) -> None:
        monkeypatch.setenv("INTERNVL_MODAL_BASE_URL", loopback.origin)
        assert ivl.describe(PICTURE).text == "A cat."
        assert asyncio.run(ivl.adescribe(PICTURE)).text == "A cat."
        assert loopback.chats[0].path == "/v1/chat/completions"

    def test_a_backend_of_ones_own(self, loopback: Loopback) -> None:
        class Mine:
            name = "mine"
            stopped = 0

            def start(self) -> ivl.Endpoint:
                return ivl.Endpoint(loopback.url, model="m", capabilities=ivl.Capabilities())

            def stop(self) -> None:
                self.stopped += 1

        mine = Mine()
        with ivl.Client(mine) as client:
            assert client.describe(PICTURE).seen == "unverifiable"
        assert mine.stopped == 1


class TestChat:
    def test_pictures_in_any_turn(self, client: ivl.Client, loopback: Loopback) -> None:
        loopback.will(Reply(body=completion(prompt_tokens=20_000)))
        client.chat(
            [
                {"role": "user", "content": "What is it?", "images": [PICTURE]},
                ivl.Message(role="assistant", text="A square <img>."),
                {"role": "user", "text": "And this?", "images": [PICTURE, PICTURE]},
            ]
        )
        first, answer, last = loopback.chats[0].json["messages"]
        assert first["content"][0]["text"] == "<IMAGE_TOKEN>\nWhat is it?"
        assert answer["content"] == "A square < img>."
        assert len(last["content"]) == 3

    @pytest.mark.parametrize(
        ("messages", "words"),
        [
            ([], "must end"),
            ([{"role": "assistant", "text": "hi"}], "must end"),
            (None, "iterable"),
            ([{"role": "robot", "text": "hi"}], "role"),
            ([{"role": "system", "text": "x", "images": [PICTURE]}], "cannot hold pictures"),
            ([{"role": "user", "images": b"secret"}], "images=bytes"),
            ([{"role": "user", "image": "a.png"}], "image='a.png': there is no such field"),
        ],
    )
    def test_wrong_messages(self, client: ivl.Client, messages: Any, words: str) -> None:
        with pytest.raises(ivl.ConfigError, match=f"messages.*{words}"):
            client.chat(messages)

    def test_the_pictures_of_a_message_are_kept_as_a_tuple(self) -> None:
        assert ivl.Message(role="user", images=["a.png", PICTURE]).images == ("a.png", PICTURE)


class Sign(BaseModel):
    text: str
    colour: Literal["red", "green"]


class WithoutSchema(BaseModel):
    call: Callable[[], int]


class TestExtract:
    def test_json_wrapped_in_talk(self, client: ivl.Client, loopback: Loopback) -> None:
        wrapped = 'Sure {ok}!\n```json\n{"text": "STOP", "colour": "red"}\n``` there'
        loopback.will(Reply(body=completion(wrapped)))
        assert client.extract(PICTURE, Sign, "Read it.") == Sign(text="STOP", colour="red")
        sent = loopback.chats[0].json
        assert '"enum":["red","green"]' in sent["messages"][0]["content"][0]["text"]
        assert sent["response_format"]["json_schema"]["schema"] == Sign.model_json_schema()

    def test_a_repair_quotes_what_was_wrong(self, client: ivl.Client, loopback: Loopback) -> None:
        wrong = completion('{"text": "STOP", "colour": "blue"}')
        loopback.will(
            Reply(body=wrong), Reply(body=completion('{"text": "STOP", "colour": "red"}'))
        )
        assert client.extract(PICTURE, Sign).colour == "red"
        messages = loopback.chats[1].json["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant", "user"]
        assert "colour='blue'" in messages[2]["content"]

    @pytest.mark.parametrize("text", ["no braces", "{", '{"a": ', "{" * 100_000, '{"text": 1}'])
    def test_what_never_fits_keeps_the_text(
        self, client: ivl.Client, loopback: Loopback, text: str
    ) -> None:
        loopback.will(Reply(body=completion(text)))
        with pytest.raises(ivl.OutputInvalidError, match="Sign") as caught:
            client.extract(PICTURE, Sign, repairs=1)
        assert caught.value.text == text
        assert len(loopback.chats) == 2

    def test_a_cut_answer_is_not_repaired(self, client: ivl.Client, loopback: Loopback) -> None:
        loopback.will(Reply(body=completion('{"text": "ST', finish="length", completion_tokens=5)))
        with pytest.raises(ivl.OutputInvalidError, match="was cut at 5 tokens") as caught:
            client.extract(PICTURE, Sign, max_tokens=5)
        assert "raise max_tokens" in caught.value.hint
        assert caught.value.text == '{"text": "ST'
        assert len(loopback.chats) == 1

    @pytest.mark.parametrize(
        ("schema", "repairs", "words"),
        [
            ({"type": "object"}, 2, "no JSON schema"),
            (WithoutSchema, 2, "no JSON schema"),
            (RootModel[list[int]], 2, "no JSON object but 'array'"),
            (Sign, -1, "repairs=-1"),
        ],
    )
    def test_what_cannot_be_asked_for(
        self, client: ivl.Client, loopback: Loopback, schema: Any, repairs: int, words: str
    ) -> None:
        with pytest.raises(ivl.ConfigError, match=words):
            client.extract(PICTURE, schema, repairs=repairs)
        assert not loopback.heard

    def test_a_schema_is_sent_where_the_server_can(self, loopback: Loopback) -> None:
        loopback.models = Reply(body=models_list("llamacpp"))
        loopback.will(Reply(body=completion('{"text": "a", "colour": "red"}')))
        with ivl.Client(base_url=loopback.url) as client:
            client.extract(PICTURE, Sign)
        form = loopback.chats[0].json["response_format"]
        assert form["json_schema"]["schema"]["title"] == "Sign"


def write_video(
    path: Path,
    *,
    seconds: int = 4,
    rate: int = 10,
    turned: bool = False,
    codec: str = "mpeg4",
    **how: str,
) -> Path:
    """A video of ``seconds`` parts of one grey each, 20 levels brighter every second."""
    with av.open(str(path), "w", options=how) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for index in range(seconds * rate):
            level = 40 + 20 * (index // rate)
            pixels = np.full((32, 64, 3), level, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    if turned:
        upright = b"".join(
            v.to_bytes(4, "big") for v in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
        )
        quarter = b"".join(
            (v & 0xFFFFFFFF).to_bytes(4, "big")
            for v in (0, 1 << 16, 0, -1 << 16, 0, 0, 32 << 16, 0, 1 << 30)
        )
        data, mark = path.read_bytes(), path.read_bytes().index(b"tkhd")
        path.write_bytes(data[:mark] + data[mark:].replace(upright, quarter, 1))
    return path


class TestVideo:
    def levels(self, loopback: Loopback) -> list[int]:
        parts = loopback.chats[0].json["messages"][0]["content"][1:]
        found = []
        for part in parts:
            assert part["image_url"]["max_dynamic_patch"] == 1
            picture = Image.open(
                io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2]))
            )
            found.append(round(float(np.asarray(picture.convert("L")).mean())))
        return found

    def test_evenly_spaced_frames(
        self, client: ivl.Client, loopback: Loopback, tmp_path: Path
    ) -> None:
        description = client.describe_video(write_video(tmp_path / "v.mp4"), frames=4)
        assert self.levels(loopback) == pytest.approx([40, 60, 80, 100], abs=3)
        assert description.seen == "unverifiable"
        text = loopback.chats[0].json["messages"][0]["content"][0]["text"]
        assert text.startswith("Frame1: <IMAGE_TOKEN>\nFrame2: <IMAGE_TOKEN>\n")

    def test_a_part_of_it(self, client: ivl.Client, loopback: Loopback, tmp_path: Path) -> None:
        client.describe_video(write_video(tmp_path / "v.mp4"), frames=2, start=2.0, end=4.0)
        assert self.levels(loopback) == pytest.approx([80, 100], abs=3)

    def test_a_short_video_gives_each_frame_once(
        self, client: ivl.Client, loopback: Loopback, tmp_path: Path
    ) -> None:
        client.describe_video(write_video(tmp_path / "v.mp4", seconds=1, rate=3), frames=8)
        assert len(self.levels(loopback)) == 3

    def test_a_turned_video_is_upright(
        self, client: ivl.Client, loopback: Loopback, tmp_path: Path
    ) -> None:
        description = client.describe_video(write_video(tmp_path / "v.mp4", turned=True), frames=1)
        assert (description.images[0].width, description.images[0].height) == (32, 64)

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"frames": 0}, "frames=0"), ({"start": 3, "end": 2}, "end=2"), ({"start": -1}, "-1")],
    )
    def test_impossible_ranges(
        self, client: ivl.Client, tmp_path: Path, options: Any, words: str
    ) -> None:
        with pytest.raises(ivl.ConfigError, match=words):
            client.describe_video(tmp_path / "v.mp4", **options)

    def test_what_is_no_video(self, client: ivl.Client, tmp_path: Path) -> None:
        (tmp_path / "v.mp4").write_bytes(b"not a video")
        with pytest.raises(ivl.ImageError, match=r"v\.mp4: not a readable video"):
            client.describe_video(tmp_path / "v.mp4")
        with pytest.raises(ivl.ImageError, match=r"gone\.mp4: not a readable video"):
            client.describe_video(tmp_path / "gone.mp4")

    def test_a_recording_that_does_not_say_how_long_it_is(
        self, client: ivl.Client, loopback: Loopback, tmp_path: Path
    ) -> None:
        video = write_video(tmp_path / "v.webm", codec="libvpx", live="1")
        client.describe_video(video, frames=4)
        assert self.levels(loopback) == pytest.approx([40, 60, 80, 100], abs=3)
        with pytest.raises(ivl.ImageError, match="lies beyond its end at 4"):
            client.describe_video(video, start=4.1)

    def test_frames_without_times(self, client: ivl.Client, tmp_path: Path) -> None:
        with pytest.raises(ivl.ImageError, match=r"v\.h264: its frames have no times"):
            client.describe_video(write_video(tmp_path / "v.h264", codec="libx264"))

    @pytest.mark.parametrize("start", [4.0, 60.0])
    def test_a_start_beyond_its_end(
        self, client: ivl.Client, loopback: Loopback, tmp_path: Path, start: float
    ) -> None:
        with pytest.raises(ivl.ImageError, match=r"start=\S+ lies beyond its end at 4.000 s"):
            client.describe_video(write_video(tmp_path / "v.mp4"), start=start)
        assert not loopback.chats

    def test_only_the_file_itself_is_read(
        self, client: ivl.Client, loopback: Loopback, tmp_path: Path
    ) -> None:
        address = loopback.origin.replace("//", "//me:secret@") + "/v.mp4?key=secret"
        playlist = tmp_path / "v.m3u8"
        playlist.write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{loopback.origin}/v.ts\n"
        )
        with pytest.raises(ivl.ImageError, match="a video is not fetched") as caught:
            client.describe_video(address)
        assert "secret" not in str(caught.value)
        with pytest.raises(ivl.ImageError, match="not a readable video"):
            client.describe_video(playlist)
        assert not loopback.chats

    def test_sound_without_pictures(self, client: ivl.Client, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "a.wav"), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
            frame.sample_rate = 8000
            for packet in [*stream.encode(frame), *stream.encode()]:
                container.mux(packet)
        with pytest.raises(ivl.ImageError, match="no video stream"):
            client.describe_video(tmp_path / "a.wav")


class TestStream:
    def test_the_description_comes_last(self, client: ivl.Client, loopback: Loopback) -> None:
        loopback.will(Reply(chunks=stream_events("A ", "cat.")))
        stream = client.stream(PICTURE)
        with pytest.raises(ivl.ConfigError, match="read to its end"):
            _ = stream.description
        assert "".join(stream) == stream.description.text == "A cat."
        assert stream.description.timings.first_token is not None
        assert stream.description.seen == "confirmed"
        assert loopback.chats[0].json["stream_options"] == {"include_usage": True}
        with pytest.raises(ivl.ConfigError, match="begun already"):
            next(iter(stream))

    def test_after_a_break(self, client: ivl.Client, loopback: Loopback) -> None:
        loopback.will(Reply(chunks=stream_events("A ", "cat.")))
        stream = client.stream(PICTURE)
        pieces = iter(stream)
        for _ in pieces:
            break
        with pytest.raises(ivl.ConfigError, match=r"begun already.*iter\(stream\)"):
            next(iter(stream))
        assert "".join(pieces) == "cat."
        assert stream.description.text == "A cat."

    def test_an_early_end(self, client: ivl.Client, loopback: Loopback) -> None:
        loopback.will(Reply(chunks=stream_events("A ", done=False)))
        pieces = []
        with pytest.raises(ivl.EngineError, match="ended early"):
            for piece in client.stream(PICTURE):
                pieces.append(piece)
        assert pieces == ["A "]


class TestEstimate:
    def test_nothing_is_sent(self, client: ivl.Client, loopback: Loopback) -> None:
        found = client.estimate(png(), detail=4)
        assert (found.grid, found.tiles, found.tokens) == ((2, 2), 5, 1280)
        assert not loopback.heard
        assert asyncio.run(self.both(loopback)) == found

    def test_a_deployment_knows_the_price(self) -> None:
        made = ivl.plan("internvl2_5-78b", gpu="A100-80GB:4", prices="catalogue")
        backend = ServedApp("app", model="m", api_key="k", plan=made)
        assert backend.preview().startup == made.startup_seconds
        with ivl.Client(backend) as client:
            large = client.estimate(png(), detail=12).cost_usd
            small = client.estimate(png(), detail=1).cost_usd
        assert large is not None
        assert small is not None
        assert 0 < small[0] < large[0] < large[1] < 0.1
        assert made.picture_cost(13) == pytest.approx(made.cost.per_picture)

    async def both(self, loopback: Loopback) -> ivl.Estimate:
        async with ivl.AsyncClient(base_url=loopback.url) as client:
            return await client.estimate(png(), detail=4)


def test_every_async_call_does_what_its_twin_does(loopback: Loopback, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", seconds=1)
    good = completion('{"text": "a", "colour": "red"}', prompt_tokens=90_000)
    loopback.will(Reply(body=good))

    def sync() -> list[object]:
        with ivl.Client(base_url=loopback.url) as c:
            c.wait_until_ready()
            return [
                c.models(), c.describe(PICTURE).text, c.extract(PICTURE, Sign),
                c.chat([{"role": "user", "text": "?"}]).text, c.describe_video(video).text,
            ]  # fmt: skip

    async def other() -> list[object]:
        async with ivl.AsyncClient(base_url=loopback.url) as c:
            await c.wait_until_ready()
            return [
                await c.models(), (await c.describe(PICTURE)).text, await c.extract(PICTURE, Sign),
                (await c.chat([{"role": "user", "text": "?"}])).text,
                (await c.describe_video(video)).text,
            ]  # fmt: skip

    assert sync() == asyncio.run(other())
    half = len(loopback.heard) // 2
    asked = [(heard.path, heard.body) for heard in loopback.heard]
    assert asked[:half] == asked[half:]


@pytest.mark.parametrize(
    ("options", "models"),
    [
        (ivl.Options, [ivl.DescribeOptions]),
        (ivl.DescribeOptions, [ivl.DescribeOptions]),
        (ivl.BatchOptions, [ivl.DescribeOptions, BatchSettings]),
    ],
)
def test_help_names_every_option(options: Any, models: list[type[BaseModel]]) -> None:
    fields = {
        info.alias or name: info for model in models for name, info in model.model_fields.items()
    }
    assert options.__annotations__.keys() - {"model_config"} >= set(fields)
    for name, info in fields.items():
        assert f"\n{name} ({info.default!r}): {info.description}" in options.__doc__


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        names = {n for n in dir(kind) if not n.startswith("_")} - {"close", "aclose"}
        return {
            n: list(inspect.signature(m).parameters)
            for n in names
            if callable(m := inspect.getattr_static(kind, n))
        }

    assert calls(ivl.Client) == calls(ivl.AsyncClient)


@pytest.mark.parametrize(
    "kind",
    [k for k in vars(errors).values() if isinstance(k, type) and k.__module__ == errors.__name__],
)
def test_errors_survive_pickling(kind: type[ivl.InternVLError]) -> None:
    arguments: dict[type, tuple[tuple[str, ...], dict[str, Any]]] = {
        ivl.ImageError: (("bad",), {"source": "p.jpg", "hint": "look"}),
        ivl.MissingExtraError: (("av", "video"), {}),
        ivl.SpendLimitError: (("bad",), {"spent": 1.5, "max_usd": 1.0, "hint": "look"}),
        ivl.AnswerFlaggedError: (("A text.", ("cut",)), {}),
    }
    positional, named = arguments.get(kind, (("bad",), {"hint": "look"}))
    error = kind(*positional, **named)
    error.extra_note = 3  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), vars(again)) == (str(error), vars(error))
    assert again.hint


def test_a_description_is_plain_data(client: ivl.Client) -> None:
    description = client.describe(PICTURE)
    again = ivl.Description.model_validate_json(description.model_dump_json())
    assert again == description
    assert json.loads(description.model_dump_json())["usage"] == {
        "prompt_tokens": 5000,
        "completion_tokens": 3,
    }
