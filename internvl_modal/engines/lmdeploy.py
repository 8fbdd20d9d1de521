"""LMDeploy, ``lmdeploy serve api_server``: the version of the image that InternVL 2.5 is documented
with, and today's.

Between the two lies what no flag bridges: 0.15 stops on the template's name that 0.7.3 needs, and
0.16 has a vision tower of its own, shared by all GPUs, for which it needs neither timm nor
flash-attn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from internvl_modal.engines.base import FOLDER, EngineOptions, Word
from internvl_modal.models.families import family_of
from internvl_modal.models.shapes import ModelSpec
from internvl_modal.models.support import EngineName

__all__ = ["LMDeploy018Options", "LMDeployOptions"]

FLASH_ATTENTION = (
    "https://github.com/Dao-AILab/flash-attention/releases/download/v2.7.4.post1/"
    "flash_attn-2.7.4.post1+cu12torch2.6cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"
)
"""Built for the image's Python 3.10 and its torch 2.6.0 of PyPI (CUDA 12.4, old C++ ABI). By its
version alone pip would take the sources, and compile them for an hour where no wheel fits."""

_OURS = {
    "--api-keys": "api_key=",
    "--cache-max-entry-count": "cache_max_entry_count=",
    "--chat-template": "it is InternVL's",
    "--download-dir": "the weights are on this disk",
    "--log-level": "log_level=",
    "--max-batch-size": "max_batch_size=",
    "--model-format": "it follows from the model",
    "--model-name": "it follows from the model",
    "--quant-policy": "quant_policy=",
    "--revision": "revision=",
    "--server-name": "server_name=",
    "--server-port": "server_port=",
    "--session-len": "session_len=",
    "--tp": "it follows from the GPUs",
    "--vision-max-batch-size": "vision_max_batch_size=",
}
_FURTHER = (
    *("--adapters", "--allow-credentials", "--allow-headers", "--allow-methods"),
    *("--allow-origins", "--cache-block-seq-len", "--communicator", "--device"),
    *("--disable-fastapi-docs", "--dtype", "--eager-mode", "--enable-prefix-caching"),
    *("--max-concurrent-requests", "--max-log-len", "--max-prefill-iters"),
    *("--max-prefill-token-num", "--num-tokens-per-iter", "--reasoning-parser"),
    *("--rope-scaling-factor", "--tool-call-parser"),
)
"""Of both versions."""


class LMDeployOptions(EngineOptions):
    """What LMDeploy 0.7.3 is started with; the combinations that it cannot run are refused.

    >>> options = LMDeployOptions.parse(model="OpenGVLab/InternVL2_5-8B", tp=2)
    >>> options.argv()[:4]
    ['lmdeploy', 'serve', 'api_server', 'OpenGVLab/InternVL2_5-8B']
    """

    engine: ClassVar[EngineName] = "lmdeploy-0.7.3"
    title = "LMDeploy 0.7.3"
    program = "lmdeploy"
    dialect = "lmdeploy"
    image = "openmmlab/lmdeploy:v0.7.3-cu12"
    """Ubuntu 22.04, CUDA 12.4, Python 3.10 with LMDeploy in /opt/py3, its source in /opt/lmdeploy.
    """
    key_option = "--api-keys"
    ours: ClassVar[Mapping[str, str]] = _OURS
    further: ClassVar[tuple[str, ...]] = (*_FURTHER, "--backend")

    model_format: Literal["hf", "awq", "gptq"] | None = None
    cache_max_entry_count: float = Field(0.8, gt=0, lt=1)
    """Share of the memory left free by the weights that becomes the KV cache.

    Taken at once at the start, the smallest of all GPUs counting; 0.8 is LMDeploy's own default.
    """
    quant_policy: Literal[0, 4, 8] = 0
    """Bits of the KV cache; 0 is the weights' own type.

    Its kernels exist for heads that are 128 wide, so 1B and other small models cannot have it.
    """
    vision_max_batch_size: int = Field(1, ge=1)
    log_level: Literal["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"] = "ERROR"
    chat_template: Word | None = "internvl2_5"
    """Always given: LMDeploy would guess it from the folder's name.

    A folder that is named by a commit makes it stop with "please specify chat template".
    """

    @classmethod
    def build(cls, *, flash_attention: bool) -> tuple[str, ...]:
        """InternVL's remote code needs timm.

        All that the two require is in the image already: with dependencies pip might exchange its
        torch.
        """
        pip = f"{FOLDER}/python -m pip install --no-cache-dir --no-deps"
        commands = (f"{pip} timm==1.0.15", f"{pip} 'flash-attn @ {FLASH_ATTENTION}'")
        return commands if flash_attention else commands[:1]

    def check_model(self, spec: ModelSpec) -> None:
        """Its formats and its KV cache, besides the heads."""
        super().check_model(spec)
        if self.quant_policy and spec.llm.head_dim != 128:
            raise ValueError(
                f"quant_policy={self.quant_policy} needs heads 128 wide; "
                f"those of {spec.name} are {spec.llm.head_dim}"
            )
        if self.model_format is not None and (self.model_format == "awq") != spec.awq:
            stored = "awq" if spec.awq else "hf"
            raise ValueError(f"model_format={self.model_format!r}: {spec.name} is {stored!r}")

    def words(self) -> tuple[str, ...]:
        """The model stands before the options."""
        return ("serve", "api_server", self.model)

    def given(self) -> Mapping[str, object]:
        """In the order of ``--help``, more or less."""
        return {
            "--server-name": self.server_name,
            "--server-port": self.server_port,
            "--model-name": self.model_name,
            "--chat-template": self.chat_template,
            "--model-format": self.model_format,
            "--tp": self.tp,
            "--session-len": self.session_len,
            "--max-batch-size": self.max_batch_size,
            "--cache-max-entry-count": self.cache_max_entry_count,
            "--quant-policy": self.quant_policy,
            "--vision-max-batch-size": self.vision_max_batch_size,
            "--log-level": self.log_level,
        }


class LMDeploy018Options(LMDeployOptions):
    """What LMDeploy 0.18 is started with.

    It takes the chat template from the repository and refuses to start with a name of the older
    ones; the repository's own code is run only if it is told to.

    >>> LMDeploy018Options(model="m").command()[-2:]
    ['ERROR', '--trust-remote-code']
    """

    engine = "lmdeploy"
    title = "LMDeploy 0.18"
    dialect = "lmdeploy-0.13"
    image = "openmmlab/lmdeploy:v0.18.0-cu12.8"
    """Ubuntu 24.04, CUDA 12.8, Python 3.12 with LMDeploy in /opt/py3."""
    ours: ClassVar[Mapping[str, str]] = {
        **_OURS,
        "--backend": "it follows from the model",
        "--trust-remote-code": "it is always given",
    }
    further = (
        *_FURTHER,
        *("--allowed-media-domains", "--async", "--cp", "--cudagraph-capture-batch-sizes"),
        *("--disable-metrics", "--distributed-executor-backend", "--dp", "--enable-abort-handling"),
        *("--enable-eplb", "--enable-microbatch", "--ep", "--generation-config", "--hf-overrides"),
        *("--kernel-block-size", "--logprobs-mode", "--moe-a2a-backend", "--num-gpu-blocks"),
        *("--piecewise-cudagraph-max-tokens", "--speculative-algorithm"),
        *("--speculative-draft-model", "--speculative-num-draft-tokens"),
    )
    chat_template: Literal[None] = None

    @classmethod
    def build(cls, *, flash_attention: bool) -> tuple[str, ...]:
        """Nothing: the vision tower is LMDeploy's own."""
        del flash_attention
        return ()

    def given(self) -> Mapping[str, object]:
        """Flash models run in its PyTorch engine only, and it does not choose that by itself."""
        # The name first: a folder of the weights cache is named by a commit.
        family = family_of(*filter(None, (self.model_name, self.model)))
        flash = family is not None and family.flash
        return {
            **super().given(),
            "--backend": "pytorch" if flash else None,
            "--trust-remote-code": True,
        }
