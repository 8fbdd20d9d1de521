"""The flags of ``internvl-modal describe``, a line each: every option that the call has.

``tests/test_cli_words.py`` holds them to ``DescribeOptions``, which is not imported for ``--help``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from internvl_modal.cli.common import Backend, BaseUrl, Json, Model
from internvl_modal.cli.presets import lora_or

__all__ = ["Flags", "options_of"]

Text: TypeAlias = str | None
Number: TypeAlias = int | None
Real: TypeAlias = float | None
Texts: TypeAlias = list[str] | None


def _option(words: str, *names: str) -> Any:
    return typer.Option(*names, help=words, show_default=False)


class Flags:
    """What the command takes; None leaves an option at its default."""

    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files or URLs; - is standard input.")
    ]
    prompt: Annotated[Text, _option("What to ask.", "--prompt", "-p")] = None
    model: Model = None
    backend: Backend = None
    base_url: BaseUrl = None
    out: Annotated[Path | None, _option("File for what is else printed.", "--out", "-o")] = None
    detail: Annotated[Text, _option("low, medium, high, auto or a tile count 1-40.")] = None
    max_tokens: Annotated[Number, _option("Most tokens to write.")] = None
    temperature: Annotated[Real, _option("0 (greedy) to 2.")] = None
    top_p: Annotated[Real, _option("Nucleus sampling, 0 to 1.")] = None
    top_k: Annotated[Number, _option("Sample from the k likeliest tokens.")] = None
    seed: Annotated[Number, _option("Repeats a sampled answer.")] = None
    stop: Annotated[Texts, _option("A string that ends the answer; up to 8.")] = None
    repetition_penalty: Annotated[Real, _option("1 is none.")] = None
    system: Annotated[Text, _option("System message; '' for none.")] = None
    grounding: Annotated[bool, _option("Mean <ref> and <box>.", "--grounding")] = False
    timeout: Annotated[Real, _option("Seconds for a whole call.")] = None
    background: Annotated[Text, _option("Colour put under transparent pixels.")] = None
    max_pixels: Annotated[Number, _option("Largest picture decoded, in pixels.")] = None
    max_bytes_decoded: Annotated[Number, _option("Most memory to decode a picture, bytes.")] = None
    allow_private_urls: Annotated[
        bool, _option("Fetch from private addresses too.", "--allow-private-urls")
    ] = False
    user_agent: Annotated[Text, _option("How the client names itself to fetch URLs.")] = None
    shrink: Annotated[Text, _option("Who shrinks pictures: auto, always (here) or never.")] = None
    preset: Annotated[Text, _option("alt-text, caption, dense, tags, ocr or lora.")] = None
    trigger: Annotated[Text, _option("Trigger word, of --preset lora.")] = None
    leave_out: Annotated[Texts, _option("What not to name, of --preset lora.")] = None
    tokens: Annotated[Number, _option("75 or 512, of --preset lora.")] = None
    stream: Annotated[bool, _option("Print the text as it comes.", "--stream")] = False
    as_json: Json = False


_NOT_OPTIONS = (
    "images", "prompt", "model", "backend", "base_url", "out", "preset", "trigger", "leave_out",
    "tokens", "stream", "as_json",
)  # fmt: skip
"""What does not go to ``Client.describe`` by its own name."""


def options_of(flags: Flags) -> dict[str, Any]:
    """The options of ``Client.describe`` that are meant; raises ConfigError."""
    from internvl_modal.captions.presets.registry import preset_of
    from internvl_modal.schema.options import DescribeOptions

    names = [name for name in Flags.__annotations__ if name not in _NOT_OPTIONS]
    options = {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}
    # typer knows no "a number or a word": what is no number is checked as a word.
    if str(options.get("detail", "")).isdecimal():
        options["detail"] = int(options["detail"])
    # Before the backend starts: a typo should not cost a download or a GPU's start.
    DescribeOptions.parse(options)  # type: ignore[arg-type] # checked there
    chosen = preset_of(lora_or(flags.preset, flags.trigger, flags.leave_out, flags.tokens))
    return {**options, "preset": chosen} if chosen else options
