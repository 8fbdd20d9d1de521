"""pydantic-ai: text, and an object by the server's own means."""

from asked import IMAGE, KEY, MODEL, PROMPT, SEEN, URL, Scene
from pydantic_ai import Agent, ImageUrl, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY))
question = [PROMPT, ImageUrl(IMAGE)]
settings = {"temperature": 0.0, "max_tokens": 200}
assert SEEN in Agent(model).run_sync(question, model_settings=settings).output
held = Agent(model, output_type=NativeOutput(Scene)).run_sync(question, model_settings=settings)
assert isinstance(held.output, Scene)
