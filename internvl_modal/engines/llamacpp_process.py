"""llama.cpp's server as a child process."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets

from internvl_modal._utils.child_environment import COMPUTE, SYSTEM, only
from internvl_modal._utils.child_process import ChildProcess
from internvl_modal.engines.llamacpp import Engine
from internvl_modal.engines.llamacpp_main import ADDRESS, KEY_VARIABLE
from internvl_modal.errors import MissingExtraError, ServerUnavailableError

__all__ = ["LlamaCppServer"]

START_TIMEOUT = 300.0
"""Seconds: the file of an 8B model is 8 GB, and a slow disk reads 50 MB a second."""


class LlamaCppServer:
    """One engine process and how many backends of this process use it.

    Made in one step: the constructor returns when it answers, and leaves no process behind when it
    does not. Raises MissingExtraError without xllamacpp, ServerUnavailableError with llama.cpp's
    own errors where it ended, or with its log where time was up. Whoever makes one holds the lock
    under which backends share engines; ``users`` are those backends.
    """

    def __init__(self, engine: Engine) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtraError("xllamacpp", "local")
        self.users: set[object] = set()
        # A port on loopback is open to every user and to the pages in a browser of this machine.
        self.key = secrets.token_urlsafe(24)
        self.address = ""
        # ``redact`` keeps the key out of the log's tail, which goes into error messages.
        self.process = ChildProcess(
            engine.argv(),
            env={**only(os.environ, SYSTEM, COMPUTE), KEY_VARIABLE: self.key},
            name=f"local engine ({engine.name})",
            redact=[self.key],
        )
        try:
            self.process.wait_ready(
                self._answers, timeout=START_TIMEOUT, error=ServerUnavailableError
            )
        except ServerUnavailableError as error:
            said = _reasons(self.process.tail(200)) if self.process.poll() is not None else ""
            self.process.stop()
            if not said:
                raise
            raise ServerUnavailableError(
                f"{self.process.name} ended before it was ready: {said}",
                hint=f"are {engine.model} and {engine.mmproj} whole files of one model?",
            ) from error
        except BaseException:
            self.process.stop()
            raise

    def _answers(self) -> bool:
        """Whether it has said where it answers; that is kept, the log is not."""
        lines = self.process.tail(200).splitlines()
        said = (line[len(ADDRESS) :] for line in lines if line.startswith(ADDRESS))
        self.address = next(said, "")
        return bool(self.address)


def _reasons(log: str) -> str:
    """llama.cpp's errors, each once, without its clock and those that only repeat another."""
    said = (line.partition(" E ")[2] for line in log.splitlines())
    return "; ".join(dict.fromkeys(text for text in said if text and not _REPEATS.search(text)))


_REPEATS = re.compile(r"failed to (load|read)|exiting due to")
"""Lines that only say again, one level up, that something before them failed."""
