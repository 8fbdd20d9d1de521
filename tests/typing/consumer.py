"""A program as users write it; type checkers must know every value in it."""

import asyncio
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel

import internvl_modal as ivl


class Receipt(BaseModel):
    total: float


def one(client: ivl.Client) -> str:
    text: str = client.describe("a.jpg", detail="high", max_tokens=3).text
    text += client.describe([Image.new("RGB", (2, 2)), np.zeros((2, 2), np.uint8), b"..."]).text
    total: float = client.extract("receipt.png", Receipt).total
    with client.stream(Path("a.jpg"), temperature=0.2) as stream:
        text += "".join(piece.upper() for piece in stream)
        text += stream.description.text
    return f"{text} {total}"


def many(client: ivl.Client) -> int:
    with client.describe_many("photos", out="captions.jsonl", concurrency=3) as batch:
        for outcome in batch:
            print(outcome.key, outcome.description, outcome.error)
    for outcome in ivl.describe_many({"a": "a.jpg"}, "What is it?"):
        print(outcome.ok)
    return batch.summary.described


async def awaited() -> None:
    async with ivl.AsyncClient(base_url="http://127.0.0.1:1/v1") as client:
        async for outcome in client.describe_many([Path("a.jpg")]):
            print(outcome.attempts)
        async with client.stream("a.jpg") as stream:
            async for piece in stream:
                print(piece.strip())
    description = await ivl.adescribe("a.jpg", model="demo")
    deployment = await ivl.adeploy("internvl2_5-1b", gpu="L4", dry_run=True)
    print(description.usage.prompt_tokens, deployment.plan.cost.per_hour)


def planned(source: ivl.ImageSource, detail: ivl.Detail) -> float:
    plan = ivl.plan("internvl2_5-78b", gpu="A100-80GB:4", max_tiles=6)
    print(ivl.describe(source, detail=detail), ivl.deploy(dry_run=True).spec.argv)
    return plan.require().cost.per_hour


if __name__ == "__main__":
    with ivl.Client(base_url="http://127.0.0.1:1/v1") as made:
        print(one(made), many(made), planned("a.jpg", 6))
    asyncio.run(awaited())
