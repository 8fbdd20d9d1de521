"""openai: chat, stream, parse, models."""

from asked import IMAGE, KEY, MESSAGES, MODEL, SEEN, URL, Colour, Scene
from openai import OpenAI

assert IMAGE
with OpenAI(base_url=f"{URL}/v1", api_key=KEY) as client:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    create = client.chat.completions.create
    answer = create(model=MODEL, messages=MESSAGES, temperature=0)
    assert SEEN in (answer.choices[0].message.content or ""), answer
    stream = create(model=MODEL, messages=MESSAGES, temperature=0, stream=True)
    assert SEEN in "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    parsed = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Scene, max_tokens=64
    )
    found = parsed.choices[0].message.parsed
    assert found is not None
    assert found.colour in Colour
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, response_format=Scene, max_tokens=64
    ) as events:
        final = events.get_final_completion()
    assert final.choices[0].message.parsed is not None
