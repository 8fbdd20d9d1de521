"""Errors in the words of the command line: flags in place of Python's arguments.

What is raised below speaks to programs; the command that runs knows which arguments it has as
flags, and the rest are variables or stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from internvl_modal.errors import ConfigError, InternVLError, ServerError

__all__ = ["Flag", "in_flags", "remember", "spoken"]

_ARGUMENT = re.compile(r"\b(?:Client\()?([a-z][a-z_]*)=(\.\.\.\)?|'[^']*'|\w+(?:\.\w+)*)?")
_CALL = re.compile(r"describe_many\('([^']+)', (\w+)='([^']+)'\)")
_TWICE = re.compile(r"\bset (\w+) or set \1\b")
_VARIABLES = {
    "api_key": "INTERNVL_MODAL_API_KEY",
    "timeout": "INTERNVL_MODAL_TIMEOUT",
    "token": "HF_TOKEN",  # nosec B105  # a name
    "endpoint": "HF_ENDPOINT",
}
"""Arguments that are no flag: a key in a command would be in the history and in ``ps``."""


class Flag(NamedTuple):
    """A flag, and the one that says the opposite, where there is such a one."""

    name: str
    off: str = ""


class _Running(NamedTuple):
    flags: Mapping[str, Flag] = {}
    given: Mapping[str, object] = {}


_running = _Running()


def remember(parameters: Iterable[Any], given: Mapping[str, object]) -> None:
    """Errors are told from now on in the flags of a command, of click's ``parameters``."""
    global _running  # noqa: PLW0603 - a process runs one command
    flags = {
        each.name.strip("_"): Flag(max(each.opts, key=len), *each.secondary_opts[:1])
        for each in parameters
        if each.opts[0].startswith("-")
    }
    _running = _Running(flags, given)


def spoken(error: InternVLError) -> tuple[str, str]:
    """Message and hint as the command that runs tells them."""
    message, hint = error.message, in_flags(error.hint, _running.flags)
    if isinstance(error, ConfigError):  # others quote servers, files and pictures
        message = in_flags(message, _running.flags)
    return message, "; ".join(filter(None, [hint, _origin(error)]))


def in_flags(text: str, flags: Mapping[str, Flag]) -> str:
    """``text`` with flags where it names arguments.

    >>> in_flags("pass max_tokens=", {"max_tokens": Flag("--max-tokens")})
    'pass --max-tokens'
    >>> in_flags("begin anew: resume=False", {"resume": Flag("--resume", "--no-resume")})
    'begin anew: --no-resume'
    """
    text = _CALL.sub(r"internvl-modal batch \1 --\2 \3", text)
    text = re.sub(r"see help\(\w+\)", "see --help", text)
    text = _ARGUMENT.sub(lambda found: _flag(found, flags), text)
    # Without its "=" only what no sentence has by chance.
    for name, flag in flags.items():
        if "_" in name:
            text = re.sub(rf"(?<![\w./='-]){name}(?![\w./='-])", flag.name, text)
    return _TWICE.sub(r"set \1", text.replace("pass INTERNVL_MODAL_", "set INTERNVL_MODAL_"))


def _flag(found: re.Match[str], flags: Mapping[str, Flag]) -> str:
    name, value = found[1], found[2]
    flag = flags.get(name)
    if flag is not None:
        if value == "False" and flag.off:
            return flag.off
        if value in (None, "True", "...", "...)"):
            return flag.name
        bare = value.strip("'")
        return f"{flag.name} {bare if bare.isalnum() else value}"
    if name in _VARIABLES and value is None:
        return _VARIABLES[name]
    return f"--option {found[0]}" if "options" in flags and value is None else found[0]


def _origin(error: InternVLError) -> str:
    """Where the server's address was found, if not in the command."""
    given = _running.given
    named = given.get("base_url") or given.get("backend") not in (None, "endpoint")
    about = isinstance(error, ConfigError) and error.message.startswith("base_url")
    unanswered = isinstance(error, ServerError) and error.status != 200
    if "backend" not in given or named or not (about or unanswered):
        return ""
    from internvl_modal.settings import source_of

    place = source_of("base_url")
    return place and f"the address is INTERNVL_MODAL_BASE_URL's, from {place}"
