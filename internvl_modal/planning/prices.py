"""Prices of Modal's GPUs, cores and memory: today's where they can be had.

Prices change and differ between workspaces, so Modal's own rates win wherever there are credentials
to ask with. A plan must also work without an account and without a network: then the dated prices
below stand in, and the report says which they were.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from internvl_modal.planning.cost import Prices

CATALOGUE_PRICES = Prices(
    gpus={
        "T4": 0.59,
        "L4": 0.80,
        "A10": 1.10,
        "L40S": 1.95,
        "A100-40GB": 2.10,
        "A100-80GB": 2.50,
        "RTX-PRO-6000": 3.03,
        "H100": 3.95,
        "H200": 4.54,
        "B200": 6.25,
    },
    core=0.0473,
    gib=0.008,
    source="Modal's prices of 2026-09-20",
)
"""USD an hour, without a region's surcharge; the core and the GiB are Modal's prices by the
second (0.0000131 and 0.00000222) times 3,600. To bring them up to date change the date in
``source`` as well: it is printed with every plan.
"""


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

    The thread is left alone when time is up, and does no harm: it only puts its answer into a list
    that nobody reads any more.
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
    # A renamed key would otherwise leave all prices at the catalogue's and call them live.
    if not gpus:
        return _catalogue_because("no GPU in them")
    return Prices(
        gpus={**CATALOGUE_PRICES.gpus, **gpus},
        core=rates.get(_CORE, CATALOGUE_PRICES.core),
        gib=rates.get(_GIB, CATALOGUE_PRICES.gib),
        source=f"Modal's live prices of {date.today()}",
    )


def _ask_rates(answers: list[Mapping[str, float] | Exception]) -> None:
    """Put Modal's rates, or why there are none, into ``answers``."""
    try:
        from modal import Workspace

        rates = Workspace.from_context().billing.rates()
        answers.append({key: float(value) for key, value in rates.items()})
    except Exception as error:  # noqa: BLE001 - handed to the thread that asked
        answers.append(error)


def _credentials() -> bool:
    """Whether Modal's client would find any, without importing it.

    Importing it takes half a second, which a plan without an account should not pay.
    """
    config = os.environ.get("MODAL_CONFIG_PATH") or Path.home() / ".modal.toml"
    return bool(os.environ.get("MODAL_TOKEN_ID")) or Path(config).is_file()


def _catalogue_because(cause: str) -> Prices:
    known = CATALOGUE_PRICES
    source = f"{known.source} (live prices failed: {cause})"
    return Prices(known.gpus, known.core, known.gib, source)
