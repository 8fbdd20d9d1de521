"""The key of a deployment: made, kept, and put into the container's secrets.

The key is made by whoever deploys first and kept on that machine; Modal keeps it in a Secret, which
cannot be read back. So a second machine has to be told it, and must not make a new one: the old
key's users would be locked out without a word.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

from pydantic import SecretStr

from internvl_modal.credentials import (
    LOGIN_SOURCE,
    PROXY_VARIABLES,
    checked_key,
    hub_token_source,
    proxy_token,
)
from internvl_modal.deployment import modal_api
from internvl_modal.deployment.container_config import KEY, VERSION_KEY
from internvl_modal.deployment.modal_build import Secrets
from internvl_modal.deployment.options import DeployOptions
from internvl_modal.deployment.records import Record
from internvl_modal.deployment.spec import HUB, HUGGING_FACE, DeploymentSpec
from internvl_modal.engines.registry import engine_of
from internvl_modal.errors import (
    ConfigError,
    DeployError,
)
from internvl_modal.settings import Settings

LOCAL = ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_XET_CACHE")
"""Variables that are about this machine.

Paths of this machine mean nothing in a container, and a container must be able to download.
"""


def check_key(spec: DeploymentSpec, key: SecretStr | str) -> None:
    """Refuse a key that the engine could not be started with, a second one beside it.

    Beside a second one, since a parser treats several differently from one.
    """
    engine_of(spec.plan.engine).parse(api_keys=[key, new_key()], **spec.plan.settings)


def new_key() -> SecretStr:
    """A key with a prefix, as no engine takes a dash before one of several."""
    return SecretStr(f"ivl-{secrets.token_urlsafe(32)}")


def container_variables(
    key: SecretStr, proxy: tuple[SecretStr, SecretStr] | None
) -> dict[str, str]:
    """What lets a container ask the deployment."""
    variables = {KEY: key.get_secret_value()}
    if proxy is not None:
        values = (value.get_secret_value() for value in proxy)
        variables |= zip(PROXY_VARIABLES, values, strict=True)
    return variables


def key_for(
    spec: DeploymentSpec,
    settings: Settings,
    record: Record | None,
    tags: Mapping[str, str] | None,
) -> SecretStr:
    """The key of what is deployed, or one for a new deployment; raises DeployError."""
    if record is not None and record.opens(tags):
        return SecretStr(record.api_key)
    # Nothing is deployed: whatever was kept opens nothing any more.
    if tags is None:
        return new_key()
    if key := checked_key(settings.api_key):
        return key
    raise DeployError(
        f"{spec.app} is deployed already, with a key that is not on this machine",
        hint="pass api_key= or set INTERNVL_MODAL_API_KEY: the old key keeps its users, "
        "a new one replaces it",
    )


def app_secrets(
    spec: DeploymentSpec,
    settings: Settings,
    key: SecretStr,
    proxy: tuple[SecretStr, SecretStr] | None,
    version_key: SecretStr | None = None,
) -> Secrets:
    """The API key, and what Hugging Face token there is: on Modal, here, or none.

    None as a value stands for the Secret of that name on Modal, which this machine cannot read.
    """
    variables = container_variables(key, proxy)
    if version_key is not None:
        variables[VERSION_KEY] = version_key.get_secret_value()
    found: dict[str, dict[str, str] | None] = {KEY: variables}
    switches = hub_switches(os.environ)
    if modal_api.secret_exists(HUGGING_FACE, spec.environment):
        found[HUGGING_FACE] = None
        switches[LOGIN_SOURCE] = f"the Secret {HUGGING_FACE} on Modal"
    elif (token := checked_key(settings.hf_token)) is not None:
        found[HUGGING_FACE] = {"HF_TOKEN": token.get_secret_value()}
        source = hub_token_source(token, given=True)
        switches[LOGIN_SOURCE] = f"{source} on the machine that deployed"
    if switches:
        found[HUB] = switches
    return found


def hub_switches(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables by which huggingface_hub is told where the Hub is and how to ask it.

    A token belongs to the Hub that this machine asks: the container must ask the same.
    """
    return {
        name: value
        for name, value in environment.items()
        if name == "HF_ENDPOINT" or (name.startswith(("HF_HUB_", "HF_XET_")) and name not in LOCAL)
    }


def required_proxy(
    settings: Settings, options: DeployOptions
) -> tuple[SecretStr, SecretStr] | None:
    """Modal's proxy token where the options ask for it; raises ConfigError where there is none."""
    if not options.proxy_auth:
        return None
    token = proxy_token(settings)
    if token is None:
        raise ConfigError(
            "proxy_auth needs a Modal proxy token",
            hint="set INTERNVL_MODAL_MODAL_KEY and INTERNVL_MODAL_MODAL_SECRET",
        )
    return token
