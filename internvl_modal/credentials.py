"""Keys as people give them: checked, never quoted.

A key comes from a file, a shell or a web page, with a newline at its end as often as not. An HTTP
library would refuse such a header with a message that quotes it; here it is mended, or refused
without being shown.
"""

from __future__ import annotations

import os

from pydantic import SecretStr

from internvl_modal.errors import (
    ConfigError,
)
from internvl_modal.settings import Settings, variable_name


def checked_key(key: SecretStr | str | None, what: str = "the API key") -> SecretStr | None:
    """``key`` without the white space that files and shells leave around it; None if none is left.

    Raises ConfigError, which names ``what`` and never quotes the key, for one that cannot be sent.
    """
    text = key.get_secret_value() if isinstance(key, SecretStr) else key
    if not isinstance(text, str | None):
        raise ConfigError(f"{what} is not text", hint="give a string")
    text = text and text.strip()
    if text and not (text.isascii() and text.isprintable()):
        raise ConfigError(f"{what} holds characters that no key has", hint="copy it again")
    return SecretStr(text) if text else None


def proxy_token(settings: Settings) -> tuple[SecretStr, SecretStr] | None:
    """Modal's proxy token, where both of its parts are set; raises ConfigError.

    One part without the other is treated as none: Modal refuses half a token, and its message says
    so.
    """
    key = checked_key(settings.modal_key, variable_name("modal_key"))
    secret = checked_key(settings.modal_secret, variable_name("modal_secret"))
    return (key, secret) if key and secret else None


LOGIN_SOURCE = "INTERNVL_MODAL_HUB_LOGIN_SOURCE"
"""Says in a container where its Hugging Face token was, which the token itself does not."""


def hub_token_source(token: SecretStr | None, *, given: bool) -> str:
    """Where a Hugging Face token comes from, for messages; "" for none.

    ``given``: by a caller, and not found by huggingface_hub.
    """
    if token is None:
        return ""
    if told := os.environ.get(LOGIN_SOURCE):
        return told
    value = token.get_secret_value()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip() == value:
            return f"the variable {name}"
    return _given_from(value) if given else "the login of huggingface_hub"


def _given_from(value: str) -> str:
    try:
        known = checked_key(Settings.load().hf_token)
    except ConfigError:  # of another setting
        known = None
    return "HF_TOKEN in .env" if known and known.get_secret_value() == value else "token="


PROXY_VARIABLES = ("INTERNVL_MODAL_MODAL_KEY", "INTERNVL_MODAL_MODAL_SECRET")
