"""llama.cpp's HTTP server as a process of its own, started by the local backend.

Run as ``python -m internvl_modal.engines.llamacpp_main CONFIG`` with CONFIG in JSON; the key
comes in the environment. The address is written to standard output once it answers.

A process of its own because llama.cpp aborts where its memory does not suffice or a file is
damaged: that must not take the caller's Python with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

ADDRESS = "internvl-modal engine at "
"""The parent looks for it at the start of a line: llama.cpp writes its own log between."""
KEY_VARIABLE = "INTERNVL_MODAL_ENGINE_KEY"
"""In the environment and taken out at once: other users see command lines, and a child of this
process has no need of the key.
"""
SMALL = 64 * 2**20
"""Bytes; the steps of a smaller model take less time than threads need to meet after each."""


def main() -> None:
    """Serve until a signal ends the process."""
    import xllamacpp

    config = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = config["model"]
    params.mmproj.path = config["mmproj"]
    # A set of names: a bare string would be taken apart into its letters.
    params.model_alias = {config["name"]}
    params.n_ctx = config["n_ctx"]
    # Slots divide the context among them; a second one would leave no room for a picture of 13
    # tiles.
    params.n_parallel = 1
    params.n_gpu_layers = config["n_gpu_layers"]
    if Path(config["model"]).stat().st_size < SMALL:  # else they wait for one held up by other work
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.api_keys = [os.environ.pop(KEY_VARIABLE)]
    # The system picks a free port: one that was looked for beforehand may be taken by then.
    params.port = 0
    # An empty run before the first request only delays it: nobody is served meanwhile.
    params.warmup = False
    params.ui = False
    params.verbosity = 1
    server = xllamacpp.Server(params)
    print(ADDRESS + server.listening_address, flush=True)  # noqa: T201 - read by the parent
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
