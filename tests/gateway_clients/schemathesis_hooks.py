"""What the OpenAPI document cannot say: that a picture is one, and who asks last."""

from __future__ import annotations

import base64
import os
from typing import Any

import schemathesis
from hypothesis import strategies

IMAGE = os.environ["GATEWAY_IMAGE"]
MOST_PICTURES = 16
schemathesis.openapi.format("byte", strategies.just(IMAGE.partition(",")[2]))
schemathesis.openapi.format("binary", strategies.just(base64.b64decode(IMAGE.partition(",")[2])))
schemathesis.openapi.format("uri", strategies.just(IMAGE))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Let the user ask last, and for no object that the server behind cannot know."""
    del context, kwargs
    body = case.body
    if isinstance(body, dict) and isinstance(messages := body.get("messages"), list) and messages:
        case.body = {**body, "messages": [*messages, {"role": "user", "content": "Hello."}]}
    if isinstance(body, dict) and isinstance(body.get("response_format"), dict):
        case.body = {**case.body, "response_format": {"type": "text"}}


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out what no schema tells: text for a number in a form, and too many pictures in all."""
    del context
    wrong = case.meta is not None and not case.meta.generation.mode.is_positive
    if case.media_type == "multipart/form-data" and wrong:
        return False
    return repr(case.body).count("'image_url'") <= MOST_PICTURES
