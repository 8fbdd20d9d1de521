"""A batch that runs on Modal: from one Volume to another, part by part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from internvl_modal import modal_objects
from internvl_modal.batch.options import Job
from internvl_modal.batch.outcome import fingerprint
from internvl_modal.batch.sinks import Keys
from internvl_modal.batch.sources import is_picture
from internvl_modal.deploy_spec import CPU_IMAGE, FunctionSpec
from internvl_modal.errors import ConfigError, DeployError
from internvl_modal.modal_objects import errors_of, modal_output
from internvl_modal.modal_runtime import KEY, VOLUMES
from internvl_modal.schema import Options

if TYPE_CHECKING:
    from internvl_modal.deployment import Deployment

__all__ = ["Mapped", "map_volume"]

DAY = 86_400
"""Most seconds that Modal lets a call run."""


@dataclass(frozen=True)
class Mapped:
    """What a batch on Modal came to; ``files`` are those it wrote, VOLUME/FOLDER/part-N.jsonl."""

    described: int
    failed: int
    skipped: int
    """Pictures of parts that were there."""
    files: tuple[str, ...]


class _Place:
    """A folder of a Volume, written VOLUME/FOLDER."""

    def __init__(self, text: str, environment: str | None, *, create: bool) -> None:
        import modal

        self.volume, _, self.folder = text.strip("/").partition("/")
        if not self.volume:
            raise ConfigError(f"{text!r} names no Volume", hint="give VOLUME/FOLDER")
        self.text = f"{self.volume}/{self.folder}".rstrip("/")
        self._handle = modal.Volume.from_name(
            self.volume, environment_name=environment, create_if_missing=create
        )

    def files(self) -> Iterator[str]:
        """Files below it, by their paths in the Volume; none where there is no such folder."""
        from modal.exception import NotFoundError
        from modal.types import FileEntryType

        try:
            for entry in self._handle.iterdir(f"/{self.folder}", recursive=True):
                if entry.type == FileEntryType.FILE:
                    yield entry.path.lstrip("/")
        except (NotFoundError, FileNotFoundError):
            if not self.folder:
                raise

    def read(self, path: str) -> bytes:
        """The content of one file."""
        return b"".join(self._handle.read_file(path))


def map_volume(
    deployment: Deployment,
    source: str,
    out: str,
    prompt: str | None,
    options: Options,
    *,
    part_size: int,
    containers: int,
) -> Mapped:
    """See ``Deployment.map``; raises DeployError when parts failed, after all others are done."""
    job = Job.parse(prompt, options)  # type: ignore[arg-type] # a part of BatchOptions
    environment = deployment.spec.environment
    with errors_of(f"describing {source}"):
        here, there = (
            _Place(source, environment, create=False),
            _Place(out, environment, create=True),
        )
        known, following = _done(there, fingerprint(job.prompt, job.checked, deployment.model))
        keys = [f"{here.volume}/{path}" for path in here.files() if is_picture(path)]
        fresh = [key for key in keys if not known.has(key)]
        how = {**options, "max_concurrency": deployment.plan.capacity.sessions}
        parts = [
            {
                "keys": fresh[start : start + part_size],
                "out": f"{there.text}/part-{following + number:05}.jsonl",
                "prompt": prompt,
                "options": how,
            }
            for number, start in enumerate(range(0, len(fresh), part_size))
        ]
        results = _run(deployment, {here.volume, there.volume}, containers, parts)
    errors = [result for result in results if isinstance(result, Exception)]
    if errors:
        raise DeployError(
            f"{len(errors)} parts of {source} failed, the first with {errors[0]!r}",
            hint="the same call makes only those",
        )
    counts = [result for result in results if not isinstance(result, Exception)]
    return Mapped(
        described=sum(count["described"] for count in counts),
        failed=sum(count["failed"] for count in counts),
        skipped=len(keys) - len(fresh),
        files=tuple(str(part["out"]) for part in parts),
    )


def _done(there: _Place, run: str) -> tuple[Keys, int]:
    """Keys in the parts of this run, and the number of the next part."""
    known, following = Keys(), 0
    for path in there.files():
        stem = path.rpartition("/")[2].removeprefix("part-").removesuffix(".jsonl")
        if not stem.isdecimal():
            continue
        following = max(following, int(stem) + 1)
        for line in there.read(path).splitlines():
            document = json.loads(line)
            if document["run"] == run:
                known.note(document["key"])
    return known, following


def _run(
    deployment: Deployment, volumes: set[str], containers: int, parts: list[dict[str, Any]]
) -> list[dict[str, int] | Exception]:
    """Let Modal make the parts, in an app that lives as long as that takes."""
    if not parts:
        return []
    spec = deployment.spec
    function = FunctionSpec(
        name="describe_part",
        image=CPU_IMAGE,
        secrets=(KEY,),
        volumes={f"{VOLUMES}/{name}": name for name in sorted(volumes)},
        read_only=False,
        cpu=2,
        memory=2048,
        timeout=DAY,
        startup_timeout=600,
        max_containers=containers,
    )
    app, work = modal_objects.build_alone(
        f"{spec.app}-batch"[:63], function, spec, {KEY: deployment.secrets}
    )
    with modal_output(), app.run(environment_name=spec.environment):
        return list(work.map(parts, return_exceptions=True))
    raise KeyboardInterrupt  # which Modal's run() swallows
