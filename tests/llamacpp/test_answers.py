"""Every way in which llama.cpp answers, ends or refuses, by the public calls alone."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Annotated, Literal

import pytest
from PIL import Image
from pydantic import BaseModel, WithJsonSchema

import internvl_modal as ivl
from internvl_modal.backends.local import LocalBackend
from tests.llamacpp.conftest import Engine, connections, message, photograph, scene

CIRCLE = "A large red circle in the center, on a white background."


class TestEnds:
    def test_stop(self, demo_engine: Engine) -> None:
        described = demo_engine.client.describe(scene())
        assert (described.text, described.finish_reason) == (CIRCLE, "stop")
        assert described.usage.completion_tokens == 14  # the last one ends it
        assert described.request_id
        assert described.request_id.startswith("chatcmpl-")

    def test_length(self, demo_engine: Engine) -> None:
        described = demo_engine.client.describe(scene(), max_tokens=2)
        assert (described.text, described.finish_reason) == ("A large", "length")
        assert described.usage.completion_tokens == 2
        assert "the answer was cut at 2 tokens" in described.warnings

    @pytest.mark.parametrize("stop", ["circle", " circle", ["nothing", " in the center"]])
    def test_a_stop_string(self, demo_engine: Engine, stop: str | list[str]) -> None:
        described = demo_engine.client.describe(scene(), stop=stop)
        last = stop if isinstance(stop, str) else stop[-1]
        assert described.finish_reason == "stop"
        assert described.text == CIRCLE[: CIRCLE.index(last)]

    def test_the_context_ends_the_answer(self, tiled_model: tuple[Path, Path]) -> None:
        with ivl.Client(LocalBackend(tiled_model, n_ctx=512)) as client:
            described = client.describe(photograph(200, 200), "a", max_tokens=5000)
        assert described.finish_reason == "length"
        used = described.usage.prompt_tokens + described.usage.completion_tokens
        assert 511 <= used <= 513
        assert any("the context is full" in warning for warning in described.warnings)

    @pytest.mark.parametrize("streamed", [False, True])
    def test_no_text_is_no_description(self, demo_engine: Engine, streamed: bool) -> None:
        with pytest.raises(ivl.EmptyAnswerError, match="no description"):
            if streamed:
                list(demo_engine.client.stream(scene(), stop="A"))
            else:
                demo_engine.client.describe(scene(), stop="A")


class TestStreams:
    def test_pieces_add_up(self, demo_engine: Engine) -> None:
        stream = demo_engine.client.stream(scene())
        pieces = list(stream)
        assert len(pieces) > 5
        assert "".join(pieces) == stream.description.text == CIRCLE
        assert stream.description.finish_reason == "stop"
        assert stream.description.usage == demo_engine.client.describe(scene()).usage
        assert stream.description.model == "demo"

    def test_length(self, demo_engine: Engine) -> None:
        stream = demo_engine.client.stream(scene(), max_tokens=3)
        assert "".join(stream) == "A large red"
        assert stream.description.finish_reason == "length"
        assert stream.description.usage.completion_tokens == 3

    def test_a_stop_string(self, demo_engine: Engine) -> None:
        stream = demo_engine.client.stream(scene(), stop=" circle")
        assert "".join(stream) == "A large red"
        assert stream.description.finish_reason == "stop"

    def test_cancelled_in_mid_stream(self, tiled_engine: Engine) -> None:
        pieces = iter(tiled_engine.client.stream(photograph(200, 200), "a", max_tokens=7000))
        next(pieces)
        assert tiled_engine.written()
        pieces.close()  # type: ignore[attr-defined]
        self.wait_until_free(tiled_engine)

    def test_cancelled_with_asyncio(self, tiled_engine: Engine) -> None:
        async def run() -> None:
            async with ivl.AsyncClient(
                base_url=tiled_engine.url, api_key=tiled_engine.key
            ) as client:
                stream = client.stream(photograph(200, 200), "b", max_tokens=7000)
                task = asyncio.create_task(collect(stream))
                while not await asyncio.to_thread(tiled_engine.written):
                    assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        async def collect(stream: ivl.AsyncStream) -> list[str]:
            return [piece async for piece in stream]

        asyncio.run(run())
        self.wait_until_free(tiled_engine)

    def test_a_plain_answer_that_nobody_waits_for(self, tiled_engine: Engine) -> None:
        async def run() -> None:
            async with ivl.AsyncClient(
                base_url=tiled_engine.url, api_key=tiled_engine.key
            ) as client:
                answer = client.describe(photograph(200, 200), "c", max_tokens=7000)
                task = asyncio.create_task(answer)
                while not await asyncio.to_thread(tiled_engine.written):
                    assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(run())
        self.wait_until_free(tiled_engine)

    def wait_until_free(self, engine: Engine) -> None:
        """Free long before all of the 7,000 tokens are written."""
        while (written := engine.written()) is not None:
            assert written < 5000


class Shape(BaseModel):
    kind: Literal["circle", "square"]
    round: bool


class TestStructured:
    def test_a_schema_binds_even_random_weights(self, tiled_engine: Engine) -> None:
        shape = tiled_engine.client.extract(photograph(200, 200), Shape, max_tokens=400)
        assert shape.kind in ("circle", "square")

    def test_an_answer_that_is_cut(self, tiled_engine: Engine) -> None:
        """Within three tokens of a schema's answer there is white space, or the start of it."""
        cut = (ivl.OutputInvalidError, ivl.EmptyAnswerError)
        with pytest.raises(cut, match=r"cut at 3 tokens.*max_tokens"):
            tiled_engine.client.extract(photograph(200, 200), Shape, max_tokens=3)


class TestRefusals:
    def test_a_full_context(self, demo_engine: Engine) -> None:
        with pytest.raises(ivl.ContextLengthError) as caught:
            demo_engine.client.describe(scene(), "word " * 9000)
        error = caught.value
        assert error.status == 400
        assert (error.needed, error.available) == (9032, 4096)
        wording = "request (9032 tokens) exceeds the available context size (4096 tokens)"
        assert wording in error.message

    def test_a_full_context_in_a_stream(self, demo_engine: Engine) -> None:
        with pytest.raises(ivl.ContextLengthError) as caught:
            list(demo_engine.client.stream(scene(), "word " * 9000))
        assert (caught.value.needed, caught.value.available) == (9032, 4096)

    def test_too_many_tiles(self, tiled_model: tuple[Path, Path]) -> None:
        with (
            ivl.Client(LocalBackend(tiled_model, n_ctx=2048)) as client,
            pytest.raises(ivl.ContextLengthError) as caught,
        ):
            client.describe(photograph(4000, 3000), "a", max_tokens=1)
        assert caught.value.available == 2048
        assert caught.value.needed is not None
        assert caught.value.needed > 13 * 256

    def test_a_wrong_key_lists_no_model(self, demo_engine: Engine) -> None:
        with (
            ivl.Client(base_url=demo_engine.url, api_key="wrong") as stranger,
            pytest.raises(ivl.AuthenticationError, match="Invalid API Key"),
        ):
            stream = stranger.stream(scene())
            list(stream)

    def test_an_unknown_model_is_answered_by_the_one_that_runs(self, demo_engine: Engine) -> None:
        with ivl.Client(
            base_url=demo_engine.url, api_key=demo_engine.key, model="another"
        ) as client:
            described = client.describe(scene())
        assert (described.text, described.model) == (CIRCLE, "demo")


class TestPictures:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
    def test_formats_that_llama_cpp_reads_or_not(
        self, demo_engine: Engine, tmp_path: Path, kind: str
    ) -> None:
        scene().save(tmp_path / "scene", kind)
        described = demo_engine.client.describe(tmp_path / "scene")
        assert described.text == CIRCLE
        assert described.images[0].sent_format in ("image/jpeg", "image/png")

    def test_a_turned_photo_is_upright(self, demo_engine: Engine, tmp_path: Path) -> None:
        """llama.cpp ignores EXIF: the turning is done before."""
        picture = scene(width=300, height=600)
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(tmp_path / "turned.jpg", exif=exif)
        (info,) = demo_engine.client.describe(tmp_path / "turned.jpg").images
        assert (info.orientation, info.sent_width > info.sent_height) == (6, True)

    def test_transparency_lies_on_white(self, demo_engine: Engine) -> None:
        clear = Image.new("RGBA", (480, 480), (0, 0, 0, 0))
        disc = scene().crop((170, 170, 310, 310)).convert("RGBA")
        clear.paste(disc, (170, 170))
        assert demo_engine.client.describe(clear).text == CIRCLE

    @pytest.mark.parametrize("keep", [0, 100, 0.5])
    def test_a_cut_file_never_leaves(
        self, demo_engine: Engine, tmp_path: Path, keep: float
    ) -> None:
        """llama.cpp itself would take half a JPEG for a whole one."""
        file = io.BytesIO()
        photograph(400, 400).save(file, "JPEG")
        whole = file.getvalue()
        cut = whole[: int(keep if keep > 1 else keep * len(whole))]
        (tmp_path / "cut.jpg").write_bytes(cut)
        with pytest.raises(ivl.ImageError):
            demo_engine.client.describe(tmp_path / "cut.jpg")

    def test_what_llama_cpp_says_of_a_bad_picture(self, demo_engine: Engine) -> None:
        """The reason to send JPEG and PNG alone, and to look at every file before."""
        bad = message("a", scene())
        bad["content"][0]["image_url"]["url"] = "data:image/webp;base64,AAAA"
        answer = demo_engine.raw.post("/v1/chat/completions", json={"messages": [bad]})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "Failed to load image or audio file"


class TestMany:
    def test_32_at_once(self, demo_engine: Engine) -> None:
        async def run() -> list[ivl.Description]:
            async with ivl.AsyncClient(base_url=demo_engine.url, api_key=demo_engine.key) as client:
                colours = ["red", "blue"] * 16
                return await asyncio.gather(*(client.describe(scene(c)) for c in colours))

        found = asyncio.run(run())
        texts = [CIRCLE, CIRCLE.replace("red", "blue")] * 16
        assert [described.text for described in found] == texts
        assert len({described.request_id for described in found}) == 32

    @pytest.mark.parametrize("concurrency", ["auto", 32])
    def test_a_batch_is_asked_once_a_picture(
        self, demo: ivl.Client, concurrency: int | Literal["auto"]
    ) -> None:
        pictures = [(str(i), scene("red" if i % 2 else "blue")) for i in range(64)]
        outcomes = list(demo.describe_many(pictures, concurrency=concurrency))
        assert len(outcomes) == 64
        for outcome in outcomes:
            assert outcome.description is not None
            assert outcome.description.timings.attempts == 1
            colour = "red" if int(outcome.key) % 2 else "blue"
            assert f"{colour} circle" in outcome.description.text

    def test_no_connection_of_a_client_holds_a_thread_of_the_engine(self) -> None:
        """Kept alive, it would for 5 s, and some of a burst of others would wait behind it."""
        backend = LocalBackend("demo", n_ctx=3072)  # an engine that nothing else asks
        with ivl.Client(backend) as client:
            client.describe(scene())
            assert connections(backend.start().base_url) == 0

    def test_nor_one_of_many(self) -> None:
        async def run() -> int:
            backend = LocalBackend("demo", n_ctx=3073)
            async with ivl.AsyncClient(backend) as client:
                await asyncio.gather(*(client.describe(scene()) for _ in range(8)))
                return connections(backend.start().base_url)

        assert asyncio.run(run()) == 0

    def test_nor_one_of_a_client_that_is_told_the_address(self, tiled_engine: Engine) -> None:
        with ivl.Client(base_url=tiled_engine.url, api_key=tiled_engine.key) as client:
            before = connections(tiled_engine.url)
            client.describe(photograph(100, 100), max_tokens=1)
            assert connections(tiled_engine.url) == before


class Plate(BaseModel):
    number: Annotated[str, WithJsonSchema({"$ref": "https://example.com/plate.json"})]


def test_a_schema_that_is_refused_is_left_out(tiled_engine: Engine) -> None:
    """llama.cpp says 400 to a reference into another document."""
    with pytest.raises(ivl.OutputInvalidError):  # asked as plain text, random weights write noise
        tiled_engine.client.extract(photograph(200, 200), Plate, repairs=0, max_tokens=8)


def test_the_demo_is_told_nothing_besides(demo: ivl.Client, demo_engine: Engine) -> None:
    """With InternVL's system message it is wrong of most scenes."""
    described = demo.describe(scene(), "Describe.")
    bare = demo_engine.prompt_tokens([message("Describe.", scene())])
    assert described.usage.prompt_tokens == bare + described.images[0].tokens


def test_the_server_says_who_it_is(demo_engine: Engine) -> None:
    (entry,) = demo_engine.raw.get("/v1/models").raise_for_status().json()["data"]
    assert (entry["id"], entry["owned_by"]) == ("demo", "llamacpp")
    assert demo_engine.client.models() == ["demo"]
