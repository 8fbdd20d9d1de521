"""Several servers at one endpoint: all of them have to be the same model, or it is an error.

Each is asked once for its models. One that does not answer is left out and asked again later; it
gets no picture before it has said what it is.
"""

from __future__ import annotations

import time
from dataclasses import replace

from internvl_modal.errors import (
    ConfigError,
    DeadlineExceededError,
    RateLimitedError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.flows.discovery import ONCE, models_step
from internvl_modal.flows.steps import Flow
from internvl_modal.protocol.dialects.registry import dialect_of_owner
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.protocol.model_choice import choose_model, entry_of
from internvl_modal.transport.exchange import shown

AGAIN = 30.0
"""Seconds until a server that did not answer is asked again."""
PATIENCE = 5.0
"""Seconds for its answer, where others have given theirs."""


class Fleet:
    """What is known of an endpoint's servers; of one client."""

    def __init__(self) -> None:
        self._declared: Endpoint | None = None
        self._model: tuple[str, str] | None = None
        """Of the first that answered: its name, and the kind of server."""
        self._known: list[str] = []
        self._asked_at: dict[str, float] = {}

    def settled(self, endpoint: Endpoint) -> Endpoint:
        """The same without asking; ``endpoint`` itself where one is to be asked what it is."""
        urls = (endpoint.base_url, *endpoint.others)
        due = endpoint != self._declared or any(map(self._is_due, urls))
        return endpoint if due or not self._known else self._told(endpoint)

    def of(self, endpoint: Endpoint, model: str | None, deadline: float) -> Flow[Endpoint]:
        """The endpoint with those of its servers that are the same model.

        Raises ConfigError where one is another, and what the first raises where none answers.
        """
        if endpoint != self._declared:
            self._declared, self._model = endpoint, None
            self._known, self._asked_at = [], {}
        urls = (endpoint.base_url, *endpoint.others)
        for url in urls:
            if self._is_due(url):
                self._asked_at[url] = time.monotonic()  # before: others need not ask as well
                yield from self._ask(endpoint, url, model, deadline)
        if not self._known:  # patiently, as a single server is asked that may be starting
            yield from self._identify(endpoint, urls[0], model, deadline, patient=True)
        return self._told(endpoint)

    def _told(self, endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, base_url=self._known[0], others=tuple(self._known[1:]))

    def _is_due(self, url: str) -> bool:
        asked_at = self._asked_at.get(url)
        late = asked_at is None or asked_at + AGAIN <= time.monotonic()
        return url not in self._known and late

    def _ask(self, endpoint: Endpoint, url: str, model: str | None, deadline: float) -> Flow[None]:
        until = min(deadline, time.monotonic() + PATIENCE)
        try:
            yield from self._identify(endpoint, url, model, until, patient=False)
        except (ServerUnavailableError, RateLimitedError, DeadlineExceededError):
            if time.monotonic() >= deadline:
                raise

    def _identify(
        self, endpoint: Endpoint, url: str, model: str | None, until: float, *, patient: bool
    ) -> Flow[None]:
        """Ask one server what it is, and take it in if it is the model of the others."""
        one = replace(endpoint, base_url=url, others=())
        try:
            listed = (yield models_step(one, until, None if patient else ONCE)).value
        except (ServerUnavailableError, RateLimitedError, DeadlineExceededError):
            raise
        except ServerError:
            if model is None:
                raise
            listed = []  # some servers have no list, and the caller has named the model
        name = choose_model(listed, one) if model is None else model
        entry = entry_of(name, listed)
        if listed and (entry is None or "id" not in entry):
            name = ", ".join(sorted(str(each["id"]) for each in listed))
        found = name, dialect_of_owner(entry).name
        if self._model is None:
            self._model = found
        if self._model != found:
            first, here = (f"{what} ({kind})" for what, kind in (self._model, found))
            raise ConfigError(
                f"{shown(url)} serves {here}, and {shown(self._known[0])} {first}",
                hint="give servers of the same model and kind only",
            )
        if url not in self._known:  # two calls may have asked it
            self._known.append(url)
