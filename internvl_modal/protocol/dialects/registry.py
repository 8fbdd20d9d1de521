"""Which dialect a server speaks: a row a server.

``owned_by`` is not meant for this, and is the only thing that all of them say of themselves without
a key to their metrics or a request that costs tokens. Who signs as somebody else is spoken to as
that one.
"""

from __future__ import annotations

from collections.abc import Mapping

from internvl_modal.errors import ConfigError
from internvl_modal.protocol.dialects.base import Dialect
from internvl_modal.protocol.dialects.gateway import Gateway
from internvl_modal.protocol.dialects.llamacpp import LlamaCpp
from internvl_modal.protocol.dialects.llamaswap import LlamaSwap
from internvl_modal.protocol.dialects.lmdeploy import LMDeploy, LMDeploy013
from internvl_modal.protocol.dialects.lmstudio import LMStudio
from internvl_modal.protocol.dialects.ollama import Ollama
from internvl_modal.protocol.dialects.openai import OpenAI
from internvl_modal.protocol.dialects.sglang import SGLang
from internvl_modal.protocol.dialects.vllm import VLLM
from internvl_modal.protocol.endpoint import Capabilities
from internvl_modal.protocol.http import Json

SERVERS: Mapping[str | None, tuple[Dialect, ...]] = {
    "internvl-modal": (Gateway(),),
    "lmdeploy": (LMDeploy(), LMDeploy013()),
    "llamacpp": (LlamaCpp(),),
    "vllm": (VLLM(),),
    "sglang": (SGLang(),),
    "library": (Ollama(),),
    "organization_owner": (LMStudio(),),
    "llama-swap": (LlamaSwap(),),
    None: (OpenAI(),),
}
"""``owned_by`` in ``/v1/models``, where servers sign their names, and their versions' dialects.

Ollama gives a model's namespace there, LM Studio what OpenAI once gave.
"""

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for versions in SERVERS.values() for dialect in versions
}
"""By the name in ``Capabilities.dialect``; the same objects as in ``SERVERS``."""


def dialect_of(capabilities: Capabilities) -> Dialect:
    """The dialect that ``capabilities`` names; raises ConfigError for an unknown one."""
    if capabilities.dialect not in DIALECTS:
        raise ConfigError(
            f"there is no dialect {capabilities.dialect!r}", hint=f"one of {', '.join(DIALECTS)}"
        )
    return DIALECTS[capabilities.dialect]


def dialect_of_owner(entry: Json | None) -> Dialect:
    """The dialect of the server that signs an entry of ``/v1/models``."""
    owner = entry.get("owned_by") if entry else None
    return SERVERS.get(owner if isinstance(owner, str) else None, SERVERS[None])[0]
