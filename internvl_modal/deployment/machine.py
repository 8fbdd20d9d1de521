"""Which of the planned machines a container finds itself on. Standard library only.

Modal takes the first GPUs of a list that are free, and may give better ones than were asked for
("H100" as H200). It does not tell which; the driver does.
"""

from __future__ import annotations

import re
import subprocess  # nosec B404  # a list of arguments, never a shell
from collections.abc import Sequence
from typing import Any

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


def find_machine(machines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one whose settings fit the GPUs that are here; raises DeployError.

    Nothing is asked where there is no choice. Where there is one, the requests at once that the
    container takes are set too: the deployment allows as many as the largest machine does.
    """
    if len(machines) == 1:
        return machines[0]
    chosen = choose(machines, _gpus())
    most = chosen["settings"].get("max_batch_size")
    if most is not None:
        import modal.experimental

        modal.experimental.set_local_input_concurrency(most)
    return chosen


def choose(machines: Sequence[dict[str, Any]], found: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The machine of that many GPUs that is called the same, else the largest that has room there.

    ``found`` are the driver's names and bytes.

    >>> plans = [{"gpu": "H100:2", "memory": 79}, {"gpu": "A100-80GB:2", "memory": 79}]
    >>> choose(plans, [("NVIDIA A100-SXM4-80GB", 80)] * 2)["gpu"]
    'A100-80GB:2'
    """
    from internvl_modal.errors import DeployError

    name, memory = found[0] if found else ("no GPU", 0)
    # The driver's total is a little more than what a program finds, so a machine fits its own GPU.
    fitting = [
        each for each in machines if _count(each["gpu"]) == len(found) and each["memory"] <= memory
    ]
    if not fitting:
        planned = ", ".join(each["gpu"] for each in machines)
        raise DeployError(f"planned for {planned}, and here is {len(found)} x {name}")
    words = set(re.split(r"[^A-Z0-9]+", name.upper()))
    # The type's name without its memory: "A100-80GB" is "NVIDIA A100-SXM4-80GB" to the driver.
    return max(
        fitting, key=lambda each: (re.split(r"[-:!]", each["gpu"])[0] in words, each["memory"])
    )


def _count(gpu: str) -> int:
    return int(gpu.partition(":")[2] or 1)


def _gpus() -> list[tuple[str, int]]:
    """Name and bytes of each GPU, as the driver tells them; raises DeployError."""
    from internvl_modal.errors import DeployError

    try:
        done = subprocess.run(  # nosec B603
            QUERY, capture_output=True, text=True, check=True, timeout=60
        )
        rows = [line.rpartition(",") for line in done.stdout.splitlines() if line.strip()]
        return [(name.strip(), int(mib) * 2**20) for name, _, mib in rows]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise DeployError(f"the driver does not tell its GPUs: {error}") from error
