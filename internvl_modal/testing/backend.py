"""A backend for tests, which a client takes as ``backend=``."""

from __future__ import annotations

from internvl_modal.models.families import family_of
from internvl_modal.protocol.dialects.registry import DIALECTS
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.testing.answers import Answers, Call
from internvl_modal.testing.server import MODEL, FakeServer

__all__ = ["FakeBackend"]


class FakeBackend:
    """Answers as told, with nothing to start beside it: no GPU, no weights, no network, no key.

    ``answers``: as for ``FakeServer``, which this one starts on loopback with the first call, so
    that requests are written, sent and read like real ones. ``Client.close`` stops it.

    >>> import internvl_modal as ivl
    >>> backend = FakeBackend("A cat.")
    >>> with ivl.Client(backend) as client:
    ...     client.chat([{"role": "user", "text": "Who is there?"}]).text
    'A cat.'
    >>> backend.calls[0].prompt
    'Who is there?'
    """

    name = "fake"

    def __init__(self, answers: Answers = "A picture.", *, model: str = MODEL) -> None:
        self._server = FakeServer(answers, model=model)

    def will(self, answers: Answers) -> None:
        """Answer like this from now on; a list starts with its first. Raises ConfigError."""
        self._server.will(answers)

    @property
    def calls(self) -> list[Call]:
        """What was asked so far, in order; a list of its own."""
        return self._server.calls

    def preview(self) -> Endpoint:
        """The endpoint that ``start`` will give, its address aside."""
        return self._endpoint("")

    def start(self) -> Endpoint:
        """Listen on loopback unless that is so already."""
        self._server.start()
        return self._endpoint(self._server.url)

    def stop(self) -> None:
        """Stop listening; the calls are kept."""
        self._server.close()

    def _endpoint(self, url: str) -> Endpoint:
        model = self._server.model
        known = DIALECTS["lmdeploy"].capabilities(family_of(model))
        return Endpoint(url, model, capabilities=known, models=(model,))

    def __repr__(self) -> str:
        return f"FakeBackend({len(self.calls)} calls)"
