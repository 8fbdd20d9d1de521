"""``plan``: look the model and the prices up, then plan."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Literal

from internvl_modal.catalog import ModelSpec, find_model, spec_from_config, unknown_model
from internvl_modal.costs import CORES, HOST_GIB
from internvl_modal.errors import ConfigError
from internvl_modal.gpus import CATALOGUE_PRICES, Prices, parse_gpu
from internvl_modal.planner import Plan, Request, make_plan
from internvl_modal.settings import Settings

__all__ = ["live_prices", "model_spec", "plan"]


def plan(
    model: str = "internvl2_5-78b",
    *,
    revision: str | None = None,
    gpu: str | None = None,
    images_per_request: int = 1,
    max_tiles: int = 12,
    prompt_tokens: int = 100,
    output_tokens: int = 200,
    session_len: int | None = None,
    max_batch_size: int | None = None,
    cache_max_entry_count: float | None = None,
    quant_policy: int = 0,
    vision_max_batch_size: int = 1,
    scaledown_window: int = 300,
    cpu: float = CORES,
    memory_gib: float = HOST_GIB,
    budget: float | None = None,
    prices: Literal["auto", "catalogue"] | Prices = "auto",
) -> Plan:
    """Say whether a model runs on ``gpu``, or without it which GPUs serve it cheapest.

    ``model`` is a short name or a repository id, read at ``revision``, ``gpu`` Modal's string
    (``"H200:2"``), ``budget`` USD an hour, ``scaledown_window`` seconds, ``cpu`` and ``memory_gib``
    the host's share of the machine. ``prices="auto"`` asks Modal when there are credentials. The
    plan returned may not fit: see ``.fits`` and ``.require()``. Raises ConfigError for an unknown
    model or GPU, WeightsError where the Hub cannot be asked for one that is not in the catalog,
    PlanError where LMDeploy could not load it.
    """
    request = Request(
        images_per_request=images_per_request,
        max_tiles=max_tiles,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        session_len=session_len,
        max_batch_size=max_batch_size,
        cache_max_entry_count=cache_max_entry_count,
        quant_policy=quant_policy,
        vision_max_batch_size=vision_max_batch_size,
        scaledown_window=scaledown_window,
        cpu=cpu,
        memory_gib=memory_gib,
    )
    chosen = parse_gpu(gpu) if gpu else None
    spec = model_spec(model, revision=revision)
    if not isinstance(prices, Prices):
        prices = live_prices() if prices == "auto" else CATALOGUE_PRICES
    return make_plan(spec, request, prices, gpu=chosen, budget=budget)


def model_spec(
    model: str, *, revision: str | None = None, endpoint: str | None = None
) -> ModelSpec:
    """Find a model in the catalog, or describe a repository from its files on the Hub."""
    if found := find_model(model):
        return found
    if "/" not in model:
        raise unknown_model(model)
    config, sizes = _read_repository(model, revision or "main", endpoint)
    return spec_from_config(model, config, sizes)


class _InMemory(BytesIO):
    """A sink for one small file of the Hub."""

    name = "config.json"

    def restart(self) -> None:
        """Begin again."""
        self.seek(0)
        self.truncate()


def _read_repository(
    model: str, revision: str, endpoint: str | None
) -> tuple[Mapping[str, object], Mapping[str, int]]:
    from internvl_modal.weights.hub import Hub, explain

    token = Settings.load().hf_token
    hub = Hub(token.get_secret_value() if token else None, endpoint)
    sink = _InMemory()
    try:
        repository = hub.repository(model, revision)
        sizes = {file.path: file.size for file in repository.files}
        for file in repository.files:
            if file.path == "config.json":
                hub.fetch(repository, file, sink, 0)
    except Exception as error:
        if told := explain(error, model, revision, None, hub):
            raise told from error
        raise
    try:
        config = json.loads(sink.getvalue())
    except ValueError as error:
        raise ConfigError(f"{model}: it has no config.json that can be read") from error
    return config, sizes


# The keys of Modal's billing rates, all USD an hour; GPU types are spelt in a way of their own.
_CORE, _GIB = "cpu_hour_cost", "mem_gib_hour_cost"
_SPELLING = {"A10": "a10g", "RTX-PRO-6000": "rtx6000"}
_GPUS = {
    name: "gpu_hour_cost_" + _SPELLING.get(name, name.lower().replace("-", "_"))
    for name in CATALOGUE_PRICES.gpus
}


def live_prices(*, timeout: float = 10.0) -> Prices:
    """Ask Modal for the workspace's rates; the catalogue's, saying why, where that fails.

    Modal's own client tries for a minute where nothing answers; ``timeout`` is in seconds.
    """
    if not _credentials():
        return CATALOGUE_PRICES
    answers: list[Mapping[str, float] | Exception] = []
    thread = threading.Thread(target=_ask_rates, args=(answers,), daemon=True)
    thread.start()
    thread.join(timeout)
    rates = answers[0] if answers else TimeoutError()
    if isinstance(rates, Exception):
        return _catalogue_because(type(rates).__name__)
    gpus = {name: rates[key] for name, key in _GPUS.items() if key in rates}
    if not gpus:
        return _catalogue_because("no GPU in them")
    return Prices(
        gpus={**CATALOGUE_PRICES.gpus, **gpus},
        core=rates.get(_CORE, CATALOGUE_PRICES.core),
        gib=rates.get(_GIB, CATALOGUE_PRICES.gib),
        source=f"Modal's live prices of {date.today()}",
    )


def _ask_rates(answers: list[Mapping[str, float] | Exception]) -> None:
    try:
        from modal import Workspace

        rates = Workspace.from_context().billing.rates()
        answers.append({key: float(value) for key, value in rates.items()})
    except Exception as error:  # noqa: BLE001 - handed to the thread that asked
        answers.append(error)


def _credentials() -> bool:
    """Whether Modal's client would find any, without importing it."""
    config = os.environ.get("MODAL_CONFIG_PATH") or Path.home() / ".modal.toml"
    return bool(os.environ.get("MODAL_TOKEN_ID")) or Path(config).is_file()


def _catalogue_because(cause: str) -> Prices:
    known = CATALOGUE_PRICES
    source = f"{known.source} (live prices failed: {cause})"
    return Prices(known.gpus, known.core, known.gib, source)
