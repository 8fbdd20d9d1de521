"""The shape of a model by name, from the catalogue or the Hub.

Separate from the planner, which is pure: this file asks the Hub. A model of the catalogue is found
without a network, so that plans, previews and tests of listed models work offline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO

from internvl_modal.errors import ConfigError, PlanError
from internvl_modal.models.catalogue import find_model, unknown_model
from internvl_modal.models.config_json import spec_from_config
from internvl_modal.models.shapes import ModelSpec
from internvl_modal.settings import Settings


def model_spec(
    model: str, *, revision: str | None = None, endpoint: str | None = None
) -> ModelSpec:
    """Find a model in the catalog, or describe a repository from its files on the Hub.

    ``endpoint`` is another Hub's address. Raises ConfigError for a name that is neither listed nor
    ``owner/name``, WeightsError where the Hub cannot be asked, PlanError for what is no
    InternVL.
    """
    if found := find_model(model):
        return found
    # The Hub would take a bare word for one of its old repositories without an owner.
    if "/" not in model:
        raise unknown_model(model)
    config, sizes = _read_repository(model, revision or "main", endpoint)
    return spec_from_config(model, config, sizes)


class _InMemory(BytesIO):
    """A sink for one small file of the Hub.

    ``Hub.fetch`` writes into files that it can resume; this is the part of their interface that it
    uses, so a config of a few KB needs no temporary file.
    """

    name = "config.json"

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
    sink = _InMemory()
    try:
        repository = hub.repository(model, revision)
        sizes = {file.path: file.size for file in repository.files}
        for file in repository.files:
            if file.path == "config.json":
                hub.fetch(repository, file, sink, 0)
    except Exception as error:
        # What the Hub's client raises differs by its version; ``explain`` knows them all. What it
        # does not know is a fault of ours and comes out as it is.
        if told := explain(error, model, revision, None, hub):
            raise told from told.__cause__
        raise
    try:
        config = json.loads(sink.getvalue())
    except ValueError as error:
        raise ConfigError(f"{model}: it has no config.json that can be read") from error
    _check_code(model, config)
    return config, sizes


def _check_code(model: str, config: object) -> None:
    """Refuse a repository whose code lies in another one: raises PlanError.

    Fine-tuned models are often saved so. LMDeploy would fetch that code while it starts, whatever
    it is by then, and the containers that serve do not ask the Hub.
    """
    told = config.get("auto_map") if isinstance(config, dict) else None
    for name in told.values() if isinstance(told, dict) else ():
        other, there, module = str(name).partition("--")
        if there:
            file = module.partition(".")[0]
            raise PlanError(
                f"{model}: its config.json takes its code from another repository, {other}",
                hint=f"copy {file}.py and what it imports from {other} into {model}, and write "
                f"{module!r} in auto_map",
            )
