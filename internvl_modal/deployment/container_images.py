"""The images that containers run in."""

from __future__ import annotations

from dataclasses import dataclass

LMDEPLOY_IMAGE = "openmmlab/lmdeploy:v0.7.3-cu12"


PYTHON = "3.12"
"""Of Modal's own process. LMDeploy keeps its 3.10 in /opt/py3, which Modal 1.7 will not run."""


# InternVL's remote code needs timm. flash-attn fetches the wheel that fits the torch it finds.
LMDEPLOY_PACKAGES = (
    "/opt/py3/bin/python -m pip install --no-cache-dir timm==1.0.15",
    "/opt/py3/bin/python -m pip install --no-cache-dir --no-build-isolation"
    " flash-attn==2.7.4.post1",
)


CLIENT_PACKAGES = (
    "aiohttp>=3.10",
    "anyio>=4",
    "httpx>=0.28",
    "huggingface_hub>=0.30",
    "pillow>=11.3",
    "pybase64>=1.4",
    "pydantic>=2.10",
    "pydantic-settings>=2.6",
    "tenacity>=9",
    "tqdm>=4.66",
    "typing-extensions>=4.12",
)
"""This package's own requirements, less what Modal brings; a test compares them."""


GATEWAY_PACKAGES = (
    "fastapi>=0.115.7",
    "prometheus-client>=0.21",
    "python-multipart>=0.0.18",
    "starlette>=0.44",
)


FORMAT_PACKAGES = ("pillow-heif>=0.21",)


@dataclass(frozen=True)
class ImageSpec:
    """A container image: its base, then its layers in order."""

    base: str
    python: str
    packages: tuple[str, ...]
    commands: tuple[str, ...] = ()


GPU_IMAGE = ImageSpec(LMDEPLOY_IMAGE, PYTHON, CLIENT_PACKAGES, LMDEPLOY_PACKAGES)


CPU_IMAGE = ImageSpec(
    "debian_slim", PYTHON, (*CLIENT_PACKAGES, *GATEWAY_PACKAGES, *FORMAT_PACKAGES)
)
