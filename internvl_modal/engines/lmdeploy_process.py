"""``lmdeploy serve api_server`` as a child process."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping

from internvl_modal._utils.child_process import ChildProcess
from internvl_modal.engines.lmdeploy import LMDeployOptions
from internvl_modal.errors import ConfigError, InternVLError, ServerUnavailableError


class LMDeployServer:
    """One LMDeploy process; it ends with this one, or at ``stop``."""

    def __init__(
        self,
        options: LMDeployOptions,
        *,
        executable: str = "lmdeploy",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.options = options
        self._executable = executable
        self._env = env
        self._process: ChildProcess | None = None

    @property
    def base_url(self) -> str:
        """Where this machine reaches it, up to ``/v1``."""
        name = self.options.server_name
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.options.server_port}/v1"

    def start(
        self, timeout: float = 1800.0, error: type[InternVLError] = ServerUnavailableError
    ) -> None:
        """Start it unless it runs, and return when it answers; ``timeout`` is in seconds.

        Raises ConfigError if the port is taken or there is no such command, and ``error`` with
        the end of its log when it ends or time is up before it answers.
        """
        if self.poll() is None and self._process is not None:
            return
        self.stop()
        self._check_port()
        self._process = ChildProcess(
            self.options.argv(self._executable),
            env=self._env,
            name="lmdeploy",
            redact=[key.get_secret_value() for key in self.options.api_keys],
        )
        try:
            self._process.wait_ready(self._answers, timeout=timeout, error=error)
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

    def _check_port(self) -> None:
        """Refuse a port where another server would answer in LMDeploy's place."""
        family = socket.AF_INET6 if ":" in self.options.server_name else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.options.server_name, self.options.server_port))
            except OSError as error:
                raise ConfigError(
                    f"lmdeploy cannot listen on {self.options.server_name} port "
                    f"{self.options.server_port}: {error.strerror}",
                    hint="choose another server_port",
                ) from error

    def _answers(self) -> bool:
        """Whether it lists its model to someone with its key: /health would answer anyone."""
        request = urllib.request.Request(f"{self.base_url}/models")  # noqa: S310 - http
        for key in self.options.api_keys[:1]:
            request.add_header("Authorization", f"Bearer {key.get_secret_value()}")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=5) as response:
                listed = json.load(response)["data"]
        except (OSError, ValueError, KeyError):
            return False
        name = self.options.model_name
        return name is None or any(entry.get("id") == name for entry in listed)
