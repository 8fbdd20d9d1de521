"""An engine's own command, with arguments that no list of processes shows.

LMDeploy takes its keys on its command line only, and vLLM more than one. Run by the engine's
Python, which need not have this package, as ``python server_main.py SCRIPT ARGUMENT...``; the rest
of the arguments comes in the environment, as JSON. Standard library only.
"""

from __future__ import annotations

import json
import os
import runpy
import sys

ARGUMENTS = "INTERNVL_MODAL_ENGINE_ARGUMENTS"
"""Removed from the environment before the engine starts, since its workers would inherit it."""


def main() -> None:
    """Become the engine's command.

    ``runpy`` runs the script in this process: an ``exec`` would put the arguments back on a command
    line. What ``ps`` shows stays what the kernel was given at the start.
    """
    script, *arguments = sys.argv[1:]
    sys.argv = [script, *arguments, *json.loads(os.environ.pop(ARGUMENTS))]
    # Python puts this file's folder first, where lmdeploy.py and vllm.py would stand before them.
    sys.path[0] = os.path.dirname(script)  # noqa: PTH120 - nothing but what every Python has
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
