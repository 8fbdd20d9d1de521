"""What this machine remembers of its deployments: their keys, in files only their owner reads."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from internvl_modal.errors import DeployError

DEFAULT_ENVIRONMENT = "default"


@dataclass(frozen=True)
class Record:
    """One deployment; ``options`` are those it was made with."""

    app: str
    environment: str | None
    api_key: str = field(repr=False)
    options: dict[str, object]
    version: str = ""
    """What the last deploy from this machine has published, by the app's tag."""


def save(folder: Path, record: Record) -> None:
    """Keep ``record``, readable by its owner only; raises DeployError."""
    path = _path(folder, record.app, record.environment)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
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


def load(folder: Path, app: str, environment: str | None) -> Record | None:
    """The record of a deployment, None if this machine has none; raises DeployError."""
    path = _path(folder, app, environment)
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise DeployError(
            f"{path} cannot be read: {error}", hint="remove it and pass api_key="
        ) from error


def _path(folder: Path, app: str, environment: str | None) -> Path:
    return folder / "deployments" / (environment or DEFAULT_ENVIRONMENT) / f"{app}.json"
