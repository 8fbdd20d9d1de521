"""What this machine remembers of its deployments: their keys, in files only their owner reads.

A file a deployment, by workspace, environment and app.

The tags of an app on Modal say what is deployed now: its version, model and GPUs. A record counts
as far as they agree with it: its options where it is of that version, its key where that version
was made with it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from pydantic import SecretStr

from internvl_modal.deployment import modal_api
from internvl_modal.deployment.spec import DeploymentSpec
from internvl_modal.errors import (
    DeployError,
)
from internvl_modal.settings import Settings


@dataclass(frozen=True)
class Record:
    """One deployment; ``options`` are those it was made with.

    Versions that are not among ``versions`` were deployed by another machine.
    """

    app: str
    workspace: str
    environment: str
    api_key: str = field(repr=False)
    versions: dict[str, dict[str, object]]
    """Options by version: of the last one made here and, until that is deployed, the one before."""

    def options_of(self, tags: Mapping[str, str] | None) -> dict[str, object] | None:
        """Those of what is deployed now, where this machine has made it."""
        return self.versions.get(tags.get("version", "")) if tags else None

    def opens(self, tags: Mapping[str, str] | None) -> bool:
        """Whether its key is that of what is deployed now, or nothing is.

        Told from the version's name alone, without asking anybody: it is an HMAC of salt and key.
        """
        if tags is None:
            return True
        version = tags.get("version", "")
        return version == _version(version.partition("-")[0], self.api_key)


def new_version(api_key: str) -> str:
    """A name for what is published now; from it and the key alone it can be told whose it is."""
    return _version(secrets.token_hex(8), api_key)


def _version(salt: str, api_key: str) -> str:
    """``salt`` and half a digest of it under the key: it goes into a tag, and does not give the key
    away.
    """
    digest = hmac.new(salt.encode(), api_key.encode(), hashlib.sha256).hexdigest()
    return f"{salt}-{digest[:16]}"


def save(folder: Path, record: Record) -> None:
    """Keep ``record``, readable by its owner only; raises DeployError.

    Written beside and renamed: a crash leaves the old record or the new one. Created with its mode,
    as a ``chmod`` afterwards would leave a moment in which others can read it.
    """
    path = _path(folder, record.workspace, record.environment, record.app)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # O_EXCL below refuses a file that is there, and a link that somebody has put in its place.
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        draft.replace(path)
    except OSError as error:
        raise DeployError(
            f"the key cannot be kept in {path}: {error.strerror}",
            hint="set INTERNVL_MODAL_STATE_DIR to a folder that can be written",
        ) from error


def load(folder: Path, workspace: str, environment: str, app: str) -> Record | None:
    """The record of a deployment, None if this machine has none; raises DeployError."""
    path = _path(folder, workspace, environment, app)
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise DeployError(
            f"{path} cannot be read: {error}", hint="remove it and pass api_key="
        ) from error


def _path(folder: Path, workspace: str, environment: str, app: str) -> Path:
    """Names of apps repeat between workspaces: each has a folder of its own."""
    # Two dots would leave the folder; ``quote`` leaves them as they are.
    parts = (quote(part, safe="").replace("..", "%2E.") for part in (workspace, environment))
    return folder.expanduser().joinpath("deployments", *parts, f"{app}.json")


def recorded(settings: Settings, app: str, environment: str | None) -> Record | None:
    """What this machine knows of a deployment; raises DeployError where that cannot be read."""
    where = (modal_api.workspace_name(), modal_api.environment_name(environment))
    return load(settings.state_dir, *where, app)


def remember(
    spec: DeploymentSpec,
    key: SecretStr,
    settings: Settings,
    version: str,
    before: Mapping[str, dict[str, object]] | None = None,
) -> None:
    """Keep what another deploy needs; ``before`` is what is deployed until this is."""
    where = (modal_api.workspace_name(), modal_api.environment_name(spec.environment))
    versions = {**(before or {}), version: spec.options.model_dump(exclude_none=True)}
    record = Record(spec.app, *where, key.get_secret_value(), versions)
    save(settings.state_dir, record)
