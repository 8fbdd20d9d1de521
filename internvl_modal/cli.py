"""The command ``internvl-modal``: parsing and printing only.

Exit codes: 0; 1 for a failed description or check; 2 for wrong usage.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

import internvl_modal
from internvl_modal import deploy_cli
from internvl_modal.batch.cli import batch
from internvl_modal.catalog import MODELS
from internvl_modal.costs import CORES, HOST_GIB
from internvl_modal.errors import ConfigError, InternVLError, WeightsError, WeightsInterruptedError
from internvl_modal.plan_report import models_text
from internvl_modal.weights.cli import app as weights_app


class _Commands(typer.core.TyperGroup):
    """Typer ends at any KeyboardInterrupt without a word; ours says how to go on."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WeightsInterruptedError as error:
            _failed(error)
            raise


app = typer.Typer(
    cls=_Commands,
    help="Describe images with InternVL: on this machine, on Modal's GPUs, or on any server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Backend = Annotated[str | None, typer.Option(help="local, endpoint, lmdeploy, modal or an URL.")]
BaseUrl = Annotated[str | None, typer.Option(help="URL of an OpenAI-compatible server.")]
Model = Annotated[
    str | None, typer.Option(help="Model there; 'demo' needs no download (local backend).")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, errors too.")]


def main() -> NoReturn:
    """Run the command; any error of ours is one line on standard error."""
    try:
        code = app(standalone_mode=False) or 0
    except InternVLError as error:
        code = _failed(error)
    except typer.Exit as stop:
        code = stop.exit_code
    except typer.Abort:
        code = 130
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed again at the end
        code = fail(InternVLError(f"cannot write: {error}", hint="make room"))
    except Exception as error:
        if not hasattr(error, "format_message"):  # of click's, for wrong usage
            raise
        code = _misused(error)
    sys.exit(code)


def _failed(error: InternVLError) -> int:
    """Print ``error`` as the command line asks for it; return its exit code."""
    if "--json" in sys.argv:
        print(json.dumps({"error": error_document(error)}))
        return exit_code(error)
    return fail(error)


def _misused(error: Any) -> int:
    """Print what is wrong with the command line; return its exit code."""
    error.message = error.message.removeprefix("Value error, ")  # typer's
    if "--json" in sys.argv:
        return _failed(ConfigError(error.format_message(), hint="see --help"))
    error.show()
    return 2


def fail(error: InternVLError) -> int:
    """Print ``error`` on one line; return its exit code."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return exit_code(error)


def exit_code(error: InternVLError) -> int:
    """2 for what the user can mend in the command, 1 for the rest."""
    return 2 if isinstance(error, ConfigError) else 1


def error_document(error: InternVLError) -> dict[str, object]:
    """An error for a program to read."""
    return {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
    }


def _version(wanted: bool) -> None:
    if wanted:
        print(f"internvl-modal {internvl_modal.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def _client(
    backend: str | None, base_url: str | None, model: str | None
) -> Iterator[internvl_modal.Client]:
    with internvl_modal.Client(backend, base_url=base_url, model=model) as client:
        yield client


@app.command()
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
    allow_private_urls: Annotated[
        bool, typer.Option("--allow-private-urls", help="Fetch from private addresses too.")
    ] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print the text as it comes.")] = False,
    as_json: Json = False,
) -> int:
    """Describe pictures, one after the other; a bad one does not stop the rest."""
    level = int(detail) if detail is not None and detail.isdecimal() else detail
    given = {"detail": level, "max_tokens": max_tokens, "temperature": temperature}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options["allow_private_urls"] = allow_private_urls
    internvl_modal.DescribeOptions.parse(options)  # type: ignore[arg-type] # checked there
    with _client(backend, base_url, model) as client:
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
        if isinstance(error.__cause__, FileNotFoundError) and (" " in image or image[-1:] == "?"):
            error.hint = "is it the prompt? that goes after --prompt; " + error.hint
        if as_json:
            print(json.dumps({"image": image, "error": error_document(error)}))
            return exit_code(error)
        return fail(error)
    finally:
        sys.stdout.flush()
    for warning in description.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _streamed(pieces: internvl_modal.Stream, image: str, many: bool) -> internvl_modal.Description:
    if many:
        print(f"{image}: ", end="")
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    finally:
        print()
    return pieces.description


@app.command()
def models(
    backend: Backend = None, base_url: BaseUrl = None, model: Model = None, as_json: Json = False
) -> None:
    """List the models that a backend offers; the local one is not started for that."""
    with _client(backend, base_url, model) as client:
        names = getattr(client.backend, "models", None) or client.models()
    print(json.dumps(names) if as_json else "\n".join(names))


@app.command()
def plan(
    model: Annotated[
        str, typer.Argument(help="A name of the catalog (--list), or a repository owner/name.")
    ] = "internvl2_5-78b",
    list_: Annotated[bool, typer.Option("--list", help="List the catalog instead.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; main by default.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="Modal's GPU string, such as H200:2.")] = None,
    images_per_request: Annotated[int, typer.Option(help="Pictures in one request.")] = 1,
    max_tiles: Annotated[int, typer.Option(help="Most tiles of a picture.")] = 12,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 100,
    output_tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 200,
    session_len: Annotated[int | None, typer.Option(help="Tokens of a session.")] = None,
    max_batch_size: Annotated[int | None, typer.Option(help="Requests at once.")] = None,
    cache_max_entry_count: Annotated[
        float | None, typer.Option(help="KV share of free GPU memory.")
    ] = None,
    quant_policy: Annotated[int, typer.Option(help="Bits of the KV cache: 0 (16), 8 or 4.")] = 0,
    vision_max_batch_size: Annotated[
        int, typer.Option(help="Pictures in one pass of the ViT.")
    ] = 1,
    scaledown_window: Annotated[int, typer.Option(help="Idle seconds before one stops.")] = 300,
    cpu: Annotated[float, typer.Option(help="CPU cores.")] = CORES,
    memory_gib: Annotated[float, typer.Option(help="GiB of host memory.")] = HOST_GIB,
    budget: Annotated[float | None, typer.Option(help="Most USD an hour.")] = None,
    as_json: Json = False,
) -> int:
    """Say which GPUs run a model, how many pictures at once, and at what cost."""
    if list_:
        print(json.dumps(list(MODELS)) if as_json else models_text())
        return 0
    made = internvl_modal.plan(
        model,
        revision=revision,
        gpu=gpu,
        images_per_request=images_per_request,
        max_tiles=max_tiles,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        session_len=session_len,
        max_batch_size=max_batch_size,
        cache_max_entry_count=cache_max_entry_count,
        quant_policy=quant_policy,
        vision_max_batch_size=vision_max_batch_size,
        scaledown_window=scaledown_window,
        cpu=cpu,
        memory_gib=memory_gib,
        budget=budget,
    )
    print(json.dumps(made.to_dict()) if as_json else made)
    return 0 if made.fits else 1


@app.command()
def doctor(as_json: Json = False) -> int:
    """Say what is installed, which backends can run and what is cached; describe one picture."""
    from internvl_modal.doctor import examine, report

    found = examine()
    print(json.dumps(found) if as_json else report(found))
    return 0 if found["self_test"]["ok"] else 1


app.command()(batch)
app.add_typer(weights_app, name="weights")
deploy_cli.register(app)
