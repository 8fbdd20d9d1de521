"""What is installed, what can run, what is cached, and one description to prove it.

For the first line of a bug report. It looks and does not mend, asks nothing over the network and
starts no GPU; the one thing that it runs is the demo model, which needs nothing but the package.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import internvl_modal
from internvl_modal.cli.common import Json
from internvl_modal.errors import InternVLError

if TYPE_CHECKING:
    from internvl_modal.settings import Settings

EXTRAS = {
    "local": "xllamacpp",
    "video": "av",
    "formats": "pillow-heif",
    "gateway": "fastapi",
    "parquet": "pyarrow",
    "schema": "jsonschema",
    "datasets": "datasets",
    "plot": "matplotlib",
    "socks": "aiohttp-socks",
    "remote": "fsspec",
    "pdf": "pypdfium2",
    "fast": "opencv-python-headless",
    "openai": "openai",
    "otel": "opentelemetry-api",
    "lmdeploy": "lmdeploy",
}
"""The one package of each extra that tells whether it is installed."""


def examine() -> dict[str, Any]:
    """Collect everything ``report`` prints; holds no secret, only which settings are set."""
    from internvl_modal.client.resolve import backend_names
    from internvl_modal.settings import Settings, variable_name

    settings = Settings.load()
    return {
        "version": internvl_modal.__version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "extras": {extra: _installed(package) for extra, package in EXTRAS.items()},
        # Names only, so that the report can be pasted anywhere.
        "settings": [variable_name(name) for name in sorted(settings.model_fields_set)],
        "backends": {name: _runs(name, settings) for name in backend_names()},
        "cache": {"folder": str(settings.cache_dir), "models": _cached(settings)},
        "self_test": _self_test(),
    }


def report(found: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [f"internvl-modal {found['version']}, Python {found['python']}, {found['platform']}"]
    lines += _section("Extras", {k: v or "not installed" for k, v in found["extras"].items()})
    lines += _section("Backends", found["backends"])
    lines.append("Settings: " + (", ".join(found["settings"]) or "all defaults"))
    lines += _section(f"Models in {found['cache']['folder']}", found["cache"]["models"])
    test = found["self_test"]
    verdict = f"{test['text']!r} in {test['seconds']:.1f} s" if test["ok"] else test["error"]
    return "\n".join([*lines, f"Self-test with the demo model: {verdict}"])


def _section(title: str, rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows), default=0)
    body = [f"  {name:<{width}}  {value}" for name, value in rows.items()]
    return [f"{title}:", *(body or ["  none"])]


def _installed(package: str) -> str | None:
    """Read from metadata and not by importing: importing all of them takes many seconds."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _runs(name: str, settings: Settings) -> str:
    """Whether a backend can run here, in words."""
    missing = {
        "endpoint": "" if settings.base_url else "needs a URL (INTERNVL_MODAL_BASE_URL)",
        "local": "" if find_spec("xllamacpp") else "needs internvl-modal[local]",
        "lmdeploy": "" if shutil.which("lmdeploy") else "needs lmdeploy and a CUDA machine",
        "modal": "" if _modal_credentials() else "needs Modal credentials (modal token new)",
    }
    return missing.get(name, "") or "ready"


def _modal_credentials() -> bool:
    """Whether Modal's client finds any; whether they are good is not asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on Python 3.10 modal announces the end of its support
        from modal.config import config

    return bool(config.get("token_id"))


def _cached(settings: Settings) -> dict[str, str]:
    from internvl_modal.weights.cache import WeightsCache

    return {
        # Ten to the ninth bytes, as disks and the Hub count.
        f"{model.model}@{model.commit[:8]}": f"{model.size / 1e9:.2f} GB"
        + ("" if model.complete else ", incomplete")
        for model in WeightsCache(settings.cache_dir).list()
    }


def _self_test() -> dict[str, Any]:
    """Describe a drawn scene with the demo model."""
    from PIL import Image, ImageDraw

    # A scene of the kind that the demo model knows, or its answer would mean nothing.
    scene = Image.new("RGB", (448, 448), "white")
    ImageDraw.Draw(scene).ellipse((150, 150, 298, 298), fill="red")
    begun = time.monotonic()
    try:
        with warnings.catch_warnings(), internvl_modal.Client("local", model="demo") as client:
            warnings.simplefilter("ignore")  # about pictures that the model does not know
            text = client.describe(scene).text
    except InternVLError as error:
        return {"ok": False, "error": str(error)}
    return {"ok": True, "text": text, "seconds": time.monotonic() - begun}


def doctor(as_json: Json = False) -> int:
    """Say what is installed, cached and able to run. One picture is described to prove it."""
    found = examine()
    print(json.dumps(found) if as_json else report(found))
    return 0 if found["self_test"]["ok"] else 1
