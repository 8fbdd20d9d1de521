"""The images that containers run in; whatever is installed in them has one version.

Pinned to the last digit: an image is built when it is first deployed and may be built again a year
later, and a server that changed meanwhile would no longer fit its plan. ``tools`` updates the list
of packages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from importlib.resources import files

from internvl_modal.engines.base import EngineOptions
from internvl_modal.errors import DeployError

PYTHON = "3.12"
"""Of Modal's own process. LMDeploy 0.7.3 keeps its 3.10, which Modal 1.7 will not run."""


EXTRAS = ("gateway", "formats")
NOT_THERE = ("modal", "typer", "uvicorn")
"""Modal brings its client and serves web apps itself; nobody types commands in a container."""
PINS = files("internvl_modal.deployment") / "image_packages.txt"
"""One version of each package, with all that they require in turn."""


@dataclass(frozen=True)
class ImageSpec:
    """A container image: its base, then its layers in order.

    ``packages`` are requirements for Modal's own Python, ``commands`` are run before they are
    installed, so that changing a package does not build the slow layers again.
    """

    base: str
    python: str
    packages: tuple[str, ...]
    commands: tuple[str, ...] = ()


@cache
def gpu_image(engine: type[EngineOptions], *, flash_attention: bool) -> ImageSpec:
    """The engine's own image with what the model's code needs, and this package's requirements.

    Without ``flash_attention`` for GPUs that flash-attn refuses at the first picture.

    Cached: the requirements are read from the distribution's files.
    """
    commands = engine.build(flash_attention=flash_attention)
    return ImageSpec(engine.image, PYTHON, _packages(), commands)


@cache
def cpu_image() -> ImageSpec:
    """Debian with this package's requirements."""
    return ImageSpec("debian_slim", PYTHON, _packages())


def bare_image() -> ImageSpec:
    """Debian alone, where nothing but Modal's client is needed."""
    return ImageSpec("debian_slim", PYTHON, ())


def required() -> list[str]:
    """What this distribution says that it requires, of it what containers need; as ranges.

    Raises DeployError where the package is not installed, but only lies on the path.
    """
    try:
        told = requires("internvl-modal") or []
    except PackageNotFoundError as error:
        hint = "pip install internvl-modal (or `pip install -e .` where it is developed)"
        raise DeployError("internvl-modal is not installed here", hint=hint) from error
    found = []
    # The distribution's own list, so that a new dependency reaches the container by itself.
    for requirement in told:
        need, _, marker = (part.strip() for part in requirement.partition(";"))
        extra = re.search(r"(?: and )?extra == ['\"]([\w-]+)['\"]", marker)
        if name_of(need) in NOT_THERE or (extra and extra[1] not in EXTRAS):
            continue
        rest = marker.replace(extra[0], "") if extra else marker
        found.append(f"{need}; {rest}" if rest else need)
    return sorted(found)


def name_of(requirement: str) -> str:
    """The normal form of a distribution's name at the start of ``requirement``.

    >>> name_of("Pillow_Heif>=0.21"), name_of("x.y==1")
    ('pillow-heif', 'x-y')
    """
    name = re.match(r"[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else ""


def _packages() -> tuple[str, ...]:
    """The pinned ones, and any requirement that has no pin."""
    pins = [line for line in PINS.read_text(encoding="utf-8").splitlines() if "==" in line]
    pinned = {name_of(pin) for pin in pins}
    return (*pins, *(need for need in required() if name_of(need) not in pinned))
