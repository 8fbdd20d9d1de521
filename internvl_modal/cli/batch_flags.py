"""The flags of ``internvl-modal batch``, a line each, and the options that they mean.

A class and no signature, see ``taking``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from internvl_modal.cli.presets import lora_or
from internvl_modal.errors import ConfigError

__all__ = ["Flags", "options_of"]

Text: TypeAlias = str | None
Number: TypeAlias = int | None
Texts: TypeAlias = list[str] | None


def _option(words: str, *names: str) -> Any:
    return typer.Option(*names, help=words, show_default=False)


class Flags:
    """What the command takes; None leaves an option at its default."""

    source: Annotated[
        Texts,
        typer.Argument(
            metavar="SOURCE...",
            show_default=False,
            help="Folders, globs, .txt, .jsonl, .csv or .parquet, tars, PDFs, pictures, "
            "addresses of these; - is a list on standard input.",
        ),
    ] = None
    out: Annotated[
        Text,
        _option(
            "A .jsonl, .parquet, .csv, .dataset, NAME-%06d.tar, or a folder/ of texts.",
            "--out",
            "-o",
        ),
    ] = None
    status: Annotated[
        Path | None, _option("Only say what this .jsonl, .csv, .dataset or folder of texts holds.")
    ] = None
    prompt: Annotated[
        Text, _option("What to ask; {NAME} is a column of a table.", "--prompt", "-p")
    ] = None
    prompt_column: Annotated[Text, _option("Column that holds the prompts.")] = None
    prompts: Annotated[Texts, _option("NAME=PROMPT, for several prompts a picture.")] = None
    schema: Annotated[Text, _option("MODULE:MODEL or FILE.py:MODEL of pydantic, or a .json.")] = (
        None
    )
    repairs: Annotated[Number, _option("How often a wrong object is sent back.")] = None
    limit: Annotated[Number, _option("Only the first so many.")] = None
    sample: Annotated[Number, _option("Only so many, drawn by --seed.")] = None
    seed: Annotated[Number, _option("Of what is drawn, and of the model.")] = None
    import_: Annotated[Text, _option("Captions of others that are taken as done.", "--import")] = (
        None
    )
    preset: Annotated[Text, _option("alt-text, caption, dense, tags, ocr or lora.")] = None
    trigger: Annotated[Text, _option("Trigger word, of --preset lora.")] = None
    leave_out: Annotated[Texts, _option("What not to name, of --preset lora.")] = None
    tokens: Annotated[Number, _option("75 or 512, of --preset lora.")] = None
    quality: Annotated[bool, typer.Option(help="Flag answers that are no good.")] = True
    on_flag: Annotated[Text, _option("What becomes of those: record, retry or fail.")] = None
    language: Annotated[Text, _option("Flag answers in another language, as in en.")] = None
    max_usd: Annotated[float | None, _option("Most that the machine may cost.")] = None
    usd_per_hour: Annotated[float | None, _option("What it costs, where nobody knows.")] = None
    concurrency: Annotated[str, typer.Option(help="Requests at once: a count or auto.")] = "auto"
    max_concurrency: Annotated[Number, _option("Most that auto may try.")] = None
    resume: Annotated[bool, typer.Option(help="Skip what is there, or start anew.")] = True
    retry_errors: Annotated[bool, _option("Try again what failed before.", "--retry-errors")] = (
        False
    )
    dedupe: Annotated[bool, _option("Ask about equal bytes once.", "--dedupe")] = False
    column: Annotated[Text, _option("Column that holds the pictures.")] = None
    key: Annotated[Text, _option("Column that holds the keys.")] = None
    delimiter: Annotated[Text, _option("What divides a CSV.")] = None
    pages: Annotated[Text, _option("Pages of a PDF: 1-20.")] = None
    quiet: Annotated[bool, _option("No progress.", "--quiet")] = False
    backend: Annotated[Text, _option("local, endpoint, lmdeploy, modal or a URL.")] = None
    base_url: Annotated[
        Texts, _option("URL of an OpenAI-compatible server; again for more of one model.")
    ] = None
    model: Annotated[Text, _option("Model there.", "--model", "-m")] = None
    detail: Annotated[Text, _option("low, medium, high, auto or a tile count 1-40.")] = None
    max_tokens: Annotated[Number, _option("Most tokens to write.")] = None
    temperature: Annotated[float | None, _option("0 (greedy) to 2.")] = None
    shrink: Annotated[Text, _option("Who shrinks pictures: auto, always (here) or never.")] = None


_NOT_OPTIONS = (
    "source", "status", "prompt", "quiet", "backend", "base_url", "model", "trigger", "leave_out",
    "tokens",
)  # fmt: skip
"""What does not go to ``describe_many`` by its own name."""


def options_of(flags: Flags) -> dict[str, Any]:
    """The options of ``describe_many`` that are meant; raises ConfigError."""
    given = {name: getattr(flags, name) for name in Flags.__annotations__}
    found = {
        name: value
        for name, value in given.items()
        if value is not None and name not in _NOT_OPTIONS
    }
    # typer knows no "a number or a word": what is no number is checked as a word by ``Job``.
    for name in ("concurrency", "detail"):
        if str(found.get(name, "")).isdecimal():
            found[name] = int(found[name])
    if flags.schema is not None:
        found["schema"] = _schema(flags.schema)
    if flags.prompts is not None:
        found["prompts"] = _prompts(flags.prompts)
    if preset := lora_or(flags.preset, flags.trigger, flags.leave_out, flags.tokens):
        found["preset"] = preset
    return {**found, "progress": not flags.quiet}


def _prompts(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, equals, prompt in pairs:
        if not (name and equals and prompt):
            raise ConfigError(f"--prompts {name}{equals}{prompt}", hint="write NAME=PROMPT")
    return {name.strip(): prompt for name, _, prompt in pairs}


def _schema(given: str) -> Any:
    """A pydantic model by its module and name, or a JSON schema in a file."""
    place, colon, name = given.rpartition(":")
    if not colon or not place:
        return _document(Path(given))
    try:
        module = _module(place)
        model = getattr(module, name)
    except (ImportError, AttributeError, OSError, SyntaxError) as error:
        raise ConfigError(
            f"--schema {given}: {error}", hint="MODULE:MODEL or FILE.py:MODEL, from this folder"
        ) from error
    return model


def _module(place: str) -> Any:
    import importlib
    import importlib.util

    # As ``python -m`` does it: what is in this folder can be imported.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if not place.endswith(".py"):
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks for the types of its fields
    spec.loader.exec_module(module)
    return module


def _document(path: Path) -> Any:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--schema {path}: {error}", hint="a file of a JSON schema, or MODULE:MODEL"
        ) from error
    if not isinstance(document, dict):
        raise ConfigError(f"--schema {path} holds no object", hint="a file of a JSON schema")
    return document
