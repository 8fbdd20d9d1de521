"""A repository whose name tells nothing, deployed as the model that it was made from."""

from __future__ import annotations

import pytest

from internvl_modal.deployment.api import deploy
from internvl_modal.errors import DeployError
from internvl_modal.models.families import SYSTEM_MESSAGE, family_of


def test_the_served_name_tells_the_family() -> None:
    """Nothing is asked of the Hub, and what clients read off the name is the family's."""
    made = deploy("someone/captions", family="internvl3_5-8b-hf", dry_run=True)
    container = made.spec.container
    assert (container.model, container.served) == ("someone/captions", "captions-internvl3_5-8b-hf")
    family = family_of(container.served)
    assert family is not None
    assert (family.system, family.converted) == (SYSTEM_MESSAGE, True)
    assert made.options.engine == container.engine == "lmdeploy"
    assert made.options.family == "internvl3_5-8b-hf"
    again = deploy(made.options.model, family=made.options.family, dry_run=True)
    assert again.spec == made.spec


def test_a_flash_model_gets_the_engine_of_its_family() -> None:
    argv = deploy("someone/captions", family="internvl3_5-8b-flash", dry_run=True).spec.argv
    assert argv[argv.index("--backend") + 1] == "pytorch"


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(DeployError, match="unknown model 'internvl9'"):
        deploy("someone/captions", family="internvl9", dry_run=True)
