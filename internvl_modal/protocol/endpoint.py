"""What a backend is: something that makes an OpenAI-compatible endpoint exist.

The seam of the package: everything above asks an ``Endpoint`` and does not care what made it, and a
backend of somebody else's needs these three classes and nothing of the client.

>>> Endpoint("https://example.com/v1", query="api-version=1").path("models")
'models?api-version=1'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Capabilities:
    """How a server differs from the plain OpenAI protocol, and how its model sees pictures.

    Given by a backend that knows its server, found out by ``flows.discovery`` otherwise, and set by
    a caller who knows better than both.
    """

    dialect: str = "openai"
    """Name of a class in ``protocol.dialects``: "openai", "lmdeploy", "lmdeploy-0.13", "llamacpp",
    "vllm", "sglang", "ollama", "lmstudio", "llama-swap", or "gateway", which is this package's
    own in front of any of the others."""
    tile_pixels: int = 448
    """Side of a square tile, pixels."""
    tokens_per_tile: int | None = None
    """Prompt tokens of one tile; None when unknown, and then no answer can be checked here."""
    max_tiles: int | None = None
    """Tiles per picture when the server fixes them; None when each request may choose.

    Not counting the thumbnail, as InternVL's own ``max_dynamic_patch`` does not.
    """
    json_schema: bool | None = None
    """Whether ``response_format`` takes a JSON schema; None: it is tried, once.

    A server may also take the field and pass over it, so that answers are checked in any case.
    """
    assumed: bool = False
    """Whether ``max_tiles`` and ``tokens_per_tile`` are a guess from the model's name; then fewer
    prompt tokens than they need are a warning and no ImageNotSeenError."""
    tiles_by_request: bool | None = None
    """Whether a vLLM was started with ``--trust-request-mm-kwargs``; None: it is found out."""


class Priced(Protocol):
    """What knows the price of a picture, such as the plan of a deployment.

    A protocol, since plans lie in a layer that ``protocol`` may not import.
    """

    def picture_cost(self, tiles: int) -> tuple[float, float]:
        """USD for one picture of so many tiles, at best and at worst."""
        ...


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers: the URL up to and including ``/v1``, the model, how to speak to it.

    Compared by value: a backend that gives an equal one again has not moved, and what was found out
    about it is kept.
    """

    base_url: str
    model: str | None = None
    """Name to ask for; None: the first that the server lists."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request; holds the keys, so never printed."""
    capabilities: Capabilities | None = None
    """None: found out from what the server says of itself."""
    notice: str = ""
    """A warning that every description from this endpoint carries."""
    timeout: float | None = None
    """Seconds for a call where neither the caller nor a setting says how many."""
    sessions: int | None = None
    """Requests that it answers at once, where that is known.

    The most that a batch tries at once, unless it is told another number.
    """
    price: Priced | None = field(default=None, repr=False)
    """What a picture costs there, where that is known."""
    usd_per_hour: float | None = None
    """What the machine costs while it runs, where that is known."""
    idle_usd: float | None = None
    """What it costs from the last answer until it is let go, where that is known."""
    start_usd: float | None = None
    """What it costs until its first answer, where that is known."""
    startup: tuple[float, float] | None = None
    """Seconds from a cold container to its first answer, at best and at worst, where known."""
    models: tuple[str, ...] = ()
    """Names that it can run, where they are known without asking it.

    Listed by ``internvl-modal models`` without starting anything.
    """
    query: str = field(default="", repr=False)
    """Sent with every request, without its "?" (Azure's ``api-version=...``); may hold a key."""
    revision: str = ""
    """Commit of the model's weights, where that is known."""
    others: tuple[str, ...] = ()
    """Base URLs of further servers of the same model, asked with the same headers and query."""

    def path(self, path: str) -> str:
        """``path``, relative to ``base_url``, with the query that every request carries."""
        return f"{path}?{self.query}" if self.query else path

    @property
    def root(self) -> str:
        """The server's own address, without ``/v1``: where ``/health`` is."""
        return self.base_url.rstrip("/").removesuffix("/v1")


@runtime_checkable
class Backend(Protocol):
    """Makes an endpoint exist; the one HTTP path of the client serves all of them.

    ``start`` may take minutes and is called before every call, from any thread, so it must be quick
    when all is running. ``stop`` is called once by ``Client.close``; afterwards ``start`` may be
    called again by another client of the same backend.
    """

    name: str

    def start(self) -> Endpoint:
        """Start what is needed and return where it answers; calling it again starts nothing."""
        ...

    def stop(self) -> None:
        """Stop what ``start`` started, and only that."""
        ...


@runtime_checkable
class Foreseen(Protocol):
    """A backend that knows before it starts what its endpoint will be like.

    Apart from ``Backend``, so that a backend without it is complete: nothing is probed with
    ``getattr``.
    """

    def preview(self) -> Endpoint:
        """The endpoint that ``start`` will give, its address aside; nothing is started or asked."""
        ...


def preview(backend: Backend) -> Endpoint:
    """What is known of a backend's endpoint before it is started."""
    return backend.preview() if isinstance(backend, Foreseen) else Endpoint("")
