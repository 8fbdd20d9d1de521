"""A batch that runs on Modal: from a Volume or bucket to a Volume, part by part.

For pictures that lie in the cloud already: reading them there costs no egress and no upload. The
work is cut into parts because a container may end at any time; a part's file appears when the part
is done, and is the record of what need not be done again.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from internvl_modal.batch.options import Job
from internvl_modal.batch.sinks.base import SeenKeys
from internvl_modal.batch.sinks.lines import line_of
from internvl_modal.batch.sources.folders import is_picture
from internvl_modal.deployment import modal_api, modal_build
from internvl_modal.deployment.container_config import BUCKET, KEY, VOLUMES
from internvl_modal.deployment.container_images import cpu_image
from internvl_modal.deployment.map_budget import MapBudget
from internvl_modal.deployment.modal_api import errors_of, modal_output
from internvl_modal.deployment.modal_rules import check_name
from internvl_modal.deployment.spec import BucketSpec, DeploymentSpec, FunctionSpec
from internvl_modal.errors import ConfigError, DeployError
from internvl_modal.schema.options import Options

__all__ = ["Mapped", "map_pictures"]

T = TypeVar("T")

_PART = re.compile(r"(^|/)part-[0-9a-f]{8}-\d{5,}\.jsonl$")
"""Hexadecimal of the call and the part's number: files of others in the folder are left alone."""
DAY = 86_400
"""Most seconds that Modal lets a call run."""
WORKER: dict[str, Any] = {
    "read_only": False,
    "cpu": 2,
    "memory": 2048,
    "timeout": DAY,
    "startup_timeout": 600,
}
"""What all containers of a batch are."""


@dataclass(frozen=True)
class Mapped:
    """What a batch on Modal came to; ``files``, VOLUME/FOLDER/part-CALL-N.jsonl, are its own."""

    described: int
    failed: int
    skipped: int
    """Pictures of parts that were there."""
    files: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """Keys of pictures; what they start with is ``folder`` in a container, not ``address``."""

    keys: list[str]
    address: str
    folder: str
    volumes: tuple[str, ...]
    bucket: BucketSpec | None = None


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


@dataclass(frozen=True)
class _Asked:
    """The deployment that describes, and what lets a container ask it."""

    spec: DeploymentSpec
    variables: Mapping[str, str] = field(repr=False)


def map_pictures(
    spec: DeploymentSpec,
    variables: Mapping[str, str],
    source: str,
    out: str,
    prompt: str | None,
    options: Options,
    *,
    part_size: int,
    containers: int,
    bucket_secret: str | None,
    max_usd: float | None = None,
) -> Mapped:
    """See ``Deployment.map``; ``variables`` let a container ask the deployment ``spec``.

    Raises DeployError when parts failed, after all others are done.
    """
    asked = _Asked(spec, variables)
    for name, value in (("part_size", part_size), ("containers", containers)):
        if value < 1:
            raise ConfigError(f"{name} is {value}", hint="give 1 or more")
    # A part of BatchOptions; what is said of money is checked as in any batch.
    job = Job.parse(prompt, {**options, "max_usd": max_usd})  # type: ignore[typeddict-item]
    budget = None if max_usd is None else MapBudget.of(max_usd, spec, containers, WORKER)
    with errors_of(f"describing {source}"):
        here = _source(asked, source, bucket_secret)
        there = _Place(out, spec.environment, create=True)
        known = _done(there, job.run(spec.container.served))
        fresh = [key for key in here.keys if not known.claim(key)]
        if budget is not None:
            budget.check(len(fresh))
        how = {**options, "max_concurrency": spec.plan.capacity.sessions}
        told = {"prompt": prompt, "options": how, "budget": budget and budget.part()}
        parts = _parts(fresh, part_size, here, there, told)
        volumes = {*here.volumes, there.volume}
        results = _run(asked, volumes, here.bucket, containers, parts) if parts else []
    counts = _counts(source, results)
    left = sum(count["left"] for count in counts)
    if budget is not None and left:
        raise budget.exhausted(left)
    return Mapped(
        described=sum(count["described"] for count in counts),
        failed=sum(count["failed"] for count in counts),
        skipped=len(here.keys) - len(fresh),
        files=tuple(str(part["out"]) for part in parts),
    )


def _parts(
    keys: list[str], size: int, here: _Source, there: _Place, told: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What each part of a batch is told."""
    call = secrets.token_hex(4)  # two at once into one folder have files of their own
    return [
        {
            "keys": keys[start : start + size],
            "address": here.address,
            "folder": here.folder,
            "out": f"{there.text}/part-{call}-{number:05}.jsonl",
            **told,
        }
        for number, start in enumerate(range(0, len(keys), size))
    ]


def _counts(source: str, results: list[dict[str, int] | Exception]) -> list[dict[str, int]]:
    """What the parts counted; raises DeployError where some failed."""
    # The others are done by then: one bad part must not throw away a night's work.
    errors = [result for result in results if isinstance(result, Exception)]
    if errors:
        raise DeployError(
            f"{len(errors)} parts of {source} failed, the first with {errors[0]!r}",
            hint="the same call describes only what they have not",
        )
    return [result for result in results if not isinstance(result, Exception)]


def _done(there: _Place, run: str) -> SeenKeys:
    """Keys in the parts of this run; other files are left alone."""
    known = SeenKeys()
    for path in there.files():
        if _PART.search(path):
            for number, raw in enumerate(there.read(path).splitlines(), 1):
                line = line_of(raw, number, f"{there.volume}/{path}")
                if line.run == run:
                    known.note(line.key)
    return known


def _source(asked: _Asked, text: str, secret: str | None) -> _Source:
    """The pictures meant by VOLUME/FOLDER or a bucket's URL, listed and named."""
    if "://" in text:
        return _bucket(asked, BucketSpec.parse(text, secret))
    if secret is not None:
        raise ConfigError(f"{text!r} is on a Volume", hint="leave out bucket_secret")
    place = _Place(text, asked.spec.environment, create=False)
    keys = [f"{place.volume}/{path}" for path in place.files() if is_picture(path)]
    return _Source(keys, "", f"{VOLUMES}/", (place.volume,))


def _bucket(asked: _Asked, bucket: BucketSpec) -> _Source:
    """Its pictures, listed by a container: this machine may have no right to see them."""
    environment, secret = asked.spec.environment, bucket.secret
    if secret is not None:
        check_name("bucket_secret", secret)
    if secret is not None and not modal_api.secret_exists(secret, environment):
        values = " ".join(f"{name}=..." for name in bucket.variables)
        raise DeployError(
            f"Modal has no Secret {secret!r}", hint=f"modal secret create {secret} {values}"
        )
    function = FunctionSpec(
        "list_bucket", cpu_image(), secrets=(), volumes={}, bucket=bucket, **WORKER
    )
    paths = _in_app(asked, function, lambda work: work.remote())
    keys = [bucket.address + path for path in paths if is_picture(path)]
    return _Source(keys, bucket.address, f"{BUCKET}/", (), bucket)


def _run(
    asked: _Asked,
    volumes: set[str],
    bucket: BucketSpec | None,
    containers: int,
    parts: list[dict[str, Any]],
) -> list[dict[str, int] | Exception]:
    """Describe all parts, in ``containers`` at once; an exception stands where a part failed."""
    function = FunctionSpec(
        "describe_part",
        cpu_image(),
        secrets=(KEY,),
        volumes={f"{VOLUMES}/{name}": name for name in sorted(volumes)},
        bucket=bucket,
        max_containers=containers,
        **WORKER,
    )
    return _in_app(asked, function, lambda work: list(work.map(parts, return_exceptions=True)))


def _in_app(asked: _Asked, function: FunctionSpec, call: Callable[[Any], T]) -> T:
    """Let Modal run a function, in an app that lives as long as that takes."""
    spec = asked.spec
    app, work = modal_build.build_alone(
        f"{spec.app}-batch"[:63], function, spec, {KEY: asked.variables}
    )
    # The app is ephemeral: it ends with this block, also at an error.
    with modal_output(), app.run(environment_name=spec.environment):
        return call(work)
    raise KeyboardInterrupt  # which Modal's run() swallows
