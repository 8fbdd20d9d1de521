"""``internvl-modal describe`` and ``models``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

import internvl_modal
from internvl_modal.cli.common import (
    Backend,
    BaseUrl,
    Json,
    Model,
    check_output,
    error_document,
    exit_code,
    fail,
)
from internvl_modal.cli.presets import lora_or
from internvl_modal.errors import ConfigError, InternVLError, WeightsError


@contextmanager
def _client(
    backend: str | None, base_url: str | None, model: str | None
) -> Iterator[internvl_modal.Client]:
    with internvl_modal.Client(backend, base_url=base_url, model=model) as client:
        yield client


def describe(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files or URLs; - is standard input.")
    ],
    prompt: Annotated[str | None, typer.Option(help="What to ask.")] = None,
    model: Model = None,
    backend: Backend = None,
    base_url: BaseUrl = None,
    detail: Annotated[
        str | None, typer.Option(help="low, medium, high, auto or a tile count 1-40.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens to write.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 (greedy) to 2.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="alt-text, caption, dense, tags, ocr or lora.")
    ] = None,
    trigger: Annotated[str | None, typer.Option(help="Trigger word, of --preset lora.")] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="What not to name, of --preset lora.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="75 or 512, of --preset lora.")] = None,
    allow_private_urls: Annotated[
        bool, typer.Option("--allow-private-urls", help="Fetch from private addresses too.")
    ] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print the text as it comes.")] = False,
    as_json: Json = False,
) -> int:
    """Describe pictures, one after the other. A bad one does not stop the rest."""
    check_output()
    level = int(detail) if detail is not None and detail.isdecimal() else detail
    given = {"detail": level, "max_tokens": max_tokens, "temperature": temperature}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options["allow_private_urls"] = allow_private_urls
    # Before the backend starts: a typo should not cost a download or a GPU's start.
    internvl_modal.DescribeOptions.parse(options)  # type: ignore[arg-type] # checked there
    from internvl_modal.captions.presets.registry import preset_of

    if chosen := preset_of(lora_or(preset, trigger, leave_out, tokens)):
        if stream:
            raise ConfigError("--preset and --stream", hint="a preset judges whole answers")
        options["preset"] = chosen
    with _client(backend, base_url, model) as client:
        # The worst of the exit codes; each picture is done before the next is begun.
        return max(
            _describe_one(
                client, image, prompt, options, stream=stream, as_json=as_json, many=len(images) > 1
            )
            for image in images
        )


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
        print(f"warning: {warning}", file=sys.stderr)
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
