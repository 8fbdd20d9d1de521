"""``internvl-modal plan``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

import internvl_modal
from internvl_modal.cli.common import Json
from internvl_modal.models.catalogue import MODELS
from internvl_modal.models.support import engines_of
from internvl_modal.planning.cost import CORES, HOST_GIB
from internvl_modal.planning.report import aligned


def plan(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(help="A name of the catalog (--list) or owner/name; internvl2_5-78b."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the catalog instead.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; main by default.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="The catalog's model that owner/name was made from.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Modal's GPU string: H200:2; several with commas.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="lmdeploy-0.7.3, lmdeploy (0.18) or vllm; by the model.")
    ] = None,
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
    scaledown_window: Annotated[
        int | None, typer.Option(help="Idle seconds before one stops; as long as a start takes.")
    ] = None,
    cpu: Annotated[float, typer.Option(help="CPU cores.")] = CORES,
    memory_gib: Annotated[float, typer.Option(help="GiB of host memory.")] = HOST_GIB,
    budget: Annotated[
        float | None, typer.Option(help="Most USD an hour; with no model, the best for it.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Say which GPUs run a model, how fast, and at what cost."""
    if list_:
        print(json.dumps(list(MODELS)) if as_json else models_text())
        return 0
    given: dict[str, Any] = dict(context.params)
    del given["list_"], given["as_json"]
    made = internvl_modal.plan(**given)
    print(json.dumps(made.to_dict()) if as_json else made)
    # So that a script can ask whether a model fits.
    return 0 if made.fits else 1


def models_text() -> str:
    """The catalog: names, bytes of weights, engines, and which run on this machine's CPU too."""
    rows: list[tuple[str, ...]] = [("model", "GB", "engines", "local")]
    for spec in MODELS.values():
        size, engines = f"{spec.disk_bytes / 1e9:.1f}", ", ".join(engines_of(spec))
        rows.append((spec.name, size, engines, "yes" if spec.gguf else ""))
    return "\n".join(aligned(rows))
