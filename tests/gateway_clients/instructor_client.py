"""instructor: its mode of JSON schemas, and that of any JSON."""

import instructor
from asked import KEY, MESSAGES, MODEL, URL, Colour, Scene
from openai import OpenAI

with OpenAI(base_url=f"{URL}/v1", api_key=KEY) as plain:
    client = instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA)
    found = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, response_model=Scene, max_tokens=64
    )
    assert found.colour in Colour

    class Anything(Scene):
        """The demo model knows no JSON but what it is held to."""

        colour: str = "none"

    client = instructor.from_openai(plain, mode=instructor.Mode.JSON)
    anything = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, response_model=Anything, max_tokens=256, max_retries=1
    )
    assert isinstance(anything, Anything)
