"""What LMDeploy 0.18 makes of each kind of InternVL repository: prompts and tiles."""

from __future__ import annotations

import base64
import random

import pytest
from PIL import Image

from tests.conformance.environment import NEW
from tests.conformance.pictures import encoded, scene
from tests.conformance.serving import Front, Servers
from tests.conformance.standin.prompts import INTERNVL, QWEN

REPOSITORIES = {
    "InternVL3-8B": INTERNVL,
    "InternVL3-8B-first": QWEN,
    "InternVL3_5-8B": None,
    "InternVL3_5-8B-HF": None,
}
"""Each with the system message that its template inserts; see ``template_of`` of the stand-in."""


@pytest.fixture(params=REPOSITORIES)
def repository(request: pytest.FixtureRequest, servers: Servers) -> Front:
    """LMDeploy 0.18.0 serving it."""
    return servers.get(NEW, request.param)


def data_url(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(encoded(picture, "PNG")).decode()


@pytest.mark.parametrize("system", [None, "You judge colours.", ""])
def test_the_system_message_of_the_template(
    request: pytest.FixtureRequest, repository: Front, system: str | None
) -> None:
    """Without the client: one that is given stands alone, an empty one too."""
    inserted = REPOSITORIES[request.node.callspec.params["repository"]]
    messages = [{"role": "user", "content": "Hello?"}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    repository.post({"model": repository.model, "messages": messages}).raise_for_status()
    expected = inserted if system is None else system
    turns = [] if expected is None else [("system", expected)]
    assert repository.seen().turns == [*turns, ("user", "Hello?")]


@pytest.mark.parametrize("system", ["You judge colours.", INTERNVL])
def test_a_system_message_means_the_same_everywhere(repository: Front, system: str) -> None:
    repository.client.describe(scene(), "What is this?", system=system)
    assert repository.seen().turns == [
        ("system", system),
        ("user", f"{repository.mark}\nWhat is this?"),
    ]


def test_a_limit_of_tiles_is_for_repositories_without_hf(
    request: pytest.FixtureRequest, repository: Front
) -> None:
    """Without the client: ``-HF`` ones cut as their own configuration says, whatever is asked."""
    picture = {"url": data_url(scene().resize((1344, 896)))}
    tiles = []
    for limit in ({}, {"max_dynamic_patch": 1}, {"max_dynamic_patch": 2}, {"detail": "low"}):
        content = [
            {"type": "text", "text": "?"},
            {"type": "image_url", "image_url": picture | limit},
        ]
        repository.ask(content).raise_for_status()
        tiles.append(len(repository.seen().images[0].tiles))
    hf = request.node.callspec.params["repository"].endswith("-HF")
    assert tiles == ([7, 7, 7, 7] if hf else [7, 1, 3, 7])


def sizes() -> list[tuple[int, int]]:
    """Thirty: exact ratios, where grids tie, and others."""
    made = random.Random(30)
    others = [(made.randint(30, 2500), made.randint(30, 2500)) for _ in range(22)]
    ties = [(448, 448), (896, 896), (897, 897), (1344, 1344), (2000, 1000), (900, 1800)]
    return [*ties, (4000, 500), (500, 4000), *others]


def test_tiles_and_tokens_of_thirty_sizes(repository: Front) -> None:
    """What the client counts before sending is what each kind of repository cuts."""
    assert len(sizes()) == 30
    for size in sizes():
        described = repository.client.describe(Image.new("RGB", size, "red"))
        seen = repository.seen()
        (info,) = described.images
        assert len(seen.images[0].tiles) == info.tiles, size
        assert seen.prompt_tokens == described.usage.prompt_tokens
        assert seen.prompt_tokens - 256 * info.tiles < 250
