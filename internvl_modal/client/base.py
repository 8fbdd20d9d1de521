"""What ``Client`` and ``AsyncClient`` share: settings, backend, flows.

Arguments are checked and backends found here, once; the clients add how steps are performed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel

from internvl_modal.client.resolve import resolve
from internvl_modal.errors import ConfigError
from internvl_modal.flows.core import Core
from internvl_modal.protocol.endpoint import Backend, Capabilities
from internvl_modal.settings import Settings
from internvl_modal.transport.retry import Retry

H = TypeVar("H")
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class ClientBase:
    """What both clients share: settings, backend, flows.

    Nothing is started and nobody is asked: a client can be made in an event loop, or to look at
    ``estimate`` alone.
    """

    def __init__(
        self,
        backend: str | Backend | None = None,
        *,
        base_url: str | Sequence[str] | None = None,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
        capabilities: Capabilities | None = None,
    ) -> None:
        self._retry = of_type("retry", retry, Retry) or Retry()
        of_type("capabilities", capabilities, Capabilities)
        settings = Settings.load(base_url=base_url, api_key=api_key, model=model, timeout=timeout)
        resolved = resolve(backend, settings)
        # Only a timeout that somebody has set: otherwise the endpoint's own counts, which on Modal
        # is as long as a cold start.
        chosen = settings.timeout if "timeout" in settings.model_fields_set else None
        self._core = Core(resolved, model=settings.model, timeout=chosen, capabilities=capabilities)

    @property
    def backend(self) -> Backend:
        """What makes the endpoint exist."""
        return self._core.backend

    def __repr__(self) -> str:
        # A debugger or a traceback may show a client whose constructor has raised.
        core: Core | None = self.__dict__.get("_core")  # none where its making failed
        return f"{type(self).__name__}({'' if core is None else repr(core.backend)})"


def of_type(name: str, given: H | None, kind: type[H]) -> H | None:
    """``given``, which must be of ``kind`` or None; raises ConfigError that names it."""
    if given is not None and not isinstance(given, kind):
        package = kind.__module__.partition(".")[0]
        raise ConfigError(
            f"{name} is of type {type(given).__name__}", hint=f"pass an {package}.{kind.__name__}"
        )
    return given
