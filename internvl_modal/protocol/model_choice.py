"""Which of the models that a server lists is meant, and what its entry tells.

A server of one's own lists one model, a router hundreds. Guessing among several would ask, and pay,
a model that nobody meant: where names leave a choice, the caller is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from internvl_modal.errors import ConfigError, ServerError
from internvl_modal.models.families import family_of
from internvl_modal.protocol.endpoint import Endpoint
from internvl_modal.protocol.http import Json

_OTHER_WORK = re.compile(
    r"embed|rerank|whisper|\b(?:bge|gte|e5)-|colbert|\b(?:tts|stt|asr)\b|speech|audio|moderation"
    r"|voxtral|parakeet|kokoro|\bdall-e|stable-diffusion|\bflux\b",
    re.IGNORECASE,
)
"""In the names of models that describe no pictures: embedding, reranking, audio, drawing."""


def choose_model(listed: Sequence[Json], endpoint: Endpoint) -> str:
    """The model to ask where nobody names one: the only one, or the only InternVL.

    Raises ConfigError that lists them where that leaves a choice, ServerError where the server
    lists none.
    """
    hint = "pass model= or set INTERNVL_MODAL_MODEL"
    if not listed:
        raise ServerError(f"{endpoint.base_url} lists no model", hint=hint)
    able = [entry for entry in listed if _describes(entry)]
    named = [entry for entry in able if family_of(*_names(entry)) is not None] or able
    # LoRA adapters have a root of their own in vLLM and stay apart.
    roots = {entry.get("root") or entry["id"] for entry in named}
    if len(roots) == 1:  # several names of one model are vLLM's --served-model-name
        return str(named[0]["id"])
    names = ", ".join(repr(entry["id"]) for entry in (named or listed)[:20])
    if not able:
        raise ConfigError(
            f"{endpoint.base_url} lists no model that sees pictures: {names}", hint=hint
        )
    raise ConfigError(f"{endpoint.base_url} lists several models: {names}", hint=hint)


def entry_of(model: str, listed: Sequence[Json]) -> Json | None:
    """The entry of ``model``; where no entry has its name, what all entries agree on.

    llama.cpp answers to any name, so that a list of one server's models tells the server.
    """
    for entry in listed:
        aliases = entry.get("aliases")
        named = [entry["id"], *(aliases if isinstance(aliases, list) else [])]
        # Ollama adds the tag where none is given.
        if model in named or f"{model}:latest" in named:
            return entry
    owners = {str(entry.get("owned_by")) for entry in listed}
    return {"owned_by": listed[0].get("owned_by")} if len(owners) == 1 else None


def model_names(model: str, entry: Json | None) -> tuple[str, ...]:
    """Every name of the model, the one asked for first."""
    return (model, *(_names(entry) if entry else ()))


def _names(entry: Json) -> tuple[str, ...]:
    """Its id, and the repository behind it where the server tells (vLLM's ``root``)."""
    names = (entry.get(name) for name in ("id", "root", "name"))
    return tuple(name for name in names if isinstance(name, str))


def _describes(entry: Json) -> bool:
    """Whether a model could describe pictures, by its name and by what its entry says."""
    kind = str(entry.get("type")).lower()
    # Together's ``type``: what a model makes, and not what it sees.
    if kind in ("image", "video") or _OTHER_WORK.search(kind):  # it draws, or other work
        return False
    # OpenRouter's form, which others have taken over.
    design = entry.get("architecture")
    seen = design.get("input_modalities") if isinstance(design, dict) else None
    if isinstance(seen, list) and "image" not in seen:
        return False
    name = str(entry["id"])
    if family_of(*_names(entry)) is not None:  # then the folder that it lies in tells nothing
        name = name.rstrip("/").rpartition("/")[2]
    return not _OTHER_WORK.search(name)
