"""``plan`` from end to end: models from the Hub, prices from Modal, reports, and its page."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from grpclib import Status
from modal_proto import api_pb2

from internvl_modal.backends.local import HUB_MODELS
from internvl_modal.cli.plan import models_text
from internvl_modal.deployment.api import deploy
from internvl_modal.errors import ConfigError, DeployError, PlanError, WeightsError
from internvl_modal.models.catalogue import MODELS
from internvl_modal.planning.api import plan
from internvl_modal.planning.memory import MIB
from internvl_modal.planning.model_lookup import model_spec
from internvl_modal.planning.prices import CATALOGUE_PRICES, live_prices
from internvl_modal.weights import WeightsCache
from tests.loopback_hub import Fault, LoopbackHub
from tests.modal_plane import Plane
from tests.test_catalog import CONFIG

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "planning.md").read_text()

# -- the page -----------------------------------------------------------------------------------


def test_examples_on_the_page_print_what_it_shows():
    examples = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, flags=re.S)
    assert len(examples) == PAGE.count("```python") == PAGE.count("```text") == 10
    names: dict[str, object] = {}
    for code, shown in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert printed.getvalue() == shown


def arithmetic(heading: str) -> dict[str, int]:
    """The rows of one table of the page: bytes as worked out, each equal to the MiB beside it."""
    table = re.search(rf"\| {heading} \|.*?\n\n", PAGE, flags=re.S)
    assert table
    rows = {}
    for name, expression, mib in re.findall(r"\| ([^|]+) \| `([^`]+)` \| ([\d,]+) \|", table[0]):
        assert re.fullmatch(r"[\d\s*+/().]+", expression)
        rows[name] = eval(expression)
        assert f"{rows[name] / MIB:,.0f}" == mib, name
    return rows


def test_the_case_worked_by_hand_is_the_programs_to_the_last_byte():
    case = plan("internvl2_5-78b", gpu="A100-80GB:4", prices="catalogue")
    memory = case.memory
    weights = list(arithmetic("Language and vision model").values())
    assert sum(weights[:3]) == memory.llm
    assert sum(weights[3:6]) == memory.vision
    assert weights[6] == memory.runtime
    work = list(arithmetic("Work").values())
    assert sum(work[:5]) == memory.engine
    assert sum(work[5:]) == memory.vision_work
    cache, used = arithmetic("Together").values()
    assert int(cache) == memory.kv
    assert used == memory.used
    for shown in (
        f"{memory.total / MIB:,.0f} MiB",
        f"{memory.free_after_weights / MIB:,.0f} MiB free",
        f"{case.spec.kv_bytes_per_token():,} bytes",
        f"{case.capacity.kv_tokens:,} tokens",
        f"{case.capacity.request_tokens:,} tokens",
        f"and {case.capacity.sessions}\nof them fit",
    ):
        assert shown in PAGE, shown


def test_the_example_runs(tmp_path):
    picture = tmp_path / "memory.png"
    command = [sys.executable, str(ROOT / "examples" / "plan.py"), "internvl2_5-8b", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    requests = plan("internvl2_5-8b", gpu="H100", prices="catalogue").settings["max_batch_size"]
    assert re.search(rf"H100 +{requests} requests at once .* USD for 1,000 pictures", done.stdout)
    assert picture.read_bytes().startswith(b"\x89PNG")


# -- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("internvl2.5-78b", "did you mean internvl2_5-78b,"),
        ("qwen2-vl", "unknown model 'qwen2-vl' (`internvl-modal plan --list` shows the catalog"),
        ("internvl3-4b", "did you mean internvl3-14b"),
    ],
)
def test_unknown_short_names_are_refused_alike_wherever_they_are_given(tmp_path, name, told):
    said = []
    for attempt, kind in (
        (plan, ConfigError),
        (partial(deploy, dry_run=True), DeployError),
        (WeightsCache(tmp_path).ensure, WeightsError),
    ):
        with pytest.raises(kind, match="unknown model") as caught:
            attempt(name)
        said.append(str(caught.value))
    assert told in said[0]
    assert len(set(said)) == 1
    assert said[0].endswith("another repository of InternVL is owner/name)")


def test_the_list_of_models_says_which_run_here():
    listed = models_text()
    names = [line.split()[0] for line in listed.splitlines()[1:]]
    assert names == list(MODELS)
    local = {line.split()[0] for line in listed.splitlines()[1:] if line.endswith("yes")}
    assert local == set(HUB_MODELS)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"budget": 0}, "budget = 0: it must be more than 0"),
        ({"budget": float("nan")}, "budget = nan"),
        ({"budget": 3, "revision": "main"}, "no model is named"),
        ({"family": "internvl3_5-8b"}, "no model is named"),
        ({"model": "internvl3-8b", "family": "internvl3-8b"}, "internvl3-8b is listed"),
        ({"model": "me/captions", "family": "mine"}, "unknown model 'mine'"),
        ({"model": "captions", "family": "internvl3-8b"}, "unknown model 'captions'"),
        ({"model": "internvl3-8b", "engine": "sglang"}, "unknown engine 'sglang'"),
        ({"model": "./captions", "family": "internvl3-8b"}, "'./captions' is not a repository's"),
        ({"model": "me/my captions", "family": "internvl3-8b"}, "is not a repository's name"),
        ({"model": "a/b/c", "family": "internvl3-8b"}, "is not a repository's name"),
        ({"budget": "3"}, "budget = '3': it must be more than 0"),
        ({"gpu": 4}, "gpu = 4"),
        ({"prompt_tokens": -1}, "prompt_tokens = -1: it must be at least 0"),
        ({"session_len": 0}, "session_len = 0: it must be at least 1"),
        ({"max_batch_size": -2}, "max_batch_size = -2: it must be at least 1"),
        ({"scaledown_window": 0}, "scaledown_window = 0: it must be at least 1"),
        ({"output_tokens": "200"}, "output_tokens = '200': it must be a number"),
        ({"memory_gib": float("inf")}, "memory_gib = inf: it must be a number"),
        ({"cache_max_entry_count": "0.5"}, "cache_max_entry_count = 0.5: it must lie between"),
    ],
)
def test_what_means_nothing_is_refused(wrong, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        plan(prices="catalogue", **wrong)


def test_a_repository_is_described_by_its_files_on_the_hub():
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"0" * 5000}
    with LoopbackHub() as hub:
        hub.commit("someone/InternVL2_5-8B-tuned", files)
        spec = model_spec("someone/InternVL2_5-8B-tuned", endpoint=hub.url)
        assert not hub.downloads("safetensors")
    assert spec.llm.params == model_spec("internvl2_5-8b").llm.params
    assert spec.disk_bytes == 5000


@pytest.mark.parametrize("files", [{"README.md": b"no config"}, {"config.json": b"{broken"}])
def test_a_repository_without_a_config_is_refused(files):
    with LoopbackHub() as hub:
        hub.commit("someone/else", files)
        with pytest.raises(ConfigError, match=r"someone/else: it has no config\.json"):
            model_spec("someone/else", endpoint=hub.url)


def test_a_repository_that_is_no_internvl_is_refused():
    config = CONFIG | {"architectures": ["LlavaForConditionalGeneration"]}
    with LoopbackHub() as hub:
        hub.commit("someone/llava", {"config.json": json.dumps(config).encode()})
        with pytest.raises(PlanError, match="not an InternVL model"):
            model_spec("someone/llava", endpoint=hub.url)


def test_the_hubs_errors_become_ours():
    with LoopbackHub() as hub:
        with pytest.raises(WeightsError, match="no such repository"):
            model_spec("someone/absent", endpoint=hub.url)
        hub.faults.append(Fault("/api/models/", status=500))
        with pytest.raises(WeightsError, match="the Hub failed"):
            model_spec("someone/absent", endpoint=hub.url)
    with pytest.raises(WeightsError, match=r"the connection to http://127\.0\.0\.1:1 failed"):
        model_spec("someone/absent", endpoint="http://127.0.0.1:1")


# -- prices -------------------------------------------------------------------------------------


class RatedPlane(Plane):
    """A workspace with prices of its own, under the names Modal gives them."""

    rates: dict[str, str]

    async def WorkspaceNameLookup(self, request: object) -> api_pb2.WorkspaceNameLookupResponse:
        return api_pb2.WorkspaceNameLookupResponse(username="tester")

    async def WorkspaceBillingRates(self, request: object) -> api_pb2.WorkspaceBillingRatesResponse:
        return api_pb2.WorkspaceBillingRatesResponse(rates=self.rates)


ASK = """
import json
from internvl_modal.planning.prices import live_prices
prices = live_prices(timeout=%s)
print(json.dumps([prices.source, dict(prices.gpus), prices.core, prices.gib]))
"""


def asked(plane: Plane, home: Path, timeout: float = 30) -> tuple[str, dict[str, float], float]:
    """What a fresh process with the plane's credentials learns."""
    done = subprocess.run(
        [sys.executable, "-c", ASK % timeout],
        env=plane.client_env(home),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    source, gpus, core, _ = json.loads(done.stdout)
    return source, gpus, core


def test_prices_are_the_workspaces_own_where_modal_answers(tmp_path):
    with RatedPlane() as plane:
        plane.rates = {
            "cpu_hour_cost": "0.04",
            "gpu_hour_cost_a10g": "1.00",
            "gpu_hour_cost_rtx6000": "2.90",
            "gpu_hour_cost_a100_80gb": "2.25",
            "gpu_hour_cost_b300": "7.10",
        }
        source, gpus, core = asked(plane, tmp_path)
    assert source.startswith("Modal's live prices of 20")
    assert (gpus["A10"], gpus["RTX-PRO-6000"], gpus["A100-80GB"], core) == (1.0, 2.9, 2.25, 0.04)
    assert gpus["H100"] == CATALOGUE_PRICES.gpus["H100"]
    assert set(gpus) == set(CATALOGUE_PRICES.gpus)


def test_the_catalogue_answers_and_says_why_where_modal_does_not(tmp_path):
    with RatedPlane() as plane:
        plane.rates = {"gpu_hour_cost_unheard_of": "1"}
        assert "no GPU in them" in asked(plane, tmp_path)[0]
        with plane.failing("WorkspaceBillingRates", Status.PERMISSION_DENIED):
            source, gpus, _ = asked(plane, tmp_path)
        assert source == f"{CATALOGUE_PRICES.source} (live prices failed: PermissionDeniedError)"
        assert gpus == CATALOGUE_PRICES.gpus
        assert "TimeoutError" in asked(plane, tmp_path, timeout=0)[0]


def test_without_credentials_nobody_is_asked(monkeypatch):
    monkeypatch.delenv("MODAL_TOKEN_ID", raising=False)
    monkeypatch.delenv("MODAL_CONFIG_PATH", raising=False)
    assert live_prices() is CATALOGUE_PRICES
    assert "2026-09-20" in plan("internvl2_5-8b").cost.assumptions[0]


def test_planning_imports_nothing_heavy():
    code = (
        "import sys\nfrom internvl_modal.planning.api import plan\n"
        "print(plan(prices='catalogue'))\n"
        "print(sorted({'modal', 'huggingface_hub', 'httpx', 'PIL', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# -- reports ------------------------------------------------------------------------------------


def test_requests_are_what_the_server_takes():
    shown = plan("internvl2_5-78b", prices="catalogue")
    for choice in shown.choices[:8]:
        taken = choice.argv[choice.argv.index("--max-batch-size") + 1]
        assert re.search(rf"^{choice.gpu_string} +{taken} ", str(shown), flags=re.M)
        assert int(taken) < choice.capacity.sessions
    assert {choice["max_batch_size"] for choice in shown.to_dict()["choices"][:8]} == {12}


def test_a_refused_plan_shows_its_numbers_and_what_works():
    text = str(plan("internvl2_5-78b", gpu="A100-80GB", prices="catalogue"))
    assert "does not fit: weights and runtime take 150,052 MiB of the 81,039 MiB" in text
    assert "What works, cheapest picture first (by the middle of the range):" in text
    assert "H200:2" in text


def test_a_plan_nothing_can_serve_shows_no_choices():
    text = str(plan("internvl2_5-8b", images_per_request=12, prices="catalogue"))
    assert "What works" not in text
    assert "one request takes" in text


def test_notebooks_get_tables_of_the_same_numbers():
    shown = plan("internvl2_5-78b", gpu="B200", prices="catalogue")
    html = shown._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 3
    assert f"<td>KV cache</td><td>{shown.memory.kv / MIB:,.0f}</td>" in html
    assert "<td>H200:2</td>" in html
    assert "Modal&#x27;s prices" in html


def test_the_picture_stacks_memory_up_to_what_is_used(tmp_path):
    refused = plan("internvl2_5-78b", gpu="A100-80GB:2", prices="catalogue")
    figure = refused.plot(tmp_path / "plan.svg")
    axes = figure.axes[0]
    ends = [patch.get_x() + patch.get_width() for patch in axes.containers[-1]]
    bars = [refused, *refused.choices[:7]]
    assert ends == pytest.approx([bar.memory.used / 2**30 for bar in bars])
    assert axes.get_yticklabels()[0].get_text() == "A100-80GB:2 (does not fit)"
    assert "<svg" in (tmp_path / "plan.svg").read_text()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_names_the_extra():
    code = (
        "import sys\nsys.modules['matplotlib'] = None\n"
        "from internvl_modal.errors import MissingExtraError\n"
        "from internvl_modal.planning.api import plan\n"
        "try:\n    plan(prices='catalogue').plot()\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "internvl-modal[plot]" in done.stdout


@pytest.mark.parametrize("gpu", [["T4", "A10", "L40S"], ("T4", "A10", "L40S"), "T4, A10,L40S"])
def test_of_several_gpus_the_cheapest_that_works(gpu):
    made = plan("internvl3_5-8b", gpu=gpu, prices="catalogue")
    assert [choice.gpu_string for choice in made.choices] == ["L40S", "A10"]
    assert (made.fits, made.gpu_string) == (True, "L40S")
    alone = plan("internvl3_5-8b", gpu="L40S", prices="catalogue")
    assert made.cost == alone.cost
    best = plan(budget=5, gpu=["L4", "L40S"], prices="catalogue")
    assert {other.gpu_string for other in best.alternatives} <= {"L4", "L40S"}


def test_several_gpus_of_which_none_works():
    made = plan("internvl2_5-78b", gpu=["T4", "L4"], prices="catalogue")
    assert (made.fits, made.gpu_string) == (False, "T4")
    assert made.choices, "what works elsewhere"


@pytest.mark.parametrize("gpu", [3, ["L4", 3], ["L4", ""], "L4,"])
def test_gpus_that_are_none(gpu):
    with pytest.raises(ConfigError, match=r"gpu = |unknown GPU"):
        plan("internvl3_5-8b", gpu=gpu, prices="catalogue")
