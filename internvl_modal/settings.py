"""Settings: arguments, then environment, then ``.env``, then defaults.

Read when something is made and never at import, so that a test or a notebook may set a variable
first. The command line's options are arguments like any other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
)

from internvl_modal._utils.user_warning import warn_user
from internvl_modal.errors import ConfigError
from internvl_modal.schema.validation import explain

PREFIX = "INTERNVL_MODAL_"
_DEPLOYING = f"{PREFIX}DEPLOY_"
_TOLD = frozenset(
    PREFIX + name
    for name in (
        *("COMPLETE", "CONTAINER", "ENGINE_ARGUMENTS", "ENGINE_KEY", "HUB_LOGIN_SOURCE"),
        *("PRELOAD", "SCHEDULE", "VERSION_KEY", "WEIGHTS_ROOT"),
    )
)
"""Variables that are no settings: what this package tells its own containers and processes."""


def _user_dir(variable: str, fallback: str, windows: str) -> Path:
    """The platform's folder for this package's files (XDG base directories on Unix).

    An empty variable counts as none, as the specification of XDG has it.
    """
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "internvl-modal" / windows
    return Path(os.environ.get(variable) or Path.home() / fallback) / "internvl-modal"


def _cache_dir() -> Path:
    return _user_dir("XDG_CACHE_HOME", ".cache", "cache")


def _state_dir() -> Path:
    return _user_dir("XDG_STATE_HOME", ".local/state", "state")


class Settings(BaseModel):
    """Every setting, listed once; ``load`` reads each from ``INTERNVL_MODAL_<NAME>``.

    Without pydantic-settings, whose import takes longer than all the rest of making a client.

    >>> Settings.load(timeout=5).timeout  # doctest: +SKIP
    5.0
    """

    # A ``.env`` belongs to the whole project and holds others' variables as well.
    model_config = ConfigDict(
        extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    base_url: str | tuple[str, ...] | None = Field(
        None, repr=False, description="URL of an OpenAI-compatible server, or several of one model."
    )  # may hold a password
    api_key: SecretStr | None = Field(None, description="Key of that server, sent as a bearer.")
    model: str | None = Field(None, description="Model to ask for, or to run locally.")
    gateway_key: SecretStr | None = Field(
        None, description="Key that the gateway of `serve` asks for; a new one by default."
    )
    timeout: float = Field(600.0, gt=0, description="Seconds for one call, retries included.")
    cache_dir: Path = Field(default_factory=_cache_dir, description="Folder for model files.")
    state_dir: Path = Field(
        default_factory=_state_dir, description="Folder for the keys of deployments."
    )
    modal_key: SecretStr | None = Field(None, description="Modal proxy auth token id.")
    modal_secret: SecretStr | None = Field(None, description="Modal proxy auth token secret.")
    hf_token: SecretStr | None = Field(
        None, validation_alias="HF_TOKEN", description="Hugging Face token; optional."
    )

    @field_validator("base_url")
    @classmethod
    def _some(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if value == ():
            raise ValueError("it names no server")
        return value

    _given: frozenset[str] = PrivateAttr(frozenset())

    @property
    def given(self) -> frozenset[str]:
        """Names of those that were passed as arguments."""
        return self._given

    @classmethod
    def load(cls, **arguments: object) -> Settings:
        """Settings with ``arguments`` that are not None on top; raises ConfigError.

        ``given`` remembers which came as arguments: a key that was passed wins over one that a
        deployment has kept, and one from the environment does not.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        with errors_of_settings(PREFIX):
            made = cls.model_validate({**_variables(), **given})
        made._given = frozenset(given)
        for said in misspelt_variables():
            warn_user(said)
        return made


def _variables() -> dict[str, str]:
    """What the environment, or else ``.env``, says; names in any case, nothing that is empty."""
    fields = {variable_name(name).lower(): name for name in Settings.model_fields}
    said: dict[str, str] = {}
    for source in (_env_file(), os.environ):
        for name, value in source.items():
            if value and (field := fields.get(name.lower())):
                said[field] = value
    return said


def source_of(field: str) -> str:
    """Where ``field`` is set, "the environment" or ".env"; empty where it is not."""
    name = variable_name(field).lower()
    for source, place in ((os.environ, "the environment"), (_env_file(), ".env")):
        if any(value and each.lower() == name for each, value in source.items()):
            return place
    return ""


def misspelt_variables(deploying: Iterable[str] = ()) -> list[str]:
    """A sentence for each variable by a name of ours that nobody reads.

    ``deploying``: names of the variables of ``modal deploy``, which are passed over without them;
    those of our tests always are.
    """
    known, others = [*map(variable_name, Settings.model_fields), *deploying], (*_TOLD,)
    passed = (f"{PREFIX}TEST_",) if deploying else (f"{PREFIX}TEST_", _DEPLOYING)
    told = []
    for source, place in ((os.environ, "the environment"), (_env_file(), ".env")):
        for name in source:
            upper = name.upper()
            if upper.startswith(PREFIX) and not upper.startswith(passed):
                if upper in known or upper in others:
                    continue
                near = "".join(get_close_matches(upper, known, n=1, cutoff=0.8))
                hint = f"; did you mean {near}?" if near else ""
                told.append(f"{name}, from {place}, is no setting{hint}")
    return told


def _env_file() -> Mapping[str, str | None]:
    if not Path(".env").is_file():
        return {}
    from dotenv import dotenv_values

    return dotenv_values(".env", encoding="utf-8")


@contextmanager
def errors_of_settings(prefix: str) -> Iterator[None]:
    """Turn what settings that cannot be read raise into ConfigError."""
    try:
        yield
    except ValidationError as error:
        hint = f"check the arguments, {prefix}* variables and .env"
        raise ConfigError(explain(error), hint=hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError(".env is not text in UTF-8", hint="save it as UTF-8") from error


def variable_name(field: str) -> str:
    """Environment variable that holds ``field``."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


def settings_table() -> str:
    """All settings as a Markdown table: variable, default, meaning.

    ``docs/settings.md`` is held equal to it by a test.
    """
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, info in Settings.model_fields.items():
        folders = {"cache_dir": "the user's cache folder", "state_dir": "the user's state folder"}
        default = folders.get(name) or ("" if info.default is None else f"`{info.default}`")
        rows.append(f"| `{variable_name(name)}` | {default} | {info.description} |")
    return "\n".join(rows) + "\n"
