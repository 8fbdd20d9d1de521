"""``internvl-modal describe`` and ``models``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import internvl_modal
from internvl_modal.batch.sinks.files import create
from internvl_modal.cli.common import (
    Backend,
    BaseUrl,
    Json,
    Model,
    check_output,
    error_document,
    exit_code,
    fail,
    warn,
)
from internvl_modal.cli.describe_flags import Flags, options_of
from internvl_modal.cli.taking import taking
from internvl_modal.errors import ConfigError, InternVLError, WeightsError


@contextmanager
def _client(
    backend: str | None, base_url: str | None, model: str | None
) -> Iterator[internvl_modal.Client]:
    with internvl_modal.Client(backend, base_url=base_url, model=model) as client:
        yield client


@taking(Flags)
def describe(flags: Flags) -> int:
    """Describe pictures, one after the other. A bad one does not stop the rest."""
    check_output()
    images, options = flags.images, options_of(flags)
    if flags.stream and "preset" in options:
        raise ConfigError("--preset and --stream", hint="a preset judges whole answers")
    with _into(flags.out), _client(flags.backend, flags.base_url, flags.model) as client:
        # The worst of the exit codes; each picture is done before the next is begun.
        return max(
            _describe_one(
                client,
                image,
                flags.prompt,
                options,
                stream=flags.stream,
                as_json=flags.as_json,
                many=len(images) > 1,
            )
            for image in images
        )


@contextmanager
def _into(out: Path | None) -> Iterator[None]:
    """Have what is printed in ``out``, which stays as it was where nothing is; raises ConfigError.

    Under another name until the end, so that a program that looks for it finds it whole.
    """
    if out is None:
        yield
        return
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder", hint="name a file; folders are for batch")
    part = out.with_name(f".{out.name}.part")
    try:
        file = TextIOWrapper(create(part), "utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}", hint="name another place") from error
    try:
        with file, redirect_stdout(file):
            yield
    finally:
        if part.stat().st_size:
            part.replace(out)
        else:
            part.unlink()


def _describe_one(
    client: internvl_modal.Client,
    image: str,
    prompt: str | None,
    options: dict[str, Any],
    *,
    stream: bool,
    as_json: bool,
    many: bool,
) -> int:
    # pythonw and cron jobs have no standard input: an empty picture then says what is wrong.
    source = image if image != "-" else sys.stdin.buffer if sys.stdin else b""
    try:
        if stream and not as_json:
            description = _streamed(client.stream(source, prompt, **options), image, many)
        else:
            description = client.describe(source, prompt, **options)
            if as_json:
                print(json.dumps({"image": image, **description.model_dump(mode="json")}))
            else:
                print(f"{image}: {description}" if many else description)
    except (ConfigError, WeightsError):  # nothing to do with this picture: the rest would fail too
        raise
    except InternVLError as error:
        # ``describe photo.jpg What is this?`` without quotes or ``--prompt`` is the usual mistake.
        if isinstance(error.__context__, FileNotFoundError) and (" " in image or image[-1:] == "?"):
            hint = f"is it the prompt? that goes after --prompt; {error.hint}"
            error = InternVLError(error.message, hint=hint)
        if as_json:
            print(json.dumps({"image": image, "error": error_document(error)}))
            return exit_code(error)
        return fail(error)
    finally:
        # So that texts and warnings come in their order where both go to one file.
        sys.stdout.flush()
    for warning in description.warnings:
        warn(warning, again=True)
    return 0


def _streamed(pieces: internvl_modal.Stream, image: str, many: bool) -> internvl_modal.Description:
    """Print the pieces as they come; a line ends also where the stream breaks."""
    if many:
        print(f"{image}: ", end="")
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    finally:
        print()
    return pieces.description


def models(
    backend: Backend = None, base_url: BaseUrl = None, model: Model = None, as_json: Json = False
) -> None:
    """List the models that a backend offers. The local one is not started for that."""
    from internvl_modal.protocol.endpoint import preview

    with _client(backend, base_url, model) as client:
        names = list(preview(client.backend).models) or client.models()
    print(json.dumps(names) if as_json else "\n".join(names))
