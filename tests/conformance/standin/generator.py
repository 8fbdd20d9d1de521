"""What stands for the engine behind every LMDeploy: a generator of the tokens it was told to say.

The requests that reached it can be read, and how it answers the next ones can be told, by the
routes of ``register``.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from fastapi import APIRouter
from pydantic import BaseModel

RUNNING, FAILED, FINISHED = 0, 5, 7  # TurboMind's request states
MEAN = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
STD = torch.tensor((0.229, 0.224, 0.225))[:, None, None]


class Behaviour(BaseModel):
    """How to answer: the text, then the end; ``times`` requests, then as by default."""

    text: str = "A picture."
    token_seconds: float = 0
    one_by_one: bool = False
    """Whether each token waits until LMDeploy has taken the one before it."""
    fail_after: int | None = None
    """Tokens before the engine reports an error."""
    fail_status: int = FAILED
    """TurboMind's state that says so: 6 is a prompt that is too long, 8 a cancelled request."""
    exit_after: int | None = None
    """Tokens before the process ends."""
    times: int = 1


seen: deque[dict] = deque(maxlen=1000)
behaviours: deque[Behaviour] = deque()
_lock = threading.Lock()


def next_behaviour() -> Behaviour:
    with _lock:
        if not behaviours:
            return Behaviour()
        behaviours[0].times -= 1
        return behaviours[0] if behaviours[0].times > 0 else behaviours.popleft()


def register(router: APIRouter) -> None:
    """Add the routes under ``/_standin``."""

    @router.get("/_standin/seen")
    def get_seen() -> list[dict]:
        """Requests that reached the generator, oldest first; the list starts anew."""
        reports = list(seen)
        seen.clear()
        return reports

    @router.post("/_standin/forget")
    def forget() -> None:
        """Start as if nothing had been asked or said yet."""
        seen.clear()
        behaviours.clear()

    @router.post("/_standin/next")
    def set_next(behaviour: Behaviour) -> None:
        behaviours.append(behaviour)


def colours(pixel_values: torch.Tensor) -> torch.Tensor:
    """(tiles, 3, 448, 448) normalised pixels to (tiles, 256, 3) colours from 0 to 255.

    It stands for InternViT and the projector: 256 tokens a tile, each the mean of its patch.
    """
    pixels = (pixel_values.float() * STD + MEAN) * 255
    return torch.nn.functional.avg_pool2d(pixels, 28).flatten(2).transpose(1, 2)


def thumbnails(features: torch.Tensor) -> list[list[int]]:
    """Each tile as the flat bytes of its 16x16 RGB thumbnail."""
    return features.round().clip(0, 255).int().reshape(-1, 768).tolist()


@dataclass
class Progress:
    """What the library's thread tells the asking one: state and tokens so far, the prompt's too."""

    status: int = RUNNING
    seq_len: int = 0
    taken: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def update(self, status: int, tokens: int = 0) -> None:
        """Both at once: the state that ends a request comes with its last token."""
        with self.lock:
            self.status = status
            self.seq_len += tokens
            self.taken.clear()

    def consume(self) -> "Progress":
        with self.lock:
            now = replace(self)
            self.taken.set()
        return now


class TokenGenerator:
    """The library's model instance: it answers with the tokens of the text it was told to say."""

    def __init__(self, tokenizer: object, session_len: int) -> None:
        self.tokenizer = tokenizer
        self.session_len = session_len
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()

    def start(
        self, inputs: dict, config: object, signal: Callable
    ) -> tuple[dict[str, torch.Tensor], Progress]:
        """The buffer of the prompt's and the answer's tokens, which a thread fills, and its state.

        The thread calls ``signal`` when there is something new.
        """
        self.cancelled.clear()
        behaviour = next_behaviour()
        answer = self.tokenizer.encode(behaviour.text, add_bos=False)
        start = len(inputs["input_ids"])
        room = self.session_len - start  # TurboMind's limit, whatever max_new_tokens says
        answer = [*answer, self.tokenizer.eos_token_id][: min(config.max_new_tokens, room)]
        buffer = torch.zeros(start + len(answer), dtype=torch.int32)
        progress = Progress(seq_len=start)

        threading.Thread(
            target=self._fill,
            args=(buffer, answer, config, behaviour, progress, signal),
            daemon=True,
        ).start()
        return {"output_ids": buffer}, progress

    def _fill(
        self,
        buffer: torch.Tensor,
        answer: list[int],
        config: object,
        behaviour: Behaviour,
        progress: Progress,
        signal: Callable,
    ) -> None:
        """Write the answer's tokens one by one."""
        for count, token in enumerate(answer):
            time.sleep(behaviour.token_seconds)
            if count == behaviour.exit_after:
                os._exit(3)
            if count == behaviour.fail_after or self.cancelled.is_set():
                failed = count == behaviour.fail_after
                progress.update(behaviour.fail_status if failed else FINISHED)
                break
            buffer[progress.seq_len] = token
            last = token in config.eos_ids or count == len(answer) - 1
            progress.update(FINISHED if last else RUNNING, tokens=1)
            signal()
            if last:
                return
            if behaviour.one_by_one:
                progress.taken.wait()
        signal()
