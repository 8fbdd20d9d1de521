"""The shape of a model by name, from the catalogue or the Hub.

Separate from the planner, which is pure: this file asks the Hub. A model of the catalogue is found
without a network, so that plans, previews and tests of listed models work offline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from io import BytesIO

from internvl_modal.errors import ConfigError, PlanError
from internvl_modal.models.catalogue import find_model, of_family, unknown_model
from internvl_modal.models.config_json import spec_from_config
from internvl_modal.models.shapes import ModelSpec
from internvl_modal.settings import Settings

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def model_spec(
    model: str,
    *,
    revision: str | None = None,
    family: str | None = None,
    endpoint: str | None = None,
) -> ModelSpec:
    """Find a model in the catalog, or describe a repository from its files on the Hub.

    ``endpoint`` is another Hub's address. With ``family``, the name of the catalog's model that the
    repository was made from, its shape is taken and nothing is asked. Raises ConfigError for a name
    that is neither listed nor ``owner/name``, WeightsError where the Hub cannot be asked, PlanError
    for what is no InternVL.
    """
    if found := find_model(model):
        if family is not None:
            raise ConfigError(
                f"{found.name} is listed, and family={family!r} is for what is not",
                hint="leave family out",
            )
        return found
    # The Hub would take a bare word for one of its old repositories without an owner.
    if "/" not in model:
        raise unknown_model(model)
    if family is not None:
        # Nobody is asked, so that a wrong name would show in a container only.
        if not _REPOSITORY.fullmatch(model):
            raise ConfigError(
                f"{model!r} is not a repository's name", hint="write it as owner/name"
            )
        return of_family(model, family)
    config, sizes = _read_repository(model, revision or "main", endpoint)
    return spec_from_config(model, config, sizes)


CONFIGS = ("config.json", "tokenizer_config.json", "preprocessor_config.json")
"""Files of a repository that say where the code is which LMDeploy runs; the first must be there."""


class _InMemory(BytesIO):
    """A sink for one small file of the Hub.

    ``Hub.fetch`` writes into files that it can resume; this is the part of their interface that it
    uses, so a config of a few KB needs no temporary file.
    """

    name = "a configuration"

    def restart(self) -> None:
        """Begin again."""
        self.seek(0)
        self.truncate()


def _read_repository(
    model: str, revision: str, endpoint: str | None
) -> tuple[Mapping[str, object], Mapping[str, int]]:
    """The parsed ``config.json`` and the size in bytes of every file at ``revision``.

    Raises what ``explain`` makes of the Hub's errors (WeightsError with a hint), ConfigError for a
    config that is missing or no JSON, PlanError for code that lies elsewhere.
    """
    from internvl_modal.weights.hub import Hub
    from internvl_modal.weights.hub_errors import explain

    token = Settings.load().hf_token
    hub = Hub(token.get_secret_value() if token else None, endpoint)
    found = {name: _InMemory() for name in CONFIGS}
    try:
        repository = hub.repository(model, revision)
        sizes = {file.path: file.size for file in repository.files}
        for file in repository.files:
            if file.path in found:
                hub.fetch(repository, file, found[file.path], 0)
    except Exception as error:
        # What the Hub's client raises differs by its version; ``explain`` knows them all. What it
        # does not know is a fault of ours and comes out as it is.
        if told := explain(error, model, revision, None, hub):
            raise told from told.__cause__
        raise
    config: Mapping[str, object] = {}
    for name, sink in found.items():
        held = sink.getvalue()
        if not held and name != CONFIGS[0]:
            continue
        try:
            document = json.loads(held)
        except ValueError as error:
            raise ConfigError(f"{model}: it has no {name} that can be read") from error
        _check_code(model, name, document)
        if name == CONFIGS[0]:
            config = document
    return config, sizes


def _check_code(model: str, file: str, document: object) -> None:
    """Refuse a repository whose code lies in another one: raises PlanError.

    Fine-tuned models are often saved so. LMDeploy would fetch that code while it starts, whatever
    it is by then, and the containers that serve do not ask the Hub.
    """
    told = document.get("auto_map") if isinstance(document, dict) else None
    for named in told.values() if isinstance(told, dict) else ():
        # A tokenizer has two classes, a slow and a fast one, of which one may be missing.
        for name in named if isinstance(named, list) else [named]:
            other, there, module = str(name).partition("--")
            if there:
                raise PlanError(
                    f"{model}: its {file} takes its code from another repository, {other}",
                    hint=f"copy {module.partition('.')[0]}.py and what it imports from {other} "
                    f"into {model}, and write {module!r} in auto_map",
                )
