"""LMDeploy's own client, which sets every parameter that it knows."""

from asked import KEY, MESSAGES, MODEL, SEEN, URL
from lmdeploy.serve.openai.api_client import APIClient

client = APIClient(URL, api_key=KEY)
assert client.available_models == [MODEL]
(answer,) = client.chat_completions_v1(model=MODEL, messages=MESSAGES, temperature=0.01, top_p=0.1)
assert SEEN in answer["choices"][0]["message"]["content"], answer
pieces = client.chat_completions_v1(
    model=MODEL, messages=MESSAGES, temperature=0.01, top_p=0.1, stream=True
)
said = [piece["choices"][0]["delta"].get("content") or "" for piece in pieces if piece["choices"]]
assert SEEN in "".join(said)
