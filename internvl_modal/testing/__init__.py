"""For the tests of users' own programs: a backend and a server that answer as a test tells them.

``fixtures`` is a plugin for pytest, which only they who name it import. Beside ``reports``, above
``client``; imports what a server must know: ``protocol``, ``images``, ``models``, ``errors``.
"""

from internvl_modal.testing.answers import Answer, Answers, Call
from internvl_modal.testing.backend import FakeBackend
from internvl_modal.testing.server import FakeServer

__all__ = ["Answer", "Answers", "Call", "FakeBackend", "FakeServer"]
