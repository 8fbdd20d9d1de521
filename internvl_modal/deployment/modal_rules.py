"""What Modal takes for a name, a region and a number of GPUs; checked before it is asked.

From the client of 1.6.4 (``modal/_utils/name_utils.py``), which checks most of it only when a
deploy is under way, and from modal.com/docs/guide/region-selection. Nothing here talks to Modal.
"""

from __future__ import annotations

import re

from internvl_modal.deployment.options import DeployOptions
from internvl_modal.errors import ConfigError, DeployError
from internvl_modal.planning.gpus import parse_gpu

OBJECT = re.compile(r"[A-Za-z0-9._-]{1,64}")
APP_ID = re.compile(r"ap-[A-Za-z0-9]{22}")
"""Modal takes such a name for an id, and would look for another app."""
ENVIRONMENT = re.compile(r"(?!en-)[a-z0-9][a-z0-9._-]{0,63}", re.IGNORECASE)
PLACES = ("af", "ap", "au", "ca", "eu", "jp", "me", "mx", "sa", "uk", "us")
"""Beginnings of the regions that Modal documents; parts of them are checked by form only, since new
ones come.
"""
REGION = re.compile(rf"(?:{'|'.join(PLACES)})(?:-[a-z]+)?(?:-[0-9]+)?")


def check_options(options: DeployOptions) -> None:
    """Refuse what Modal would refuse; raises DeployError that names the option."""
    for what in ("name", "volume"):
        if (value := getattr(options, what)) is not None:
            check_name(what, value)
    check_environment(options.environment)
    if options.region is not None and not REGION.fullmatch(options.region):
        raise DeployError(
            f"region={options.region!r} is none of Modal's",
            hint=f"{', '.join(PLACES)}, or a part of one, such as us-east or eu-west",
        )
    for what in ("gpu", "download_gpu"):
        if (value := getattr(options, what)) is not None:
            for each in value.split(","):
                _check_gpu(what, each)


def check_name(what: str, value: str) -> None:
    """Refuse what cannot be the name of an app, a Volume or a Secret."""
    if not OBJECT.fullmatch(value) or APP_ID.fullmatch(value):
        raise DeployError(
            f"{what}={value!r} cannot be a name on Modal",
            hint=f"{what}= takes up to 64 letters, digits, dots, dashes and underscores, "
            "and nothing of the form of an app's id",
        )


def check_environment(value: str | None) -> None:
    """Refuse what cannot be the name of an environment."""
    if value is not None and not ENVIRONMENT.fullmatch(value):
        raise DeployError(
            f"environment={value!r} cannot be an environment of Modal",
            hint="up to 64 letters, digits, dots, dashes and underscores; a letter or digit first, "
            "and not en-",
        )


def _check_gpu(what: str, value: str) -> None:
    try:
        gpu, count = parse_gpu(value)
    # As DeployError: deploying has one kind of error for whatever Modal would refuse.
    except ConfigError as error:
        raise DeployError(f"{what}={value!r}: {error.message}", hint=error.hint) from error
    if count > gpu.max_count:
        raise DeployError(
            f"{what}={value!r}: Modal offers at most {gpu.max_count} {gpu.name} in one machine",
            hint=f"{gpu.name}:{gpu.max_count} or another GPU",
        )
