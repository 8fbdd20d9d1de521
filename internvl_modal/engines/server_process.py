"""An engine's server as a child process.

Used by the backend on this machine and by the container on Modal. It has no retries and no health
loop of its own: who started it decides what a dead server means (``watchdog`` there, the next
``start`` here).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from internvl_modal._utils.child_environment import COMPUTE, ENGINE, SYSTEM, only
from internvl_modal._utils.child_process import ChildProcess
from internvl_modal.engines import server_main
from internvl_modal.engines.base import EVERYWHERE, EngineOptions
from internvl_modal.errors import ConfigError, InternVLError, ServerUnavailableError


class EngineServer:
    """One process of an engine; it ends with this one, or at ``stop``.

    Its keys travel in its environment where ``executable`` is a Python script, as the engines' own
    commands are; in front of another program they stand on its command line. ``engine_args`` are
    further options of the engine's; ``on_line`` is called with each line that it writes.

    Not safe for several threads at once, but for ``stop``, which may interrupt a ``start``. ``env``
    is its whole environment; by default it gets those of this process's variables that it and its
    libraries read, and no keys (``child_environment``).
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        executable: str | None = None,
        env: Mapping[str, str] | None = None,
        engine_args: Sequence[str] = (),
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        options.check_arguments(engine_args)
        self.options = options
        self._engine_args = list(engine_args)
        self._on_line = on_line
        self._executable = executable or options.program
        self._env = env
        self._process: ChildProcess | None = None

    @property
    def base_url(self) -> str:
        """Where this machine reaches it, up to ``/v1``.

        A server that listens everywhere is asked at the loopback address: nobody can connect to
        0.0.0.0 on every system.
        """
        name = self.options.server_name
        host = {EVERYWHERE: "127.0.0.1", "::": "::1"}.get(name, name)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.options.server_port}/v1"

    def start(
        self, timeout: float = 1800.0, error: type[InternVLError] = ServerUnavailableError
    ) -> None:
        """Start it unless it runs, and return when it answers; ``timeout`` is in seconds.

        Raises ConfigError if the port is taken or there is no such command, and ``error`` with
        the end of its log when it ends or time is up before it answers.
        """
        # ``poll`` is None before the first start too.
        if self.poll() is None and self._process is not None:
            return
        self.stop()
        self._check_port()
        argv, env = self._command()
        self._process = ChildProcess(
            argv,
            env=env,
            on_line=self._on_line,
            name=self.options.program,
            redact=[key.get_secret_value() for key in self.options.api_keys],
        )
        try:
            self._process.wait_ready(self._answers, timeout=timeout, error=error)
        # Ctrl-C too: a half-started server would go on loading and keep the GPUs.
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and everything it started."""
        if self._process is not None:
            self._process.stop()

    def poll(self) -> int | None:
        """Exit code of the last process, None while it runs or before the first start."""
        return self._process.poll() if self._process else None

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log, keys masked."""
        return self._process.tail(lines) if self._process else ""

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        """What to run, and its environment.

        With another program in front (``numactl lmdeploy``, a container's wrapper) there is no
        Python script to become, and so no way to hide arguments: it gets them as the engine
        documents them.
        """
        environment = self._environment()
        script = shutil.which(self._executable, path=environment.get("PATH"))
        python = _python_of(Path(script)) if script else None
        if script is None or python is None:
            argv = self.options.command(self._executable) + self._engine_args
            return argv + self.options.key_arguments, environment
        hidden = {server_main.ARGUMENTS: json.dumps(self.options.key_arguments)}
        argv = [python, server_main.__file__, *self.options.command(script)]
        return argv + self._engine_args, {**environment, **hidden}

    def _environment(self) -> Mapping[str, str]:
        """What it was given, else those of this process's variables that it has a use for."""
        if self._env is not None:
            return self._env
        return only(os.environ, SYSTEM, COMPUTE, ENGINE)

    def _check_port(self) -> None:
        """Refuse a port where another server would answer in its place.

        Otherwise readiness would be told of by a stranger, and keys and pictures sent to it. Raises
        ConfigError, minutes before the engine would fail to bind.
        """
        family = socket.AF_INET6 if ":" in self.options.server_name else socket.AF_INET
        with socket.socket(family) as probe:
            # uvicorn binds with it too: without it, a port whose last connection is closing looks
            # taken for a minute.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.options.server_name, self.options.server_port))
            except OSError as error:
                raise ConfigError(
                    f"{self.options.program} cannot listen on {self.options.server_name} port "
                    f"{self.options.server_port}: {error.strerror}",
                    hint="choose another server_port",
                ) from error

    def _answers(self) -> bool:
        """Whether it lists its model to someone with its key: /health would answer anyone.

        The name must be listed as well: a server that has just been replaced may still hold the
        port.
        """
        request = urllib.request.Request(f"{self.base_url}/models")  # noqa: S310 - http
        for key in self.options.api_keys[:1]:
            request.add_header("Authorization", f"Bearer {key.get_secret_value()}")
        # Past any proxy of the environment, which would refuse an address on this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=5) as response:
                listed = json.load(response)["data"]
        except (OSError, ValueError, KeyError):
            return False
        name = self.options.model_name
        return name is None or any(entry.get("id") == name for entry in listed)


def _python_of(script: Path) -> str | None:
    """The Python that runs a script, None if none does.

    Where its path is too long for a first line, pip writes one of sh and an ``exec`` below it.
    """
    with script.open("rb") as file:
        first, second, *_ = [*file.read(4096).decode(errors="replace").splitlines(), "", ""]
    found = re.match(r"#!\s*(\S*python[\d.]*)\s*$", first)
    found = found or re.match(r"'''exec' [\"']?(\S*python[\d.]*)[\"']? ", second)
    return found[1] if found else None
