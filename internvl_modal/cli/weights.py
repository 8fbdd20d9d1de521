"""``internvl-modal weights``: the cache from the command line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from internvl_modal.cli.common import typer_app
from internvl_modal.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    from internvl_modal.weights.cache import WeightsCache
    from internvl_modal.weights.inventory import CachedModel
    from internvl_modal.weights.verification import Verification

__all__ = ["app"]

app = typer_app("Model files: complete and verified, or not there.")

# Those of ``weights.selection``, whose import takes longer than the whole of ``--help``.
Variant: TypeAlias = Literal["auto", "safetensors", "bin", "gguf"]

Model = Annotated[
    str,
    typer.Argument(help="A name of the catalog (plan --list), or a repository owner/name."),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit; main by default.")]
Folder = Annotated[
    str | None,
    typer.Option(help="The cache; INTERNVL_MODAL_CACHE_DIR by default.", metavar="PATH"),
]
Volume = Annotated[str | None, typer.Option(help="A Modal Volume instead of a folder.")]
Environment = Annotated[str | None, typer.Option(help="The Volume's Modal environment.")]


def _cache(folder: str | None, volume: str | None, environment: str | None) -> WeightsCache:
    """The cache that the options name: a folder, or a Volume of Modal's."""
    if volume is None and environment is not None:
        raise ConfigError("--environment says where a Volume is", hint="add --volume NAME")
    from internvl_modal.settings import Settings
    from internvl_modal.weights.cache import WeightsCache

    settings = Settings.load()
    token = settings.hf_token.get_secret_value() if settings.hf_token else None
    if volume is not None:
        return WeightsCache.volume(volume, environment=environment, token=token)
    return WeightsCache(settings.cache_dir if folder is None else folder, token=token)


def _table(entries: Sequence[CachedModel]) -> None:
    """Print a line a commit: bytes on disk, whether it is whole, when it was last used (local
    time).
    """
    for entry in entries:
        state = "complete" if entry.complete else "incomplete"
        used = entry.last_used.strftime("%Y-%m-%d %H:%M")
        size = f"{entry.size / 1e9:8.2f} GB"
        typer.echo(f"{entry.model}  {entry.commit[:12]}  {size}  {state}  {used}")


def _repair(
    found: Verification, folder: str | None, volume: str | None, environment: str | None
) -> str:
    """The command that repairs just this commit, wherever its branch is now."""
    options = {"--revision": found.commit, "--folder": folder}
    options |= {"--volume": volume, "--environment": environment}
    words = ["internvl-modal", "weights", "ensure", found.model]
    # With every option that led here, or the repair would go into another cache.
    words += [str(word) for name in options if options[name] for word in (name, options[name])]
    if found.variants:
        words += ["--variant", found.variants[0]]
    else:
        words += [word for path in found.bad for word in ("--file", path)]
    # A Volume can be read from here, and written by a container only.
    return shlex.join(words) + (" in a container that mounts the Volume" if volume else "")


@app.command()
def ensure(
    model: Model,
    revision: Revision = None,
    variant: Annotated[Variant, typer.Option(help="Which weights; auto prefers safetensors.")] = (
        "auto"
    ),
    file: Annotated[list[str] | None, typer.Option(help="Fetch just these files.")] = None,
    offline: Annotated[bool, typer.Option(help="Fail rather than use the network.")] = False,
    folder: Folder = None,
    volume: Volume = None,
    environment: Environment = None,
) -> None:
    """Download or repair a model; prints its path."""
    cache = _cache(folder, volume, environment)
    snapshot = cache.ensure(model, revision, variant=variant, files=file or None, offline=offline)
    if snapshot.code:
        typer.echo(
            f"LMDeploy runs the Python in this repository ({', '.join(snapshot.code)}), as it is "
            f"at commit {snapshot.commit}; --revision {snapshot.commit} pins it elsewhere too",
            err=True,
        )
    # Nothing but the path, for ``$(internvl-modal weights ensure ...)``.
    typer.echo(snapshot)


@app.command()
def verify(
    model: Model,
    revision: Revision = None,
    deep: Annotated[bool, typer.Option(help="Check every sha256, not just sizes.")] = False,
    folder: Folder = None,
    volume: Volume = None,
    environment: Environment = None,
) -> None:
    """Check a model; names each bad file."""
    found = _cache(folder, volume, environment).verify(model, revision, deep=deep, progress="auto")
    if not found.ok:
        raise WeightsError(
            f"{found.model}: bad files: {', '.join(found.bad)}",
            hint=f"{_repair(found, folder, volume, environment)} repairs them",
            files=found.bad,
        )
    typer.echo(f"{found.model} {found.commit[:12]}: {found.files} files are as they should be")


@app.command("list")
def list_(folder: Folder = None, volume: Volume = None, environment: Environment = None) -> None:
    """List the models: name, commit, size, state, last use."""
    cache = _cache(folder, volume, environment)
    if found := cache.list():
        _table(found)
    else:
        typer.echo(f"no models in {cache.where}", err=True)


@app.command()
def remove(
    model: Model,
    revision: Revision = None,
    folder: Folder = None,
    volume: Volume = None,
    environment: Environment = None,
) -> None:
    """Remove a model or one of its revisions; prints what went."""
    _table(_cache(folder, volume, environment).remove(model, revision))


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=0, help="Commits of each model to keep.")] = 1,
    folder: Folder = None,
    volume: Volume = None,
    environment: Environment = None,
) -> None:
    """Remove old commits and unfinished downloads; prints what went."""
    _table(_cache(folder, volume, environment).prune(keep))
