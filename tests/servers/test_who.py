"""Which server answers, which of its models is asked, and what is sent to it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

import internvl_modal as ivl
from internvl_modal.backends.endpoint import EndpointBackend
from internvl_modal.flows.core import Core
from internvl_modal.models.families import SYSTEM_MESSAGE, family_of
from internvl_modal.protocol.dialects.base import Dialect
from internvl_modal.protocol.dialects.registry import DIALECTS, dialect_of
from internvl_modal.protocol.endpoint import Capabilities
from tests.loopback import Loopback, Reply
from tests.servers import answers
from tests.servers.answers import chat, listed, used

PICTURE = Image.effect_noise((640, 488), 60).convert("RGB")
FINE = Image.effect_noise((1600, 1280), 60).convert("RGB")
INTERNVL = "OpenGVLab/InternVL2_5-8B"


def listing(*entries: dict[str, Any]) -> Reply:
    return Reply(body={"object": "list", "data": list(entries)})


def asked(loopback: Loopback, **options: Any) -> dict[str, Any]:
    """The body of the chat that a description becomes."""
    with ivl.Client(loopback.url) as client:
        client.describe(PICTURE, **options)
    body: dict[str, Any] = loopback.chats[-1].json
    return body


class TestServer:
    @pytest.mark.parametrize(
        ("owner", "name"),
        [
            ("internvl-modal", "gateway"),
            ("lmdeploy", "lmdeploy"),
            ("llamacpp", "llamacpp"),
            ("vllm", "vllm"),
            ("sglang", "sglang"),
            ("library", "ollama"),
            ("organization_owner", "lmstudio"),
            ("llama-swap", "llama-swap"),
            ("another", "openai"),
            (None, "openai"),
            (3, "openai"),
        ],
    )
    def test_each_signs_its_models(self, loopback: Loopback, owner: Any, name: str) -> None:
        loopback.models = listing({"id": "m", "owned_by": owner})
        with ivl.Client(loopback.url) as client:
            assert client._run(client._core.ready()).capabilities.dialect == name

    def test_every_dialect_has_a_name_of_its_own(self) -> None:
        assert all(isinstance(dialect, Dialect) for dialect in DIALECTS.values())
        assert all(dialect_of(Capabilities(name)).name == name for name in DIALECTS)
        with pytest.raises(ivl.ConfigError, match="no dialect 'x'"):
            dialect_of(Capabilities("x"))

    @pytest.mark.parametrize("model", ["internvl3-8b", "alias", "named:latest"])
    def test_the_entry_of_the_model_tells(self, loopback: Loopback, model: str) -> None:
        mine = listed("internvl3-8b" if model == "alias" else model, "vllm", aliases=["alias"])
        loopback.models = listing(listed("llava", "llamacpp"), mine)
        with ivl.Client(base_url=loopback.url, model=model.removesuffix(":latest")) as client:
            assert client._run(client._core.ready()).capabilities.dialect == "vllm"

    def test_a_model_that_is_not_listed(self, loopback: Loopback) -> None:
        """llama.cpp answers to any name, so one owner of all is the owner of another, too."""
        for owners, name in ((("vllm", "llamacpp"), "openai"), (("vllm", "vllm"), "vllm")):
            loopback.models = listing(*(listed(f"m{o}", o) for o in owners))
            with ivl.Client(base_url=loopback.url, model="other") as client:
                assert client._run(client._core.ready()).capabilities.dialect == name

    @pytest.mark.parametrize(
        ("health", "paths", "name"),
        [
            (Reply(200), {"/v1/chat/completions": {}}, "lmdeploy"),
            (Reply(200), {"/v1/messages": {}}, "lmdeploy-0.13"),
            (Reply(body={"status": "healthy", "message": "ok"}), {}, "lmdeploy-0.13"),
            (Reply(503, {"status": "unhealthy"}), {}, "lmdeploy-0.13"),
            (Reply(404, "Not Found"), {}, "lmdeploy"),
            (Reply(502, "<html>"), {}, "lmdeploy"),
            (Reply(cut=True), {"/v1/messages": {}}, "lmdeploy-0.13"),
        ],
    )
    def test_old_and_new_lmdeploy(
        self, loopback: Loopback, health: Reply, paths: dict[str, Any], name: str
    ) -> None:
        loopback.asides = {"/health": health, "/openapi.json": Reply(body={"paths": paths})}
        loopback.models = listing(listed(INTERNVL, "lmdeploy"))
        with ivl.Client(base_url=loopback.url, api_key="sk-1") as client:
            assert client._run(client._core.ready()).capabilities.dialect == name
            heard = len(loopback.heard)
            client.describe(PICTURE, seed=0)
            assert len(loopback.heard) == heard + 1
        assert {heard.headers["authorization"] for heard in loopback.heard} == {"Bearer sk-1"}
        assert (loopback.chats[-1].json["seed"] == 0) is (name == "lmdeploy-0.13")

    def test_a_question_of_the_version_that_is_never_answered(self, loopback: Loopback) -> None:
        ended = threading.Event()

        def never() -> Iterator[bytes]:
            ended.wait(60)
            yield b""

        loopback.asides = {"/health": Reply(chunks=never())}
        loopback.models = listing(listed(INTERNVL, "lmdeploy"))
        try:
            with ivl.Client(base_url=loopback.url, timeout=50) as client:
                assert client.describe(PICTURE).text == "A cat."
        finally:
            ended.set()
        assert "/openapi.json" not in [heard.path for heard in loopback.heard]


class TestModel:
    @pytest.mark.parametrize(
        ("entries", "name"),
        [
            ([listed("llava", "x")], "llava"),
            (answers.LMSTUDIO_MODELS["data"], "internvl3-8b-instruct"),
            (answers.OLLAMA_MODELS["data"], "internvl3:8b"),
            (answers.OPENROUTER_MODELS["data"], "opengvlab/internvl3-78b"),
            ([listed("llava", "x"), listed("InternVL3-8B", "x")], "InternVL3-8B"),
            ([listed("bge-m3", "x"), listed("whisper-1", "x"), listed("llava", "x")], "llava"),
            ([listed("jina-reranker", "x"), listed("qwen2-audio", "x"), listed("l", "x")], "l"),
            ([listed("internvl3-8b-embedding", "x"), listed("internvl3-8b", "x")], "internvl3-8b"),
            ([listed("audio/InternVL3-8B", "x"), listed("l", "x")], "audio/InternVL3-8B"),
            ([listed("e", "x", type="embedding"), listed("c", "x", type="chat")], "c"),
            ([listed("a", "vllm", root=INTERNVL), listed("b", "vllm", root=INTERNVL)], "a"),
            ([listed("mine", "vllm", root=INTERNVL), listed("b", "vllm", root="Qwen")], "mine"),
        ],
    )
    def test_the_one_that_is_meant(
        self, loopback: Loopback, entries: list[dict[str, Any]], name: str
    ) -> None:
        loopback.models = listing(*entries)
        assert asked(loopback)["model"] == name

    def test_a_bare_list_will_do(self, loopback: Loopback) -> None:
        loopback.models = Reply(body=[{"id": "m"}])
        assert asked(loopback)["model"] == "m"

    @pytest.mark.parametrize(
        ("entries", "words"),
        [
            ([listed("llava", "x"), listed("gemma", "x")], "several models: 'llava', 'gemma'"),
            ([listed("internvl3-8b", "x"), listed("internvl3-2b", "x")], "several models"),
            ([listed("text-embedding-ada", "x")], "no model that sees pictures"),
        ],
    )
    def test_a_choice_is_the_callers(
        self, loopback: Loopback, entries: list[dict[str, Any]], words: str
    ) -> None:
        loopback.models = listing(*entries)
        with pytest.raises(ivl.ConfigError, match=words) as caught:
            asked(loopback)
        assert "model=" in caught.value.hint
        assert not loopback.chats

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(401, {"error": "no"}), Reply(403, {"error": "forbidden"}), Reply(404, "no"),
            Reply(405), Reply(500, {"error": "x"}), Reply(501, {"error": "x"}),
            Reply(503, {"error": "x"}), Reply(429, "slow"), Reply(200, b"<html>app</html>"),
            Reply(body=[{"id": "m"}]), Reply(body={"data": None}), Reply(body={}), Reply(200, b"null"),
            Reply(body={"error": {"code": 500, "message": "x"}}), Reply(200, b""),
            Reply(body=[1, None, {"id": 3}]), Reply(cut=True), Reply(body={"data": {"id": "m"}}),
        ],
    )  # fmt: skip
    def test_a_given_model_is_asked_whatever_the_list_says(
        self, loopback: Loopback, reply: Reply
    ) -> None:
        loopback.models = reply
        retry = ivl.Retry(attempts=2, initial=0)
        with ivl.Client(base_url=loopback.url, model="given", retry=retry) as client:
            client.describe(PICTURE)
            client.describe(PICTURE)
        assert [heard.json["model"] for heard in loopback.chats] == ["given", "given"]
        again = 2 if reply.status in (503, 429) or reply.cut else 1
        assert len(loopback.heard) - len(loopback.chats) == again

    def test_ollama_without_a_model(self, loopback: Loopback) -> None:
        loopback.models = Reply(body=answers.OLLAMA_NO_MODELS)
        with pytest.raises(ivl.ServerError, match="lists no model"):
            asked(loopback)


class TestSystem:
    @pytest.mark.parametrize("owner", ["lmdeploy", "vllm", "sglang", "llamacpp", "library", "x"])
    @pytest.mark.parametrize(
        "name",
        [
            *("InternVL2_5-8B-AWQ", "internvl3:8b", "OpenGVLab/InternVL3_5-8B-HF"),
            *("InternVL3_5-30B-A3B-Flash", "brandonbeiler/InternVL3_5-241B-A28B-FP8-Dynamic"),
        ],
    )
    def test_internvls_own_is_sent_everywhere(
        self, loopback: Loopback, owner: str, name: str
    ) -> None:
        loopback.models = listing(listed(name, owner))
        messages = asked(loopback)["messages"]
        assert messages[0] == {"role": "system", "content": SYSTEM_MESSAGE}
        assert [message["role"] for message in messages] == ["system", "user"]

    @pytest.mark.parametrize(
        "name",
        [
            *("demo", "llava", "internvl", "InternVL2-8B", "InternVL3_5-GPT-OSS-20B-A4B-Preview"),
            "InternVL3_5-GPT-OSS-20B-A4B-Preview-HF",
        ],
    )
    def test_none_where_none_is_known(self, loopback: Loopback, name: str) -> None:
        loopback.models = listing(listed(name, "llamacpp"))
        assert [message["role"] for message in asked(loopback)["messages"]] == ["user"]

    def test_the_name_behind_a_name_tells(self, loopback: Loopback) -> None:
        loopback.models = listing(listed("vl", "vllm", root=INTERNVL))
        assert asked(loopback)["messages"][0]["content"] == SYSTEM_MESSAGE

    @pytest.mark.parametrize(
        ("name", "roles"),
        [
            ("InternVL2_5-8B", ["system", "user"]),
            ("llava", ["system", "user"]),
            ("InternVL3_5-8B", ["user"]),
            ("InternVL3-8B-hf", ["user"]),
            ("demo", ["user"]),
        ],
    )
    def test_an_empty_one_stands_where_the_template_would_write_its_own(
        self, loopback: Loopback, name: str, roles: list[str]
    ) -> None:
        loopback.models = listing(listed(name, "vllm"))
        messages = asked(loopback, system="")["messages"]
        assert [message["role"] for message in messages] == roles
        assert messages[0]["content"] == "" or roles == ["user"]

    def test_the_callers_own(self, loopback: Loopback) -> None:
        loopback.models = listing(listed(INTERNVL, "vllm"))
        assert asked(loopback, system="Be brief.")["messages"][0]["content"] == "Be brief."
        turns = [{"role": "system", "text": "Be brief."}, {"role": "user", "text": "Hi"}]
        with ivl.Client(loopback.url) as client:
            client.chat(turns)
        assert [m["content"] for m in loopback.chats[-1].json["messages"]] == ["Be brief.", "Hi"]

    def test_families(self) -> None:
        for name in ("InternVL3_5-8B-Flash", "/models/InternVL3.5-8B-flash/"):
            found = family_of(name)
            assert found is not None
            assert found.flash
            assert not found.plain
            assert not found.signs
        assert family_of("InternVL3-8B-Instruct-GGUF:Q8_0") == family_of("x", "internvl2_5-78b")
        assert family_of("llava", "qwen") is None


class TestTiles:
    @pytest.mark.parametrize("owner", ["lmdeploy", "sglang"])
    def test_beside_the_picture(self, loopback: Loopback, owner: str) -> None:
        loopback.models = listing(listed(INTERNVL, owner))
        content = asked(loopback, detail="low")["messages"][-1]["content"]
        (url,) = (part["image_url"] for part in content if part["type"] == "image_url")
        assert url["max_dynamic_patch"] == 6

    @pytest.mark.parametrize("trusting", [True, False])
    def test_vllm_is_asked_once(self, loopback: Loopback, trusting: bool) -> None:
        loopback.models = listing(listed(INTERNVL, "vllm"))
        param = "mm_processor_kwargs"
        refusal = {"error": {"message": f"{param} are disabled", "param": param, "code": 400}}

        def answer(heard: Any) -> Reply:
            refused = param in heard.json and not trusting
            return Reply(400, refusal) if refused else Reply(body=chat())

        loopback.will(answer)
        with ivl.Client(loopback.url) as client:
            client.describe(PICTURE)
            assert len(loopback.chats) == 1, "the usual detail needs no question"
            found = [client.describe(FINE, detail=detail) for detail in (6, "high", 1)]
            list(client.stream(PICTURE, detail=6))
        assert len(loopback.chats) == 6
        assert param not in loopback.chats[0].json
        sent = [heard.json.get(param) for heard in loopback.chats[2:]]
        limits = [{"max_dynamic_patch": limit} for limit in (6, 24, 1, 6)]
        assert sent == (limits if trusting else [None] * 4)
        assert [each.images[0].tiles for each in found] == [7, 21 if trusting else 13, 1]
        unused = ["had no effect" in " ".join(each.warnings) for each in found]
        assert unused == [False, not trusting, False]

    def test_a_failure_tells_nothing_of_it(self, loopback: Loopback) -> None:
        loopback.models = listing(listed(INTERNVL, "vllm"))
        loopback.will(Reply(500, "x"), Reply(body=chat()), Reply(body=chat()), Reply(body=chat()))
        with ivl.Client(loopback.url) as client:
            client.describe(PICTURE, detail=1)
            assert "mm_processor_kwargs" not in loopback.chats[-1].json
            client.describe(PICTURE, detail=1)
            assert "mm_processor_kwargs" in loopback.chats[-1].json

    @pytest.mark.parametrize("owner", ["vllm", "another"])
    def test_labels_stand_with_their_pictures(self, loopback: Loopback, owner: str) -> None:
        loopback.models = listing(listed(INTERNVL, owner))
        with ivl.Client(loopback.url) as client:
            client.describe([PICTURE, PICTURE], "What <image>?")
        first, *rest = loopback.chats[-1].json["messages"][-1]["content"]
        if owner == "vllm":
            assert first["text"] == "Image-1: <image>\nImage-2: <image>\nWhat < image>?"
            assert [part["type"] for part in rest] == ["image_url", "image_url"]
        else:
            assert first["text"] == "Image-1: "

    @pytest.mark.parametrize("name", ["llava", "InternVL3_5-8B-HF"])
    def test_only_internvls_own_code_takes_placeholders(
        self, loopback: Loopback, name: str
    ) -> None:
        loopback.models = listing(listed(name, "vllm"))
        with ivl.Client(loopback.url) as client:
            client.describe([PICTURE, PICTURE])
        assert "<image>" not in str(loopback.chats[-1].json["messages"][-1]["content"][0])

    @pytest.mark.parametrize("owner", ["vllm", "another"])
    def test_most_servers_take_four_stop_strings(self, loopback: Loopback, owner: str) -> None:
        loopback.models = listing(listed("m", owner))
        loopback.will(Reply(body=chat("one five two")))
        with ivl.Client(loopback.url) as client:
            found = client.describe(PICTURE, stop=["A", "B", "C", "D", "five"])
        assert loopback.chats[-1].json["stop"] == ["A", "B", "C", "D"]
        assert found.text == "one "


class TestSeen:
    @pytest.mark.parametrize(
        ("owner", "name", "count"),
        [
            ("organization_owner", "internvl3-8b-instruct", 5 * 256 + 60),
            ("llama-swap", "internvl3-8b", 5 * 256 + 60),
            ("vllm", INTERNVL, 5 * 256 + 60),
            ("vllm", "OpenGVLab/InternVL3_5-8B-Flash", 13 * 64 + 60),
            ("lmdeploy", "OpenGVLab/InternVL3_5-8B-Flash", 13 * 64 + 60),
            ("lmdeploy", "OpenGVLab/InternVL3_5-8B-HF", 5 * 256 + 60),
            ("sglang", INTERNVL, 5 * 256),
            ("library", "internvl3:8b", 256),
            (None, INTERNVL, 5 * 256 + 60),
        ],
    )
    def test_a_lower_count_where_the_rule_is_a_guess(
        self, loopback: Loopback, owner: str | None, name: str, count: int
    ) -> None:
        loopback.models = listing(listed(name, owner))
        loopback.will(Reply(body=chat("A street.", usage=used(count))))
        with ivl.Client(loopback.url) as client:
            found = client.describe(PICTURE)
        assert (found.text, found.seen) == ("A street.", "unverifiable")
        (warning,) = found.warnings
        assert f"{count} tokens" in warning
        assert "3328" in warning
        assert "capabilities=" in warning

    @pytest.mark.parametrize("owner", ["vllm", "organization_owner", "lmdeploy", "llamacpp", None])
    def test_no_room_for_the_picture(self, loopback: Loopback, owner: str | None) -> None:
        loopback.models = listing(listed(INTERNVL, owner))
        loopback.will(Reply(body=chat("A street.", usage=used(60))))
        with ivl.Client(loopback.url) as client, pytest.raises(ivl.ImageNotSeenError) as caught:
            client.describe(PICTURE)
        assert caught.value.actual == 60
        assert caught.value.text == "A street."

    def test_every_picture_needs_room(self, loopback: Loopback) -> None:
        loopback.models = listing(listed(INTERNVL, "vllm"))
        loopback.will(Reply(body=chat("Streets.", usage=used(2 * 256 + 60))))
        with ivl.Client(loopback.url) as client:
            client.describe([PICTURE, PICTURE])
            with pytest.raises(ivl.ImageNotSeenError):
                client.describe([PICTURE] * 3)

    @pytest.mark.parametrize(
        ("owner", "count"), [("lmdeploy", 5 * 256 + 60), ("llamacpp", 3 * 256 + 60)]
    )
    def test_where_the_rule_is_known_fewer_is_an_error(
        self, loopback: Loopback, owner: str, count: int
    ) -> None:
        loopback.models = listing(listed(INTERNVL, owner))
        loopback.will(Reply(body=chat("A street.", usage=used(count))))
        with ivl.Client(loopback.url) as client, pytest.raises(ivl.ImageNotSeenError):
            client.describe(PICTURE)

    def test_who_says_so_knows(self, loopback: Loopback) -> None:
        loopback.models = listing(listed(INTERNVL, "vllm"))
        loopback.will(Reply(body=chat("A street.", usage=used(7 * 256 + 60))))
        known = Capabilities("vllm", tokens_per_tile=256, max_tiles=6)
        core = Core(EndpointBackend(loopback.url), model=None, timeout=60, capabilities=known)
        with ivl.Client(loopback.url) as client:
            found = client._run(core.describe(PICTURE, None, {}))
            assert (found.images[0].tiles, found.seen, found.warnings) == (7, "confirmed", ())
            loopback.will(Reply(body=chat("A street.", usage=used(6 * 256))))
            with pytest.raises(ivl.ImageNotSeenError):
                client._run(core.describe(PICTURE, None, {}))

    @pytest.mark.parametrize("usage", [None, used(0, 0)])
    def test_no_count(self, loopback: Loopback, usage: dict[str, int] | None) -> None:
        loopback.models = Reply(body=answers.OLLAMA_MODELS)
        loopback.will(Reply(body=chat("A cat.", None, usage)))
        with ivl.Client(loopback.url) as client:
            assert client.describe(PICTURE).seen == "unverifiable"


@pytest.mark.parametrize("grounding", [True, False])
def test_grounding(loopback: Loopback, grounding: bool) -> None:
    loopback.models = listing(listed("m", "x"))
    prompt = "Find <ref>the cat</ref> near <box>[[1, 2, 3, 4]]</box> <img> <|im_end|>."
    with ivl.Client(loopback.url) as client:
        found = client.describe(PICTURE, prompt, grounding=grounding)
    sent = loopback.chats[-1].json["messages"][-1]["content"][-1]["text"]
    assert ("<ref>the cat</ref> near <box>[[1, 2, 3, 4]]</box>" in sent) is grounding
    assert "< img> < |im_end|>." in sent
    assert "control tokens" in found.warnings[0]
    with ivl.Client(loopback.url) as client:
        assert client.describe(PICTURE, "<ref>a</ref>", grounding=True).warnings == ()


class TestBaseUrl:
    @pytest.mark.parametrize(
        ("given", "path"),
        [
            ("", "/v1/chat/completions"),
            ("/", "/v1/chat/completions"),
            ("/v1", "/v1/chat/completions"),
            ("/v1/", "/v1/chat/completions"),
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/api/v1?key=a%20b", "/api/v1/chat/completions?key=a%20b"),
            ("?key=1", "/v1/chat/completions?key=1"),
            (
                "/openai/deployments/d?api-version=2024-10-21",
                "/openai/deployments/d/chat/completions?api-version=2024-10-21",
            ),
            (
                "/openai/deployments/d/chat/completions?api-version=1",
                "/openai/deployments/d/chat/completions?api-version=1",
            ),
        ],
    )
    def test_a_path_and_a_query(self, loopback: Loopback, given: str, path: str) -> None:
        with ivl.Client(base_url=loopback.origin + given, model="m") as client:
            client.describe(PICTURE)
            list(client.stream(PICTURE))
            shown = repr(client) + repr(client.backend.start())
        assert {heard.path for heard in loopback.heard if heard.method == "POST"} == {path}
        assert "key" not in shown
        assert "api-version" not in shown

    @pytest.mark.parametrize("user", ["me:s%40cret", "me", ":s%40cret"])
    def test_a_user_is_basic_authentication(self, loopback: Loopback, user: str) -> None:
        url = loopback.url.replace("//", f"//{user}@")
        with ivl.Client(base_url=url, model="m") as client:
            client.describe(PICTURE)
            shown = repr(client) + repr(client.backend.start())
        pair = user.replace("%40", "@") + ("" if ":" in user else ":")
        expected = "Basic " + base64.b64encode(pair.encode()).decode()
        assert {heard.headers["authorization"] for heard in loopback.heard} == {expected}
        assert not {"cret", "me:", "@"} & {word for word in ("cret", "me:", "@") if word in shown}

    def test_a_key_and_a_user_are_one_header(self, loopback: Loopback) -> None:
        url = loopback.url.replace("//", "//me:secret@")
        with pytest.raises(ivl.ConfigError, match="user name") as caught:
            ivl.Client(base_url=url, api_key="sk-1", model="m")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "reply"),
    [
        (answers.SGLANG_MODELS, answers.SGLANG_ANSWER),
        (answers.OLLAMA_MODELS, answers.OLLAMA_ANSWER),
        (answers.OPENROUTER_MODELS, chat("A cat.", "stop", used(3400), refusal=None)),
        (answers.LMSTUDIO_MODELS, chat("A cat.", "stop", used(3400))),
        (answers.TGI_MODELS, answers.TGI_ANSWER),
    ],
    ids=["SGLang", "Ollama", "OpenRouter", "LM Studio", "TGI"],
)
def test_other_servers(loopback: Loopback, models: Any, reply: Any) -> None:
    loopback.models = Reply(body=models)
    loopback.will(Reply(body=reply))
    with ivl.Client(loopback.url) as client:
        found = client.describe(PICTURE)
    assert (found.text, found.finish_reason, found.warnings) == ("A cat.", "stop", ())


def test_llama_cpp_keeps_no_connection(loopback: Loopback) -> None:
    """Each would hold one of its few threads; none that it closes is used again."""
    loopback.models = listing(listed(INTERNVL, "llamacpp"))
    retry = ivl.Retry(attempts=1, resend=0)
    with ivl.Client(loopback.url, retry=retry) as client:
        for _ in range(20):
            client.chat([{"role": "user", "text": "Hi"}])
    assert {heard.headers["connection"] for heard in loopback.heard} == {"close"}
