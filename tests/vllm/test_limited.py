"""A vLLM whose own limit of tiles the client cannot know."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image

import internvl_modal as ivl
from tests.vllm.server import Server, serving

PICTURE = Image.new("RGB", (640, 480), "red")
"""4x3 tiles and a thumbnail with the usual limit, one tile with a limit of 4."""
WIDE = Image.new("RGB", (2000, 500), "red")
"""4x1 tiles and a thumbnail with either."""


@pytest.fixture(scope="module")
def limited(enabled: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that cuts at most 4 tiles, and says so to nobody."""
    folder = tmp_path_factory.mktemp("limited")
    with serving(folder, "--mm-processor-kwargs", '{"max_dynamic_patch": 4}') as server:
        yield server


@pytest.mark.parametrize("streamed", [False, True])
def test_fewer_tokens_than_expected_are_a_warning(limited: Server, streamed: bool) -> None:
    with ivl.Client(base_url=limited.url) as client:
        if streamed:
            stream = client.stream(PICTURE, max_tokens=8)
            assert "".join(stream)
            answer = stream.description
        else:
            answer = client.describe(PICTURE, max_tokens=8)
    assert answer.seen == "unverifiable"
    assert answer.usage.prompt_tokens < 13 * 256
    (warning,) = [each for each in answer.warnings if str(13 * 256) in each]
    assert str(answer.usage.prompt_tokens) in warning
    assert "capabilities" in warning


def test_a_count_that_fits_either_limit_is_no_doubt(limited: Server) -> None:
    with ivl.Client(base_url=limited.url) as client:
        answer = client.describe(WIDE, max_tokens=8)
    assert answer.images[0].tiles == 5
    assert answer.seen == "confirmed"


def test_a_client_that_is_told_the_limit_is_sure(limited: Server) -> None:
    told = ivl.Capabilities(max_tiles=4, tokens_per_tile=256, json_schema=True)
    with ivl.Client(base_url=limited.url, capabilities=told) as client:
        answer = client.describe([PICTURE, WIDE], max_tokens=8)
    assert [info.tiles for info in answer.images] == [1, 5]
    assert not any("capabilities" in warning for warning in answer.warnings)
