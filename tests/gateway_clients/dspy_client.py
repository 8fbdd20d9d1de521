"""dspy: a language model and a picture."""

import dspy
from asked import KEY, MESSAGES, MODEL, SEEN, URL

model = dspy.LM(
    f"openai/{MODEL}", api_base=f"{URL}/v1", api_key=KEY, temperature=0, max_tokens=200, cache=False
)
(answer,) = model(messages=MESSAGES)
assert SEEN in (answer if isinstance(answer, str) else answer["text"])
