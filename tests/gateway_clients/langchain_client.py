"""langchain-openai: chat, stream, structured output."""

from asked import KEY, MESSAGES, MODEL, SEEN, URL, Scene
from langchain_openai import ChatOpenAI

chat = ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=KEY, temperature=0, max_tokens=200)
assert SEEN in chat.invoke(MESSAGES).content
assert SEEN in "".join(piece.content for piece in chat.stream(MESSAGES))
held = chat.with_structured_output(Scene, method="json_schema").invoke(MESSAGES)
assert isinstance(held, Scene)
