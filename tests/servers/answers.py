"""What servers that cannot run here answer, each with where it was read.

SGLang: github.com/sgl-project/sglang at 9b116dff, ``srt/entrypoints/openai/protocol.py``, and the
wording of 0.5.20. Ollama: github.com/ollama/ollama at 00988753, ``openai/openai.go``. TGI:
github.com/huggingface/text-generation-inference, ``router/src/validation.rs`` at 01067f8b,
``infer/mod.rs`` at 05816268 and ``lib.rs`` at 014d3fd4. OpenRouter: openrouter.ai/docs/api,
"Errors and Debugging" and "Streaming", read in November 2026. LM Studio 0.3 is closed source: its
list of models as its users quote it, and its error as several clients' tests quote it.
"""

from __future__ import annotations

import json
from typing import Any


def chat(
    text: str | None = "A cat.",
    finish: str | None = "stop",
    usage: dict[str, int] | None = None,
    **message: Any,
) -> dict[str, Any]:
    """A completion as most servers say it; ``message`` holds further fields of the message."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
    }
    body = {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]}
    return body if usage is None else {**body, "usage": usage}


def used(prompt: int, completion: int = 3) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def piece(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'id': '1', 'choices': [choice], **more})}\n\n"


def listed(name: str, owner: str | None, **more: Any) -> dict[str, Any]:
    """One entry of ``/v1/models``."""
    entry = {"id": name, "object": "model", **more}
    return entry if owner is None else {**entry, "owned_by": owner}


# SGLang, protocol.py:ModelCard
SGLANG_MODELS = {
    "object": "list",
    "data": [
        listed(
            "OpenGVLab/InternVL3-8B", "sglang", root="OpenGVLab/InternVL3-8B", max_model_len=32768
        )
    ],
}
# protocol.py:ChatCompletionResponse; matched_stop stands beside the finish reason
SGLANG_ANSWER = {
    "id": "8fa2b1c6",
    "object": "chat.completion",
    "created": 1760000000,
    "model": "OpenGVLab/InternVL3-8B",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "A cat.",
                "reasoning_content": None,
                "tool_calls": None,
            },
            "logprobs": None,
            "finish_reason": "stop",
            "matched_stop": 151645,
        }
    ],
    "usage": {
        "prompt_tokens": 3400,
        "total_tokens": 3403,
        "completion_tokens": 3,
        "prompt_tokens_details": None,
    },
}
# protocol.py:ErrorResponse, flat
SGLANG_FULL = {
    "object": "error",
    "message": "The input (9032 tokens) is longer than the model's context length (4096 tokens).",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
# the same nested, as an event of a stream
SGLANG_STREAM_ERROR = (
    'data: {"error": {"object": "error", "message": "Scheduler is overloaded", '
    '"type": "ServiceUnavailableError", "param": null, "code": 503}}\n\ndata: [DONE]\n\n'
)

# Ollama: ToListCompletion, where owned_by is the namespace of the model's name
OLLAMA_MODELS = {
    "object": "list",
    "data": [
        listed("nomic-embed-text:latest", "library", created=1),
        listed("internvl3:8b", "library", created=1),
    ],
}
OLLAMA_NO_MODELS = {"object": "list", "data": None}
# ToChatCompletion: finish_reason is null where done_reason is empty; here without usage
OLLAMA_ANSWER = {
    "id": "chatcmpl-367",
    "object": "chat.completion",
    "created": 1760000000,
    "model": "internvl3:8b",
    "system_fingerprint": "fp_ollama",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "A cat."}, "finish_reason": None}
    ],
}
# NewError: a type by status, no code; the words give a difference and neither count
OLLAMA_FULL = {
    "error": {
        "message": "prompt too long; exceeded max context length by 4936 tokens",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
}
OLLAMA_NOT_FOUND = {
    "error": {
        "message": "model 'internvl' not found",
        "type": "not_found_error",
        "param": None,
        "code": None,
    }
}

# LM Studio: every downloaded model is listed, whatever it is for
LMSTUDIO_MODELS = {
    "object": "list",
    "data": [
        listed("text-embedding-nomic-embed-text-v1.5", "organization_owner"),
        listed("internvl3-8b-instruct", "organization_owner"),
    ],
}
# the error of a full context is a bare string
LMSTUDIO_FULL = {
    "error": "Trying to keep the first 9032 tokens when context the overflows. However, the model "
    "is loaded with context length of only 4096 tokens, which is not enough. Try to load the model "
    "with a larger context length, or provide a shorter input"
}
# in a stream: an event of the kind "error"
LMSTUDIO_STREAM_ERROR = (
    "event: error\ndata: "
    '{"error":{"message":"Model unloaded.","type":"internal_error","code":null,"param":null}}\n\n'
)

# OpenRouter: the status is in error.code, the HTTP status may be 200; no owned_by
OPENROUTER_MODELS = {
    "data": [
        {
            "id": "opengvlab/internvl3-78b",
            "canonical_slug": "opengvlab/internvl3-78b",
            "name": "OpenGVLab: InternVL3 78B",
            "architecture": {
                "modality": "text+image->text",
                "input_modalities": ["image", "text"],
                "output_modalities": ["text"],
            },
        },
        {
            "id": "mistralai/mistral-small",
            "name": "Mistral Small",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        },
    ]
}
OPENROUTER_NO_CREDIT = {
    "error": {"message": "Insufficient credits. Add more using the link.", "code": 402},
    "user_id": "user_1",
}
OPENROUTER_FLAGGED = {
    "error": {
        "code": 403,
        "message": "The model requires moderation and your input was flagged",
        "metadata": {"reasons": ["violence"], "flagged_input": "...", "provider_name": "x"},
    }
}
OPENROUTER_LIMITED = {
    "error": {
        "code": 429,
        "message": "Rate limit exceeded: free-models-per-min.",
        "metadata": {"headers": {"X-RateLimit-Limit": "20", "Retry-After": "3"}},
    }
}
# "Streaming": comments keep the connection alive, and an error ends the last piece
OPENROUTER_STREAM = (
    ": OPENROUTER PROCESSING\n\n"
    + piece({"role": "assistant", "content": "A ", "reasoning": None}, provider="x")
    + ": OPENROUTER PROCESSING\n\n"
    + piece({"content": "cat."})
    + piece({"content": ""}, "stop", native_finish_reason="STOP")
    + f"data: {json.dumps({'id': '1', 'choices': [], 'usage': used(3400)})}\n\n"
    + "data: [DONE]\n\n"
)
OPENROUTER_BROKEN_STREAM = piece({"content": "A "}) + piece(
    {"content": ""}, "error", error={"code": 502, "message": "Provider disconnected unexpectedly"}
)

# TGI: signs with the model's own name; the finish reason is its own word
TGI_MODELS = {
    "object": "list",
    "data": [listed("OpenGVLab/InternVL2-8B", "OpenGVLab/InternVL2-8B", created=0)],
}
TGI_ANSWER = chat("A cat.", "eos_token", used(3400))
# older ones end a stream without [DONE]
TGI_STREAM = piece({"role": "assistant", "content": "A cat."}) + piece({"content": ""}, "eos_token")
# validation.rs:ValidationError and infer/mod.rs:InferError; 422, error_type beside it
TGI_FULL = {
    "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
    "Given: 8008 `inputs` tokens and 1024 `max_new_tokens`",
    "error_type": "validation",
}
# infer/mod.rs:InferError, 429 when every permit is taken
TGI_OVERLOADED = {"error": "Model is overloaded", "error_type": "overloaded"}
