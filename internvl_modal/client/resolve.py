"""Backends by name: built in ones and those of installed packages.

A package adds one with an entry point in the group ``internvl_modal.backends``: a callable that
takes the ``Settings`` and returns a ``Backend``.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points

from internvl_modal.errors import ConfigError
from internvl_modal.protocol.endpoint import Backend
from internvl_modal.settings import Settings

__all__ = ["backend_names", "resolve"]

GROUP = "internvl_modal.backends"
"""Third parties' backends stand beside ours: ours are registered in the same way."""

_UNUSED = {
    "local": {"base_url", "api_key"},
    "lmdeploy": {"base_url", "api_key"},
    "modal": {"base_url"},
}
"""Arguments that these backends have no use for.

An argument that a backend would pass over is an error: whoever gives ``base_url`` with
``backend="local"`` believes to ask a server.
"""


def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def backend_names() -> list[str]:
    """Names that ``backend=`` takes, sorted."""
    return sorted(_registered())


def _unused(backend: str | Backend) -> Collection[str]:
    if not isinstance(backend, str):
        return ("base_url", "api_key")
    return ("base_url",) if "://" in backend else _UNUSED.get(backend, ())


def resolve(backend: str | Backend | None, settings: Settings) -> Backend:
    """The backend meant by a name, a URL, a Backend or None.

    None means the endpoint at ``settings.base_url`` if that is set, else ``"local"``.
    Raises ConfigError for an unknown name, and where the backend would ignore an argument.

    Imports the backend's module and no other: ``lmdeploy`` needs no Modal, ``endpoint`` no
    llama.cpp.
    """
    if backend is None:
        backend = "endpoint" if settings.base_url else "local"
    for name in _unused(backend):
        if name in settings.given:
            known = str(getattr(backend, "name", backend))
            which = "given by its URL" if "://" in known else repr(known)
            raise ConfigError(
                f"a backend {which} takes no {name}",
                hint="leave it out; a server that runs is base_url= without backend=",
            )
    if not isinstance(backend, str):
        if isinstance(backend, Backend):
            return backend
        raise ConfigError(
            f"backend={backend!r} is neither a name, a URL nor a Backend",
            hint=f"names: {', '.join(backend_names())}",
        )
    if "://" in backend:
        settings = settings.model_copy(update={"base_url": backend})
        backend = "endpoint"
    entry = _registered().get(backend)
    if entry is None:
        raise ConfigError(
            f"no backend is named {backend!r}", hint=f"use {', '.join(backend_names())} or a URL"
        )
    made = entry.load()(settings)
    # A plug-in of somebody else's: said here, as the failure would otherwise come at the first
    # call.
    if not isinstance(made, Backend):
        raise ConfigError(f"the entry point of backend {backend!r} did not return a Backend")
    return made
