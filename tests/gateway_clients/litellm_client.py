"""litellm: chat, stream, JSON schema."""

import litellm
from asked import KEY, MESSAGES, MODEL, SEEN, URL, Scene

where = {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1", "api_key": KEY}
answer = litellm.completion(messages=MESSAGES, temperature=0, **where)
assert SEEN in answer.choices[0].message.content
stream = litellm.completion(messages=MESSAGES, temperature=0, stream=True, **where)
assert SEEN in "".join(chunk.choices[0].delta.content or "" for chunk in stream)
held = litellm.completion(messages=MESSAGES, response_format=Scene, max_tokens=64, **where)
Scene.model_validate_json(held.choices[0].message.content)
