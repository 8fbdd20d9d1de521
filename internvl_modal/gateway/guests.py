"""Browsers that are let in without the key: each by a link that works once.

``serve`` prints such a link. What a page gets for it lives in the memory of that page and of this
process, so that the key itself stands in no address, no history and no storage of a browser.
"""

from __future__ import annotations

import hashlib
import secrets


class Guests:
    """Links that have not been used yet, and the pages that have used one.

    Digests only: looking one up takes a time that tells a stranger nothing.

    >>> guests = Guests()
    >>> link = guests.invite()
    >>> page = guests.admit(link)
    >>> guests.is_guest(page), guests.is_invited(link)
    (True, False)
    """

    def __init__(self) -> None:
        self._invited: set[bytes] = set()
        self._guests: set[bytes] = set()

    def invite(self) -> str:
        """A new token for one page."""
        return _new(self._invited)

    def is_invited(self, token: str) -> bool:
        """Whether ``token`` is of a link that nobody has used."""
        return _digest(token) in self._invited

    def is_guest(self, token: str) -> bool:
        """Whether ``token`` is what a page was given, which is good until the process ends."""
        return _digest(token) in self._guests

    def admit(self, token: str) -> str:
        """What a page shows instead of the key from now on; KeyError for a link that was used."""
        self._invited.remove(_digest(token))
        return _new(self._guests)


def _new(known: set[bytes]) -> str:
    token = secrets.token_urlsafe(32)
    known.add(_digest(token))
    return token


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
