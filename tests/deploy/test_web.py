"""What the container of the REST endpoint knows of the model behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from internvl_modal.deployment.container_config import KEY, ContainerConfig
from internvl_modal.deployment.design import MOST_TILES, make_spec
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.images.tiles import MAX_TILES
from internvl_modal.planning.api import plan

MADE = """
import json
from internvl_modal.deployment.containers import web_process_image
from internvl_modal.deployment import containers

app = web_process_image()
(limits,) = [each.kwargs["limits"] for each in app.user_middleware if "limits" in each.kwargs]
known = containers._backend(containers.ContainerConfig.from_environment()).preview()
costs = [known.price.picture_cost(tiles) for tiles in (1, 7, 41, 82)]
print(json.dumps([limits.requests, known.sessions, known.startup, costs]))
"""


@pytest.mark.parametrize("gpu", ["T4", "H100"])
def test_it_takes_twice_what_the_engine_answers_at_once(gpu: str) -> None:
    planned = plan("internvl2_5-1b", gpu=gpu, prices="catalogue")
    made = make_spec(DeployOptions(model="internvl2_5-1b", gpu=gpu), [planned])
    sessions = planned.capacity.sessions
    done = subprocess.run(
        [sys.executable, "-c", MADE],
        env={**os.environ, **made.container.to_environment(), KEY: "k" * 32},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found[:3] == [2 * sessions, sessions, list(planned.startup_seconds)]
    one, seven, most, two = found[3]
    assert len(made.container.picture_usd) == MOST_TILES == MAX_TILES + 1
    assert [one, seven, most] == [list(planned.picture_cost(tiles)) for tiles in (1, 7, 41)]
    assert two == [2 * each for each in most]
    web = made.function("web_process_image").web
    assert web is not None
    assert web.concurrency <= 2 * sessions


def test_containers_of_older_deployments_know_nothing() -> None:
    known = ContainerConfig("a", None, "o/m", None, "m", "v", 60, "lmdeploy", ())
    assert (known.sessions, known.startup, known.picture_usd) == (None, None, ())
