"""Start ``ensure`` again and again in fresh processes, without paying for the imports each time.

Reads JSON lists ``[root, endpoint, model]`` from stdin; for each it forks, prints the child's
process id, and when the child has ended its line: the files, an error, or nothing where it was
killed. What a child says of waiting goes to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys

import huggingface_hub.hf_api
import huggingface_hub.utils  # noqa: F401

from internvl_modal.errors import WeightsError, WeightsInterruptedError
from internvl_modal.weights import WeightsCache, install  # noqa: F401


def ensure(root: str, endpoint: str, model: str) -> str:
    try:
        snapshot = WeightsCache(root, endpoint=endpoint).ensure(model, progress=None)
    except WeightsInterruptedError as error:
        return f"interrupted: {error}"
    except WeightsError as error:
        return f"error: {error}"
    return f"complete: {len(snapshot.files)}"


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger().handlers[0].addFilter(lambda record: "waiting" in record.getMessage())
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.write(writer, ensure(*json.loads(line)).encode())
            os._exit(0)
        os.close(writer)
        print(child, flush=True)
        with os.fdopen(reader) as result:
            answer = result.read()
        os.waitpid(child, 0)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
