"""vLLM, ``vllm serve``, for its FP8 weights, GPT-OSS and newer GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from internvl_modal.engines.base import FOLDER, EngineOptions
from internvl_modal.models.families import family_of
from internvl_modal.protocol.endpoint import Capabilities

__all__ = ["VLLMOptions"]

BATCHED_TOKENS = 8192
"""Tokens of one step, and with it of the largest picture: vLLM takes none that is more than it.

24 tiles and a thumbnail are 6,400; its own default is 2,048 on most GPUs.
"""
CACHE = "/mnt/compiled"


class VLLMOptions(EngineOptions):
    """What vLLM is started with.

    >>> " ".join(VLLMOptions(model="m", tp=2).argv()[:9])
    'vllm serve m --host 0.0.0.0 --port 23333 --tensor-parallel-size 2'
    """

    engine = "vllm"
    title = "vLLM"
    program = "vllm"
    dialect = "vllm"
    image = "vllm/vllm-openai:v0.32.0-cu129"
    """Ubuntu, CUDA 12.9, Python 3.12 with vLLM; ``build`` says where its command is."""
    variables: ClassVar[Mapping[str, str]] = {
        "VLLM_CACHE_ROOT": CACHE,
        "VLLM_NO_USAGE_STATS": "1",
    }
    caches: ClassVar[Mapping[str, str]] = {CACHE: "internvl-modal-compiled"}
    """Compiling takes a minute or two, and what comes of it is named by all that it depends on."""
    key_option = "--api-key"
    ours: ClassVar[Mapping[str, str]] = {
        "--api-key": "api_key=",
        "--download-dir": "the weights are on this disk",
        "--gpu-memory-utilization": "gpu_memory_utilization=",
        "--host": "server_name=",
        "--kv-cache-dtype": "quant_policy=",
        "--max-model-len": "session_len=",
        "--max-num-batched-tokens": "it follows from the largest picture",
        "--max-num-seqs": "max_batch_size=",
        "--model": "it follows from the model",
        "--port": "server_port=",
        "--revision": "revision=",
        "--served-model-name": "it follows from the model",
        "--tensor-parallel-size": "it follows from the GPUs",
        "--trust-remote-code": "it is always given",
        "--trust-request-mm-kwargs": "it is always given",
        "--uvicorn-log-level": "a hung server is told by its access log",
    }
    further = (
        *("--allowed-headers", "--allowed-media-domains", "--allowed-methods", "--allowed-origins"),
        *("--async-scheduling", "--attention-backend", "--block-size", "--chat-template"),
        *("--chat-template-content-format", "--compilation-config", "--cpu-offload-gb"),
        *("--cudagraph-capture-sizes", "--disable-custom-all-reduce", "--disable-log-stats"),
        *("--distributed-executor-backend", "--dtype", "--enable-auto-tool-choice"),
        *("--enable-chunked-prefill", "--enable-expert-parallel", "--enable-log-requests"),
        *("--enable-prefix-caching", "--enforce-eager", "--generation-config", "--hf-overrides"),
        *("--limit-mm-per-prompt", "--load-format", "--max-logprobs", "--mm-encoder-tp-mode"),
        *("--mm-processor-cache-gb", "--mm-processor-kwargs", "--moe-backend"),
        *("--no-enable-prefix-caching", "--optimization-level", "--override-generation-config"),
        *("--quantization", "--reasoning-parser", "--safetensors-load-strategy", "--seed"),
        *("--skip-mm-profiling", "--speculative-config", "--structured-outputs-config"),
        *("--tool-call-parser",),
    )

    gpu_memory_utilization: float = Field(0.9, gt=0, lt=1)
    """Share of the whole memory that it may take: weights, buffers and KV cache together."""
    quant_policy: Literal[0, 8] = 0
    """Bits of the KV cache; 8 is fp8 there."""

    @classmethod
    def build(cls, *, flash_attention: bool) -> tuple[str, ...]:
        """A link to its command, wherever the image has it: Modal's Python comes first on the
        path, and has none.
        """
        del flash_attention
        return (f'mkdir -p {FOLDER} && ln -sf "$(command -v vllm)" {FOLDER}/vllm',)

    @classmethod
    def capabilities(cls, model: str) -> Capabilities:
        """Each request may set its limit of tiles, but not for transformers' own processor."""
        known, family = super().capabilities(model), family_of(model)
        plain = family is None or not family.converted
        return replace(known, tiles_by_request=plain, assumed=known.assumed and not plain)

    def words(self) -> tuple[str, ...]:
        """The model stands before the options."""
        return ("serve", self.model)

    def given(self) -> Mapping[str, object]:
        """Its access log is on by default, and stays so: by it a hung server is told."""
        return {
            "--host": self.server_name,
            "--port": self.server_port,
            "--tensor-parallel-size": self.tp,
            "--served-model-name": self.model_name,
            "--max-model-len": self.session_len,
            "--max-num-seqs": self.max_batch_size,
            "--max-num-batched-tokens": BATCHED_TOKENS,
            "--gpu-memory-utilization": self.gpu_memory_utilization,
            "--kv-cache-dtype": "fp8" if self.quant_policy else None,
            "--trust-remote-code": True,
            "--trust-request-mm-kwargs": True,
        }
