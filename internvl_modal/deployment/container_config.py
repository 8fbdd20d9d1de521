"""What a container is told through its environment, and where things lie in it.

Standard library only: Modal imports it in every container.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

CONFIG = "INTERNVL_MODAL_CONTAINER"
"""Name of the variable that holds all of ``ContainerConfig``."""


KEY = "INTERNVL_MODAL_API_KEY"
"""The same name as on a user's machine, so that clients in a container find it by themselves."""


VERSION_KEY = "INTERNVL_MODAL_VERSION_KEY"
"""Holds a second key, new with each deploy, that tells its containers from older ones.

An old container refuses it, so whoever is answered with it has reached the new version.
"""


WEIGHTS_ROOT = "INTERNVL_MODAL_WEIGHTS_ROOT"


MOUNT = "/mnt/weights"


VOLUMES = "/mnt/volumes"
"""Volumes of a batch are mounted below it by their names."""


BUCKET = "/mnt/bucket"
"""The folder of a bucket that a batch reads is mounted there."""


PORT = 23333
"""LMDeploy's own default. In a container it collides with nothing."""


PRELOAD = "INTERNVL_MODAL_PRELOAD"
"""Set where Modal takes a snapshot of the container's memory once its modules are imported."""


NOT_THE_ENGINES = ("MODAL_", "INTERNVL_MODAL_")
"""What the names of variables begin with that the engine does not get.

Modal's tokens and this package's keys: the model's own Python code runs in the engine.
"""


@dataclass(frozen=True)
class ContainerConfig:
    """What the functions need to know, carried in one variable as JSON; times in seconds.

    One JSON variable, so that a new field needs no new name on both sides, and so that no field can
    be overridden alone by a secret of the same name. It holds no key: those are in a Secret.
    """

    app: str
    environment: str | None
    model: str
    revision: str | None
    served: str
    volume: str
    startup_timeout: int
    engine: str
    """A name in ``engines.registry``."""
    machines: tuple[dict[str, Any], ...] = field(repr=False)
    """What the engine is started with on each of the machines that it may find itself on.

    Each has ``gpu``, a type and how many, ``memory``, bytes of one, and ``settings``, the engine's
    options by their names.
    """
    engine_args: tuple[str, ...] = ()
    """Further ones, as on its command line."""
    env: dict[str, str] = field(default_factory=dict, repr=False)
    """Variables of the engine beside the image's."""
    liveness: float = 0
    """How long the engine may be silent while requests run; 0: for ever."""
    sessions: int | None = None
    """Requests that one engine answers at once, by the plan."""
    startup: tuple[float, float] | None = None
    """Seconds of a cold start, at best and at worst, by the plan."""
    picture_usd: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    """What a picture of one tile, two tiles and so on costs, at best and at worst, by the plan."""
    version: str = ""
    """Of the deploy; it marks lines in the log."""

    @property
    def mark(self) -> str:
        """What lines that tell of a start begin with."""
        return f"internvl-modal {self.version}: "

    def to_environment(self) -> dict[str, str]:
        """Variables for a container."""
        return {CONFIG: json.dumps(asdict(self)), WEIGHTS_ROOT: MOUNT}

    @classmethod
    def from_environment(cls) -> ContainerConfig:
        """What ``to_environment`` put there."""
        return cls(**json.loads(os.environ[CONFIG]))
