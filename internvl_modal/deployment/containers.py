"""What runs in Modal's containers: plain functions, configured by the environment.

Modal imports this module by name in each container, so at import it needs the standard library
only.

Everything else is imported inside the functions: the module is imported by three kinds of
containers with different packages, and an import that fails there kills a container without a word.
State lives in the process only; Modal may start and end one at any time.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_modal.deployment.container_config import (
    BUCKET,
    KEY,
    NOT_THE_ENGINES,
    PORT,
    PRELOAD,
    VERSION_KEY,
    VOLUMES,
    ContainerConfig,
)
from internvl_modal.deployment.machine import find_machine
from internvl_modal.deployment.watchdog import Watchdog, ask_one_token, end_container

if TYPE_CHECKING:
    from fastapi import FastAPI

    from internvl_modal.deployment.served_app import ServedApp
    from internvl_modal.engines.server_process import EngineServer
    from internvl_modal.weights.progress import DownloadProgress


if os.environ.get(PRELOAD):
    # In a container of which Modal takes a snapshot: what is imported now need not be imported at
    # any later start.
    for module in ("client.aio", "deployment.served_app", "gateway.app"):
        import_module(f"internvl_modal.{module}")


def serve() -> None:
    """Start the engine on the cached weights, wait for it, show it a picture, and watch over it.

    Returns once the server answers; Modal then sends requests to its port. Whatever is raised
    before ends the container, and Modal starts another, so that the cause must be in the log.
    """
    _log_to_stdout()
    config = ContainerConfig.from_environment()
    from internvl_modal.engines.registry import engine_of
    from internvl_modal.weights.cache import WeightsCache

    _tell(config, "checking the weights")
    cache = WeightsCache.volume(config.volume, environment=config.environment)
    # Offline: a container that serves has no Hub token, and must not begin a download of 157 GB
    # while a GPU is paid for.
    weights = cache.ensure(config.model, config.revision, offline=True, progress=None)
    machine = find_machine(config.machines)
    _tell(
        config,
        f"loading the weights on {machine['gpu']}; {config.engine} runs the Python code of "
        f"{config.model} at commit {weights.commit}",
    )
    # Made before the server, as it reads the log from its first line on.
    dog = Watchdog(
        engine_of(config.engine).program,
        liveness=config.liveness,
        ask=partial(ask_one_token, PORT, os.environ[KEY], config.served, config.liveness),
        look=partial(_show_a_picture, config),
    )
    settings = {**machine["settings"], "model": str(weights)}
    server = _start_engine(config, settings, dog.heed)
    _tell(config, "warming up")
    _show_a_picture(config)
    dog.begin()
    # A thread: ``serve`` must return for Modal to open the port.
    threading.Thread(target=_watch_over, args=(server, dog), daemon=True).start()


def web_process_image() -> FastAPI:
    """The REST endpoint, in front of this app's own ``serve``.

    Its client waits as long as a cold start and a request together: the gateway is up in a moment,
    the model behind it is not.
    """
    _log_to_stdout()
    config = ContainerConfig.from_environment()
    from internvl_modal.client.aio import AsyncClient
    from internvl_modal.gateway.app import create_app

    client = AsyncClient(_backend(config), timeout=config.startup_timeout + 600)
    return create_app(client, api_key=os.environ[KEY])


def download_weights() -> Iterator[dict[str, Any]]:
    """Put the weights on the Volume, telling of the progress; the last item names the commit.

    A generator, so that the machine which deploys can show how far it is. The download itself is in
    a thread, and its events come through a queue: a slow reader must not hold it up.
    """
    _log_to_stdout()
    config = ContainerConfig.from_environment()
    events: queue.SimpleQueue[DownloadProgress | str | Exception] = queue.SimpleQueue()
    threading.Thread(target=_download, args=(config, events.put), daemon=True).start()
    while not isinstance(event := events.get(), str | Exception):
        yield asdict(event)
    if isinstance(event, Exception):
        raise event
    yield {"commit": event}


def list_bucket() -> list[str]:
    """Paths of the files in the mounted folder of a bucket; raises DeployError."""
    from internvl_modal.errors import DeployError

    def fail(error: OSError) -> None:
        hint = "look at the bucket's name and the rights that its Secret gives"
        raise DeployError(f"the bucket cannot be read: {error}", hint=hint) from error

    return sorted(
        os.path.relpath(f"{folder}/{name}", BUCKET)
        for folder, _, names in os.walk(BUCKET, onerror=fail)
        for name in names
    )


def describe_part(part: dict[str, Any]) -> dict[str, int]:
    """Describe files of a Volume or bucket through this app's ``serve``.

    All lines are written, but only those with a text when something ends it before: then the
    others are asked for again.

    ``part`` is plain data (keys, where they lie, prompt, options), as it travels pickled. Returns
    counts; the texts lie on the Volume.
    """
    _log_to_stdout()
    config = ContainerConfig.from_environment()
    from internvl_modal.client.sync import Client
    from internvl_modal.deployment.map_budget import left_in
    from internvl_modal.errors import SpendLimitError

    pairs = ((key, part["folder"] + key.removeprefix(part["address"])) for key in part["keys"])
    counts = {"described": 0, "failed": 0, "left": len(part["keys"])}
    paid = left_in(part["budget"])
    if paid is None:
        return counts
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "part.jsonl")
        try:
            with Client(_backend(config), timeout=config.startup_timeout + 600) as client:
                for outcome in client.describe_many(
                    pairs, part["prompt"], out=lines, **{**part["options"], **paid}
                ):
                    counts["described" if outcome.ok else "failed"] += 1
                    counts["left"] -= 1
        except SpendLimitError:
            if lines.exists():
                _put(lines, part["out"], config, with_errors=False)
            return counts
        # Also when Modal ends the container: what has been answered is paid for and must be kept.
        except BaseException:
            if lines.exists():
                _put(lines, part["out"], config, with_errors=False)
            raise
        _put(lines, part["out"], config, with_errors=True)
    return counts


def _put(lines: Path, out: str, config: ContainerConfig, *, with_errors: bool) -> None:
    """Copy lines of a batch to a Volume, and commit: nobody sees them before that.

    Without errors where the part has not ended by itself: they may be of the interruption.
    """
    import modal

    from internvl_modal.batch.sinks.files import create
    from internvl_modal.batch.sinks.lines import read_lines

    target = Path(VOLUMES, out)
    target.parent.mkdir(parents=True, exist_ok=True)
    with create(target) as file:
        file.writelines(line.raw for line in read_lines(lines) if with_errors or not line.failed)
    volume = out.partition("/")[0]
    modal.Volume.from_name(volume, environment_name=config.environment).commit()


def _backend(config: ContainerConfig) -> ServedApp:
    """The app's own model.

    Modal's client in a container may look its own workspace up without a token.
    """
    from internvl_modal.credentials import proxy_token
    from internvl_modal.deployment.served_app import PicturePrices, ServedApp
    from internvl_modal.settings import Settings

    return ServedApp(
        config.app,
        environment=config.environment,
        model=config.served,
        engine=config.engine,
        api_key=os.environ[KEY],
        proxy=proxy_token(Settings.load()),
        # Of the plan what a container needs: how many to ask at once, and how long a start takes.
        sessions=config.sessions,
        startup=config.startup and (config.startup[0], config.startup[1]),  # JSON has lists
        price=PicturePrices(config.picture_usd) if config.picture_usd else None,
    )


def _download(
    config: ContainerConfig, tell: Callable[[DownloadProgress | str | Exception], None]
) -> None:
    from internvl_modal.weights.cache import WeightsCache

    try:
        cache = WeightsCache.volume(config.volume, environment=config.environment)
        # A text, the commit, is the last thing told; everything before it is progress.
        tell(cache.ensure(config.model, config.revision, progress=tell).commit)
    except Exception as error:  # noqa: BLE001 - raised in the thread that waits
        tell(error)


def _start_engine(
    config: ContainerConfig, settings: dict[str, Any], on_line: Callable[[str], None]
) -> EngineServer:
    """The engine, ready to answer on all interfaces.

    ``settings`` name the folder of the weights: the engine must not ask the Hub.
    """
    from internvl_modal.engines.base import FOLDER
    from internvl_modal.engines.registry import engine_of
    from internvl_modal.engines.server_process import EngineServer
    from internvl_modal.errors import DeployError

    engine = engine_of(config.engine)
    keys = [os.environ[name] for name in (KEY, VERSION_KEY) if name in os.environ]
    server = EngineServer(
        engine.parse(api_keys=keys, **{**settings, "server_port": PORT}),
        executable=f"{FOLDER}/{engine.program}",
        env=engine_environment(os.environ, {**engine.variables, **config.env}),
        engine_args=config.engine_args,
        on_line=on_line,
    )
    server.start(config.startup_timeout, error=DeployError)
    return server


def engine_environment(container: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The image's variables and ``more``: Modal's and ours stay out, and Modal's Python path.

    The image sets what NCCL and Triton need (NCCL_LAUNCH_MODE, TRITON_PTXAS_PATH, library paths).
    """
    image = {
        name: value
        for name, value in container.items()
        if not name.startswith(NOT_THE_ENGINES) and name != "PYTHONPATH"
    }
    # The engine starts helpers by name, which lie beside its own Python.
    path = f"/opt/py3/bin:{image.get('PATH', os.defpath)}"
    return {**image, **more, "PATH": path, "HF_HUB_OFFLINE": "1"}


def _show_a_picture(config: ContainerConfig) -> None:
    """Describe a picture of three tiles; raises ImageNotSeenError if it did not reach the model.

    896 x 448 pixels: two tiles and a thumbnail, more than one, so that a lost picture shows in the
    token count. The first picture also compiles kernels, which no user should wait for.
    """
    from internvl_modal.client.sync import Client
    from internvl_modal.deployment.served_app import FixedBackend

    url = f"http://127.0.0.1:{PORT}/v1"
    backend = FixedBackend(url, os.environ[KEY], config.served, config.engine)
    with Client(backend, timeout=config.startup_timeout) as client:
        answer = client.describe(_test_picture(), max_tokens=8)
    print(f"a picture: {answer.usage.prompt_tokens} prompt tokens, {answer.text!r}", flush=True)  # noqa: T201


def _test_picture() -> bytes:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    # A gradient: a flat picture would not show whether pixels have arrived.
    Image.linear_gradient("L").resize((896, 448)).convert("RGB").save(file, "PNG")
    return file.getvalue()


def _watch_over(server: EngineServer, dog: Watchdog) -> None:
    """Wait for the end of the server, then end the container with it."""
    end_container(dog.watch(server, PORT), server.tail())


def _tell(config: ContainerConfig, phase: str) -> None:
    """A line of the log that says to who waits how far it is."""
    print(f"{config.mark}{phase}", flush=True)  # noqa: T201


def _log_to_stdout() -> None:
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    for library in ("httpx", "httpx2"):  # they log addresses, and the Hub's are signed
        logging.getLogger(library).setLevel(logging.WARNING)
