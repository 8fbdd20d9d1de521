"""Every command line, given to the engine's own parser: what it understands is what was meant."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from internvl_modal.engines.base import EngineOptions
from internvl_modal.engines.lmdeploy import LMDeploy018Options, LMDeployOptions
from internvl_modal.engines.registry import ENGINES
from internvl_modal.engines.vllm import VLLMOptions
from tests.conformance.environment import standin
from tests.environments import REPOSITORY, ensure

LMDEPLOY = """
import json, runpy, sys
runpy.run_path(sys.argv[1], run_name="standin")
from lmdeploy.cli.cli import CLI
from lmdeploy.cli.serve import SubCliServe
if not CLI.subparsers.choices.get("serve") or "api_server" not in str(CLI.subparsers.choices):
    SubCliServe.add_parsers()
known = CLI.subparsers.choices["serve"]._actions[-1].choices["api_server"]._option_string_actions
print(json.dumps(sorted(known)))
for argv in json.load(sys.stdin):
    print(json.dumps({k: v for k, v in vars(CLI.parser.parse_args(argv)).items() if k != "run"}))
"""
VLLM = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
print(json.dumps(sorted(parser._option_string_actions)))
for argv in json.load(sys.stdin):
    print(json.dumps(vars(parser.parse_args(argv[1:])), default=str))
"""
COMMON: list[dict[str, object]] = [
    {"model": "/weights/1f"},
    {"model": "/weights/1f", "api_keys": ["-leading-dash"]},
    {"model": "OpenGVLab/InternVL3-8B", "api_keys": ["a", "b"], "tp": 4},
    {
        "model": "/weights/a b",
        "model_name": "internvl",
        "tp": 4,
        "session_len": 16384,
        "max_batch_size": 32,
        "quant_policy": 8,
        "server_name": "127.0.0.1",
        "server_port": 8000,
    },
]
SHARE: dict[str, object] = {
    "cache_max_entry_count": 0.55,
    "vision_max_batch_size": 16,
    "log_level": "INFO",
}
GIVEN: dict[type[EngineOptions], list[dict[str, object]]] = {
    LMDeployOptions: [
        *COMMON,
        {**COMMON[-1], **SHARE, "chat_template": "internvl2-internlm2"},
        {"model": "OpenGVLab/InternVL2_5-78B-AWQ", "model_format": "awq"},
    ],
    LMDeploy018Options: [
        *COMMON,
        {**COMMON[-1], **SHARE},
        {"model": "OpenGVLab/InternVL3-78B-AWQ", "model_format": "awq"},
        {"model": "OpenGVLab/InternVL3_5-8B-Flash"},
        {"model": "/w/InternVL3_5-8B-Flash/0123456789ab", "model_name": "internvl3_5-8b-flash"},
    ],
    VLLMOptions: [*COMMON, {**COMMON[-1], "gpu_memory_utilization": 0.85}],
}
VLLMS_NAMES = {
    "host": "server_name",
    "port": "server_port",
    "tensor_parallel_size": "tp",
    "max_model_len": "session_len",
    "max_num_seqs": "max_batch_size",
    "gpu_memory_utilization": "gpu_memory_utilization",
}


def parsed(engine: type[EngineOptions], lines: list[list[str]]) -> list[object]:
    """What the engine's parser knows, then what it makes of each command line."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if engine is VLLMOptions:
        folder = REPOSITORY / "tests" / "vllm"
        python = ensure("vllm")
        environment["PYTHONPATH"] = str(folder / "standin")
        command = [str(python), "-c", VLLM]
    else:
        version = {"lmdeploy-0.7.3": "0.7.3", "lmdeploy": "0.18.0"}[engine.engine]
        python = ensure(f"lmdeploy-{version}")
        command = [str(python), "-c", LMDEPLOY, str(standin(version) / "lmdeploy_standin.py")]
    done = subprocess.run(
        command,
        input=json.dumps(lines),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()[-len(lines) - 1 :]]


def expected(options: EngineOptions) -> dict[str, object]:
    """The options in the parser's words."""
    told: dict[str, object]
    keys = [key.get_secret_value() for key in options.api_keys] or None
    if isinstance(options, VLLMOptions):
        ours = options.model_dump()
        told = {theirs: ours[mine] for theirs, mine in VLLMS_NAMES.items()}
        told["served_model_name"] = [options.model_name] if options.model_name else None
        told["kv_cache_dtype"] = "fp8" if options.quant_policy else "auto"
        told |= {"model_tag": options.model, "api_key": keys, "max_num_batched_tokens": 8192}
        return told | {"trust_request_mm_kwargs": True, "trust_remote_code": True}
    told = options.model_dump(exclude={"model", "api_keys"})
    told |= {"model_path": options.model, "api_keys": keys}
    if isinstance(options, LMDeploy018Options):
        flash = "Flash" in options.model
        told |= {"trust_remote_code": True, "backend": "pytorch" if flash else "turbomind"}
    return told


ENABLED = "INTERNVL_MODAL_TEST_CONFORMANCE"
VLLM_ENABLED = "INTERNVL_MODAL_TEST_VLLM"


def needs(switch: str, mark: pytest.MarkDecorator) -> list[pytest.MarkDecorator]:
    reason = f"needs the engine's own environment; set {switch}=1"
    return [mark, pytest.mark.skipif(os.environ.get(switch) != "1", reason=reason)]


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(LMDeployOptions, marks=needs(ENABLED, pytest.mark.conformance)),
        pytest.param(LMDeploy018Options, marks=needs(ENABLED, pytest.mark.conformance)),
        pytest.param(VLLMOptions, marks=needs(VLLM_ENABLED, pytest.mark.vllm)),
    ],
)
def test_command_lines_mean_the_same_to_the_engine(engine: type[EngineOptions]) -> None:
    """And each option that is named as one of ours or as a further one is an option of it."""
    options = [engine.parse(**given) for given in GIVEN[engine]]  # type: ignore[arg-type]
    known, *lines = parsed(engine, [each.argv()[1:] for each in options])
    for ours, theirs in zip(options, lines, strict=True):
        assert isinstance(theirs, dict)
        assert {name: theirs[name] for name in expected(ours)} == expected(ours)
    assert isinstance(known, list)
    assert {*engine.ours, *engine.further} <= set(known)
    assert not {*engine.ours} & {*engine.further}


@pytest.mark.parametrize("engine", ENGINES.values())
def test_what_an_engine_says_of_itself(engine: type[EngineOptions]) -> None:
    options = engine.parse(model="m", api_keys=["s3cret"])
    assert options.argv("/opt/x")[0] == "/opt/x"
    assert options.argv()[0] == engine.program
    assert options.argv()[-1].endswith("=s3cret")
    assert "s3cret" not in repr(options) + str(options) + " ".join(options.command())
    assert ":" in engine.image
    assert engine.capabilities("internvl3-8b").dialect == engine.dialect


def test_where_the_engines_are_told_apart() -> None:
    old, new, vllm = (
        engine(model="OpenGVLab/InternVL3_5-8B").command() for engine in ENGINES.values()
    )
    assert "--chat-template" in old
    assert "--trust-remote-code" not in old
    assert "--chat-template" not in new
    assert new[-1] == "--trust-remote-code"
    assert vllm[-1] == "--trust-request-mm-kwargs"
    assert LMDeployOptions.build(flash_attention=True)[-1].endswith("linux_x86_64.whl'")
    assert len(LMDeployOptions.build(flash_attention=False)) == 1
    assert LMDeploy018Options.build(flash_attention=True) == ()
    assert VLLMOptions.caches
    assert VLLMOptions.capabilities("internvl3_5-8b").tiles_by_request is True
    assert VLLMOptions.capabilities("internvl3_5-8b-hf").tiles_by_request is False
