"""LMDeploy or vLLM on this machine's GPUs, as a child process.

For a machine with GPUs of one's own. The engine's options and its process lie in ``engines``,
shared with the container on Modal; here it is found, fed with weights, and given a port and a key.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import TypedDict

from typing_extensions import Unpack

from internvl_modal.engines.base import EngineOptions
from internvl_modal.engines.lmdeploy import LMDeployOptions
from internvl_modal.engines.registry import engine_of
from internvl_modal.engines.server_process import EngineServer
from internvl_modal.errors import ConfigError, MissingExtraError
from internvl_modal.models.catalogue import find_model
from internvl_modal.models.support import default_engine, refusal
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.settings import Settings

HOST = "127.0.0.1"
"""Loopback: the server is this process's own, and the gateway is what serves others."""
TOO_NEW = (3, 13)
"""LMDeploy 0.7.3 has no wheels for this Python and later ones."""


class ServerOptions(TypedDict, total=False):
    """Keyword options passed on to the engine's own, which knows those that it has not."""

    model_name: str
    model_format: str
    tp: int
    session_len: int
    max_batch_size: int
    cache_max_entry_count: float
    gpu_memory_utilization: float
    quant_policy: int
    vision_max_batch_size: int
    chat_template: str
    server_port: int
    log_level: str


class LMDeployBackend:
    """InternVL behind LMDeploy or vLLM on this machine; needs CUDA GPUs.

    ``model``: a folder with the weights, or a name known to ``plan`` ("internvl2_5-8b"), whose
    files ``start`` downloads where missing. ``engine`` is "lmdeploy-0.7.3", "lmdeploy" (0.18) or
    "vllm", by default what the model's generation needs; its command is looked for on the path
    unless ``executable`` names it. The port is a free one unless ``server_port`` is given, the key
    a fresh one. Raises ConfigError for a model or options that the engine could not run.

    ``start`` may be called from several threads: one starts it, the others wait. Loading takes
    minutes, ``startup_timeout`` is in seconds. Ends with this process, however that ends.

    >>> with Client(LMDeployBackend("internvl2_5-8b")) as client:  # doctest: +SKIP
    ...     print(client.describe("photo.jpg"))
    """

    name = "lmdeploy"

    def __init__(
        self,
        model: str | Path,
        *,
        engine: str | None = None,
        executable: str | None = None,
        startup_timeout: float = 1800.0,
        settings: Settings | None = None,
        **options: Unpack[ServerOptions],
    ) -> None:
        self._settings = settings or Settings.load()
        chosen = _engine(str(model), engine)
        self._executable = executable or chosen.program
        self._timeout = startup_timeout
        defaults = {"model_name": Path(model).name.lower(), "server_name": HOST}
        self._options = chosen.parse(
            model=str(model), api_keys=[secrets.token_hex(24)], **{**defaults, **options}
        )
        self._free_port = "server_port" not in options
        self._server: EngineServer | None = None
        self._starting = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> LMDeployBackend:
        """The model that the settings name."""
        if settings.model is None:
            raise ConfigError(
                "backend 'lmdeploy' needs a model",
                hint="pass model= or set INTERNVL_MODAL_MODEL to a folder or a name",
            )
        return cls(settings.model, settings=settings)

    def start(self) -> Endpoint:
        """Start the engine unless it runs; raises ServerUnavailableError with its log's end."""
        # Asked before the weights: nobody should download 16 GB to learn that a command is missing.
        if shutil.which(self._executable) is None:
            raise MissingExtraError(
                self._executable, "lmdeploy", hint=how_to_install(engine=self._options.engine)
            )
        with self._starting:
            server = self._server
            if server is None or server.poll() is not None:
                if server is not None:
                    server.stop()  # workers that outlived it would keep the GPU's memory
                server = self._server = EngineServer(self._resolved(), executable=self._executable)
            # Under the lock, so that a second thread waits for the answer and does not start
            # another.
            server.start(self._timeout)
        options = self._options
        key = options.api_keys[0].get_secret_value()
        return Endpoint(
            server.base_url,
            model=options.model_name,
            headers={"authorization": f"Bearer {key}"},
            capabilities=options.capabilities(options.model_name or options.model),
        )

    def stop(self) -> None:
        """Stop the process that ``start`` started, also while that waits for it to answer."""
        # Without the lock, which ``start`` holds for as long as it waits: stopping is what ends
        # that wait.
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __repr__(self) -> str:
        return f"LMDeployBackend({self._options.model!r})"

    def _resolved(self) -> EngineOptions:
        """The options with the weights on this disk and a free port."""
        changes: dict[str, object] = {"model": str(self._weights())}
        if self._free_port:
            changes["server_port"] = _free_port()
        return self._options.model_copy(update=changes)

    def _weights(self) -> Path:
        """The folder with the model's files, downloaded into the cache where they are missing."""
        folder = Path(self._options.model)
        if folder.is_dir():
            return folder.absolute()
        from internvl_modal.weights.cache import WeightsCache

        token = self._settings.hf_token
        cache = WeightsCache(
            self._settings.cache_dir, token=token.get_secret_value() if token else None
        )
        return cache.ensure(self._options.model).path


def how_to_install(
    version: tuple[int, ...] = sys.version_info[:2], engine: str = LMDeployOptions.engine
) -> str:
    """What a Python of ``version`` can do to have ``engine``."""
    elsewhere = f"give executable= the path of a `{engine_of(engine).program}` elsewhere"
    if engine != LMDeployOptions.engine:
        # Its torch and ours may not fit together, and nothing of it is imported here.
        return f"install {engine_of(engine).title} in an environment of its own, and {elsewhere}"
    if version < TOO_NEW:
        return "pip install 'internvl-modal[lmdeploy]'"
    limit = ".".join(map(str, TOO_NEW))
    return (
        f"LMDeploy 0.7.3 needs a Python below {limit}, and this is {version[0]}.{version[1]}: "
        f"there pip install 'internvl-modal[lmdeploy]', or {elsewhere}"
    )


def _engine(model: str, wanted: str | None) -> type[EngineOptions]:
    """The engine of that name, or the model's own; raises ConfigError where it cannot run it."""
    spec = find_model(model.rstrip("/").rpartition("/")[2])
    if spec is None:
        return engine_of(wanted or LMDeployOptions.engine)
    chosen = engine_of(wanted or default_engine(spec))
    if why := refusal(spec, chosen.engine):
        raise ConfigError(f"{spec.name}: {why}", hint=f"leave engine={wanted!r} out")
    return chosen


def _free_port() -> int:
    """A port that is free now. Another program may take it before the engine does; ``EngineServer``
    looks again and says so.
    """
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
