"""Who answers at an endpoint, which of its models is meant, and what that server can do.

A server is asked once for a client: its list of models tells who signs it (``owned_by``), and only
where versions differ one or two more questions follow. What is found out holds until the backend
gives another endpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from internvl_modal.errors import (
    AnswerLostError,
    DeadlineExceededError,
    RateLimitedError,
    ServerError,
    ServerUnavailableError,
)
from internvl_modal.flows.steps import Flow
from internvl_modal.models.families import Family, family_of
from internvl_modal.protocol.completion import decode_models
from internvl_modal.protocol.dialects.base import Dialect
from internvl_modal.protocol.dialects.registry import dialect_of, dialect_of_owner
from internvl_modal.protocol.endpoint import Capabilities, Endpoint
from internvl_modal.protocol.http import HttpRequest, HttpResponse, Json
from internvl_modal.protocol.model_choice import choose_model, entry_of, model_names
from internvl_modal.schema.options import Detail
from internvl_modal.transport.exchange import Exchange
from internvl_modal.transport.retry import Retry

ONCE = Retry(attempts=1)
"""For questions whose answer is only nice to have: a server that is down is told by the real call.
"""
VERSION_PATIENCE = 5.0
"""Seconds for the questions that only refine what is known: a proxy may leave them unanswered."""


class Ready(NamedTuple):
    """An endpoint that has said what it is.

    Immutable, so that calls in several threads can share one; a newer one replaces it as a whole.
    """

    endpoint: Endpoint
    capabilities: Capabilities
    model: str
    family: Family | None = None
    """Of the model, where a name of it tells."""


def models_step(
    endpoint: Endpoint,
    deadline: float,
    retry: Retry | None = None,
    decode: Callable[[HttpResponse], list[Json]] = decode_models,
) -> Exchange[list[Json]]:
    """Ask for the list of models.

    A server without TLS may be llama.cpp, of which no idle connection must hold a thread.

    ``deadline`` is a moment of ``time.monotonic``. With TLS there is a proxy in front, and its
    connections are worth keeping.
    """
    plain = {"connection": "close"} if endpoint.base_url.startswith("http:") else {}
    headers = {**endpoint.headers, **plain}
    request = HttpRequest("GET", endpoint.path("models"), headers)
    return Exchange(endpoint.base_url, request, decode, deadline, retry, others=endpoint.others)


def discover(
    endpoint: Endpoint, model: str | None, known: Capabilities | None, deadline: float
) -> Flow[Ready]:
    """Ask for what is not known of ``endpoint``: its model, its dialect, what that can do.

    With a model given, whatever is wrong with the list of models is no reason not to ask it.
    """
    listed: list[Json] = []
    # Nothing is asked where the caller has said both: some servers have no ``/models`` at all.
    if model is None or known is None:
        listed = yield from _listed(endpoint, deadline, needed=model is None)
    if model is None:
        model = choose_model(listed, endpoint)
    entry = entry_of(model, listed)
    family = family_of(*model_names(model, entry))
    if known is None:
        dialect = yield from _version(endpoint, dialect_of_owner(entry), deadline)
        known = dialect.capabilities(family)
    else:
        dialect_of(known)  # raises ConfigError for one that there is not
    return Ready(endpoint, known, model, family)


def tiles_question(ready: Ready, detail: Detail) -> Json | None:
    """What ``settle_tiles`` asks; None where nothing is to be asked for ``detail``."""
    known = ready.capabilities
    return dialect_of(known).tiles_question(known, detail, ready.model)


def settle_tiles(ready: Ready, detail: Detail, deadline: float) -> Flow[Ready]:
    """Find out whether a request may set its limit of tiles, where ``detail`` asks for that.

    Asked only where the answer changes something: for the usual detail the server's own limit will
    do. A refusal of the field is a 400 or a 422 of the whole request.
    """
    endpoint, known = ready.endpoint, ready.capabilities
    question = tiles_question(ready, detail)
    # Known already, or of no matter for this ``detail``.
    if question is None:
        return ready
    headers = {**endpoint.headers, "content-type": "application/json"}
    path, body = endpoint.path("chat/completions"), json.dumps(question).encode()
    request = HttpRequest("POST", path, headers, body)
    sent = yield Exchange(endpoint.base_url, request, _whole, deadline)
    status = sent.value.status
    if status not in (200, 400, 422):  # a failure that says nothing about it
        return ready
    return ready._replace(capabilities=replace(known, tiles_by_request=status == 200))


def _listed(endpoint: Endpoint, deadline: float, *, needed: bool) -> Flow[list[Json]]:
    """The entries of ``/models``; none where they cannot be had and are not needed."""
    step = models_step(endpoint, deadline, decode=decode_models if needed else _if_any)
    try:
        sent = yield step
    except (RateLimitedError, ServerUnavailableError) as error:
        unheard = error.status is None and not isinstance(error, AnswerLostError)
        if needed or unheard:  # unheard: nobody is there
            raise
        return []
    # An unreachable server is raised here, before pictures are read for nothing.
    listed: list[Json] = sent.value
    return listed


def _if_any(response: HttpResponse) -> list[Json]:
    """The entries of ``/models``, none for an answer that asking again would not change."""
    try:
        return decode_models(response)
    except (RateLimitedError, ServerUnavailableError):
        raise
    except ServerError:
        return []


def _version(endpoint: Endpoint, dialect: Dialect, deadline: float) -> Flow[Dialect]:
    """The dialect of the version that answers, where a server's versions differ.

    A path that fails says as little as one that is missing.
    """
    until = min(deadline, time.monotonic() + VERSION_PATIENCE)
    for path in dialect.version_paths:
        request = HttpRequest("GET", endpoint.path(path), endpoint.headers)
        try:
            sent = yield Exchange(endpoint.root, request, _whole, until, ONCE)
        except DeadlineExceededError:
            if until == deadline:
                raise
            return dialect
        except ServerError:
            continue
        told = dialect.version(path, sent.value)
        if told is not None:
            return told
    return dialect


def _whole(response: HttpResponse) -> HttpResponse:
    """The answer as it is, whatever its status."""
    return response
