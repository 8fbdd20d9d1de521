"""Spans of OpenTelemetry: one for each call, with its parts, under the GenAI names."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

import internvl_modal as ivl
from internvl_modal.gateway import create_app
from internvl_modal.gateway.tracing import callers_trace
from internvl_modal.testing import Answer, Call, FakeBackend
from tests.asgi import serving
from tests.documented import ROOT, performed

PICTURE = ROOT / "examples" / "images" / "coffee.jpg"
EXPORTER = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def provider() -> Iterator[None]:
    """OpenTelemetry takes one for a process; it keeps nothing of the tests after these."""
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(made)
    yield
    made.shutdown()


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    EXPORTER.clear()
    yield EXPORTER
    EXPORTER.clear()


def call_and_parts(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, list[ReadableSpan]]:
    spans = exporter.get_finished_spans()
    (call,) = [span for span in spans if span.name.startswith("chat ")]
    parts = [span for span in spans if span.parent and span.parent.span_id == call.context.span_id]
    return call, sorted(parts, key=lambda span: span.start_time)


def in_order(call: ReadableSpan, parts: list[ReadableSpan]) -> bool:
    times = [t for part in parts for t in (part.start_time, part.end_time)]
    slack = 2_000_000  # ns: the two clocks are read one after the other
    inside = call.start_time - slack <= times[0] and times[-1] <= call.end_time + slack
    return inside and all(a <= b + slack for a, b in pairwise(times))


def test_a_call(exported: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("test")
    with ivl.Client(FakeBackend("A cat.")) as client, tracer.start_as_current_span("mine") as mine:
        told = client.describe(PICTURE, "secret words", max_tokens=9, stop="END")
    call, parts = call_and_parts(exported)
    assert call.name == "chat internvl2_5-78b"
    assert call.parent.span_id == mine.get_span_context().span_id
    found = dict(call.attributes)
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.provider.name"] == "lmdeploy"
    assert found["gen_ai.request.max_tokens"] == 9
    assert found["gen_ai.request.stop_sequences"] == ("END",)
    assert found["gen_ai.usage.input_tokens"] == told.usage.prompt_tokens
    assert found["gen_ai.response.finish_reasons"] == ("stop",)
    assert found["server.address"] == "127.0.0.1"
    assert found["internvl_modal.tiles"] == told.images[0].tiles
    assert [part.name for part in parts] == ["prepare", "wait"]
    assert in_order(call, parts)
    assert "secret words" not in str(found)
    assert "A cat." not in str(found)


async def _streamed() -> None:
    client = ivl.AsyncClient(FakeBackend("A cat on a mat."))
    async with client, client.stream(PICTURE) as stream:
        async for _ in stream:
            pass


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream(exported: InMemorySpanExporter, asynchronous: bool) -> None:
    if asynchronous:
        asyncio.run(_streamed())
    else:
        with ivl.Client(FakeBackend("A cat on a mat.")) as client:
            list(client.stream(PICTURE))
    call, parts = call_and_parts(exported)
    assert [part.name for part in parts] == ["prepare", "send", "wait"]
    assert in_order(call, parts)
    assert call.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert call.attributes["internvl_modal.seen"] == "confirmed"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_failure(exported: InMemorySpanExporter, streamed: bool) -> None:
    client = ivl.Client(FakeBackend(Answer("secret words", status=400)))
    with client, pytest.raises(ivl.RequestRejectedError):
        list(client.stream(PICTURE)) if streamed else client.describe(PICTURE)
    call, _ = call_and_parts(exported)
    assert call.attributes["error.type"] == "RequestRejectedError"
    assert call.status.status_code is trace.StatusCode.ERROR
    assert "secret words" not in call.to_json()


def test_a_stream_that_is_left(exported: InMemorySpanExporter) -> None:
    with ivl.Client(FakeBackend("A cat on a mat.")) as client, client.stream(PICTURE) as stream:
        pieces = iter(stream)
        next(pieces)
        pieces.close()
    call, _ = call_and_parts(exported)
    assert "error.type" not in call.attributes


class Cup(BaseModel):
    full: bool


def test_batches_and_typed_answers(exported: InMemorySpanExporter) -> None:
    with ivl.Client(FakeBackend(["no JSON", '{"full": true}'])) as client:
        client.extract(PICTURE, Cup)
    assert [span.name for span in exported.get_finished_spans()].count("chat internvl2_5-78b") == 2
    exported.clear()
    with ivl.Client(FakeBackend("A cat.")) as client:
        list(client.describe_many([PICTURE, PICTURE]))
    assert [span.name for span in exported.get_finished_spans()].count("chat internvl2_5-78b") == 2


def traced(call: Call, span: trace.SpanContext) -> bool:
    """Whether a server was told that ``call`` belongs to ``span``."""
    version, trace_id, span_id, _ = call.headers["traceparent"].split("-")
    return (version, trace_id, span_id) == (
        "00", format(span.trace_id, "032x"), format(span.span_id, "016x")
    )  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
def test_the_server_is_told_which_trace_it_is(
    exported: InMemorySpanExporter, streamed: bool
) -> None:
    fake = FakeBackend("A cat.")
    with ivl.Client(fake) as client:
        list(client.stream(PICTURE)) if streamed else client.describe(PICTURE)
    call, _ = call_and_parts(exported)
    assert traced(fake.calls[-1], call.context)


@pytest.mark.parametrize("way", ["describe", "completion", "stream"])
def test_a_trace_goes_through_the_gateway(exported: InMemorySpanExporter, way: str) -> None:
    fake, tracer = FakeBackend("A cat."), trace.get_tracer("test")
    app = create_app(ivl.AsyncClient(fake), api_key="k")
    with serving(app) as url, tracer.start_as_current_span("mine") as mine:
        if way == "describe":
            carried: dict[str, str] = {}
            inject(carried)
            picture, auth = PICTURE.read_bytes(), {"authorization": "Bearer k"}
            httpx.post(url, files={"image": picture}, headers=auth | carried).raise_for_status()
        else:
            with ivl.Client(base_url=f"{url}/v1", api_key="k") as client:
                list(client.stream(PICTURE)) if way == "stream" else client.describe(PICTURE)
    calls = [each for each in exported.get_finished_spans() if each.name.startswith("chat ")]
    assert len(calls) == (1 if way == "describe" else 2)
    assert {each.context.trace_id for each in calls} == {mine.get_span_context().trace_id}
    inner = next(each for each in calls if traced(fake.calls[-1], each.context))
    outer = [each.context for each in calls if each is not inner] or [mine.get_span_context()]
    parents = {each.context.span_id: each.parent for each in exported.get_finished_spans()}
    above = inner.parent
    # FastAPI makes spans of its own between the two, from some version on.
    while above is not None and above.span_id != outer[0].span_id:
        above = parents[above.span_id]
    assert above is not None


def test_a_callers_trace_goes_on_where_the_web_server_makes_no_span() -> None:
    number, above = 0xABC, 0xDEF
    with callers_trace({"traceparent": f"00-{number:032x}-{above:016x}-01"}):
        joined = trace.get_current_span().get_span_context()
    assert (joined.trace_id, joined.span_id) == (number, above)
    assert not trace.get_current_span().get_span_context().is_valid
    with trace.get_tracer("test").start_as_current_span("server's") as server:  # noqa: SIM117
        with callers_trace({"traceparent": f"00-{number:032x}-{above:016x}-01"}):
            assert trace.get_current_span() is server


def test_who_does_not_trace_imports_nothing() -> None:
    code = (
        "import sys, internvl_modal as ivl\nfrom internvl_modal.testing import FakeBackend\n"
        f"with ivl.Client(FakeBackend()) as client: client.describe({str(PICTURE)!r})\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_page_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "images", tmp_path / "examples" / "images")
    done = performed("observing.md", os.environ, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("describe the product", "chat demo", "prepare", "wait"):
        assert f'"name": "{name}"' in done.stdout


@pytest.mark.parametrize("level", ["", "DEBUG"])
def test_logging_is_quiet_unless_it_is_set_up(level: str) -> None:
    code = (
        "import logging, sys, internvl_modal as ivl\n"
        "from internvl_modal.testing import Answer, FakeBackend\n"
        f"if {level!r}: logging.basicConfig(level={level!r})\n"
        "fake = FakeBackend([Answer('busy', status=503, retry_after=0), 'A cat.'])\n"
        f"with ivl.Client(fake) as client: client.describe({str(PICTURE)!r})\n"
        "logging.getLogger('internvl_modal.any').warning('something')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert bool(done.stderr) is bool(level)
    assert ("503" in done.stderr and "something" in done.stderr) is bool(level)
