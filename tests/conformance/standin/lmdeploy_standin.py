"""The ``lmdeploy`` command without its CUDA engine: what the engine was given can be read.

Everything down to the call into TurboMind's C++ library is LMDeploy 0.7.3's own code: argument
parser, HTTP application, key check, chat template, image loader, tiler, embedding of the pictures
in the prompt, stop words, context limit, detokenizer. Ours are the vision tower, whose "features"
are the mean colours of each 28x28 patch, the generator of tokens behind ``forward``, and the few
torchvision transforms that the tiler asks for.

Beside LMDeploy's routes, without a key: ``GET /_standin/seen`` returns the reports of the requests
that reached the generator, ``POST /_standin/next`` says how to answer the next ones, and
``POST /_standin/forget`` starts anew.
"""

import os
import sys
import tempfile
import threading
import time
import types
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch


def _stand_in_for_the_engine_library() -> None:
    """Let ``lmdeploy.turbomind`` be imported without the CUDA libraries."""
    library = types.ModuleType("_turbomind")
    library.TensorMap = dict
    library.from_dlpack = lambda tensor: tensor
    library.DataType = types.SimpleNamespace(TYPE_UINT32=object(), TYPE_INT32=object())
    library.GenerationConfig = types.SimpleNamespace
    library.SessionParam = types.SimpleNamespace
    sys.modules["_turbomind"] = library
    torch.cuda.mem_get_info = lambda device=None: (0, 0)
    torch.cuda.get_device_name = lambda device=None: "stand-in"


_stand_in_for_the_engine_library()

import lmdeploy.utils  # noqa: E402
import tiny_model  # noqa: E402
from lmdeploy.cli import entrypoint  # noqa: E402
from lmdeploy.cli.serve import SubCliServe  # noqa: E402
from lmdeploy.serve.openai import api_server  # noqa: E402
from lmdeploy.turbomind import turbomind  # noqa: E402
from lmdeploy.turbomind.deploy.converter import get_tm_model  # noqa: E402
from lmdeploy.vl.model.base import VISION_MODELS  # noqa: E402
from lmdeploy.vl.model.internvl import InternVLVisionModel  # noqa: E402
from pydantic import BaseModel  # noqa: E402

MEAN = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
STD = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
RUNNING, FAILED, FINISHED = 0, 1, 7  # TurboMind's request states

seen: deque[dict] = deque(maxlen=1000)


class Behaviour(BaseModel):
    """How to answer: the text, then the end; ``times`` requests, then as by default."""

    text: str = "A picture."
    token_seconds: float = 0
    one_by_one: bool = False
    """Whether each token waits until LMDeploy has taken the one before it."""
    fail_after: int | None = None
    """Tokens before the engine reports an error."""
    exit_after: int | None = None
    """Tokens before the process ends."""
    times: int = 1


behaviours: deque[Behaviour] = deque()
_lock = threading.Lock()


def next_behaviour() -> Behaviour:
    with _lock:
        if not behaviours:
            return Behaviour()
        behaviours[0].times -= 1
        return behaviours[0] if behaviours[0].times > 0 else behaviours.popleft()


class VisionTower:
    """Instead of InternViT and projector: 256 tokens a tile, each the mean colour of its patch."""

    device = torch.device("cpu")

    def extract_feature(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(tiles, 3, 448, 448) normalised pixels to (tiles, 256, 3) colours from 0 to 255."""
        pixels = (pixel_values.float() * STD + MEAN) * 255
        pooled = torch.nn.functional.avg_pool2d(pixels, 28)
        return pooled.flatten(2).transpose(1, 2)


class SeeingVisionModel(InternVLVisionModel):
    """LMDeploy's, which also hands the sizes it read to the engine's report."""

    def build_model(self) -> None:
        self.model = VisionTower()

    def to_turbomind(self, messages: list[dict], *rest: object) -> dict:
        sizes = [
            x["image_size"] for m in messages if m["role"] == "preprocess" for x in m["content"]
        ]
        return super().to_turbomind(messages, *rest) | {"image_sizes": sizes}


VISION_MODELS.module_dict["InternVLVisionModel"] = SeeingVisionModel


@dataclass
class Progress:
    """What the library's thread tells the asking one: state and tokens so far, the prompt's too."""

    status: int = RUNNING
    seq_len: int = 0
    taken: threading.Event = field(default_factory=threading.Event)

    def consume(self) -> "Progress":
        now = replace(self)
        self.taken.set()
        return now


class TokenGenerator:
    """The library's model instance: it answers with the tokens of the text it was told to say."""

    def __init__(self, tokenizer: object) -> None:
        self.tokenizer = tokenizer
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()

    def forward(
        self, inputs: dict, session: object, config: object, stream: bool, signal: Callable
    ) -> tuple[dict, Progress]:
        del session, stream
        self.cancelled.clear()
        behaviour = next_behaviour()
        answer = self.tokenizer.encode(behaviour.text, add_bos=False)
        answer = [*answer, self.tokenizer.eos_token_id][: config.max_new_tokens]
        start = len(inputs["input_ids"])
        buffer = torch.zeros(start + len(answer), dtype=torch.int32)
        progress = Progress(seq_len=start)

        def generate() -> None:
            progress.status = self._fill(buffer, answer, config, behaviour, progress, signal)
            signal()

        threading.Thread(target=generate, daemon=True).start()
        return {"output_ids": buffer}, progress

    def _fill(
        self,
        buffer: torch.Tensor,
        answer: list[int],
        config: object,
        behaviour: Behaviour,
        progress: Progress,
        signal: Callable,
    ) -> int:
        """Write the answer's tokens one by one; the state that the request ends in."""
        for count, token in enumerate(answer):
            time.sleep(behaviour.token_seconds)
            if count == behaviour.exit_after:
                os._exit(3)
            if count == behaviour.fail_after:
                return FAILED
            if self.cancelled.is_set():
                break
            buffer[progress.seq_len] = token
            progress.seq_len += 1
            progress.taken.clear()
            signal()
            if behaviour.one_by_one:
                progress.taken.wait()
            if token in config.eos_ids:
                break
        return FINISHED


class ReportingInstance(turbomind.TurboMindInstance):
    """LMDeploy's; the stand-in's report is made of what it is called with."""

    async def async_stream_infer(self, session_id: int, **given: object) -> AsyncIterator:
        engine_config = self._get_generation_config(given["gen_config"])
        ids, ranges = given["input_ids"], given.get("input_embedding_ranges", [])
        seen.append(
            {
                "prompt": given.get("prompt"),
                "prompt_tokens": len(ids),
                "sampling": vars(engine_config),
                "images": [
                    {"size": size, "tokens": end - begin, "tiles": tiles(features)}
                    for size, (begin, end), features in zip(
                        given.get("image_sizes", []),
                        ranges,
                        given.get("input_embeddings", []),
                        strict=True,
                    )
                ],
            }
        )
        async for output in super().async_stream_infer(session_id, **given):
            yield output


def tiles(features: np.ndarray) -> list[list[int]]:
    """Each tile as the flat bytes of its 16x16 RGB thumbnail."""
    return features.round().clip(0, 255).astype(int).reshape(-1, 768).tolist()


class Engine:
    """Instead of ``TurboMind``: its configuration is made by LMDeploy, no weights are loaded."""

    node_id = 0

    def __init__(self, path: str, tokenizer: object, engine_config: object, **rest: object) -> None:
        self.tokenizer = tokenizer
        self.gpu_count = engine_config.tp
        model = get_tm_model(path, None, None, engine_config)
        turbomind.TurboMind._postprocess_config(self, model.tm_config, engine_config)
        self.session_len = self.config.session_len
        self.model_comm = self

    @classmethod
    def from_pretrained(cls, path: str, **given: object) -> "Engine":
        return cls(path, **given)

    def create_model_instance(self, device: int) -> TokenGenerator:
        return TokenGenerator(self.tokenizer)

    def create_instance(self) -> ReportingInstance:
        return ReportingInstance(self, self.config)

    def close(self) -> None:
        """Nothing is held."""


@api_server.router.get("/_standin/seen")
def get_seen() -> list[dict]:
    """Reports of the requests that reached the generator, oldest first; the list starts anew."""
    reports = list(seen)
    seen.clear()
    return reports


@api_server.router.post("/_standin/forget")
def forget() -> None:
    """Start as if nothing had been asked or said yet."""
    seen.clear()
    behaviours.clear()


@api_server.router.post("/_standin/next")
def set_next(behaviour: Behaviour) -> None:
    behaviours.append(behaviour)


def staged(model_path: str, **_: object) -> str:
    """A folder by the same name, which LMDeploy looks at, that holds the tiny model."""
    folder = Path(tempfile.mkdtemp(prefix="standin-")) / Path(model_path).name
    folder.mkdir()
    tiny_model.write(folder)
    return str(folder)


def serve(args: object) -> None:
    """``lmdeploy serve api_server``, with the tiny model instead of the one named."""
    args.model_path = staged(args.model_path)
    run_server(args)


turbomind.TurboMind.from_pretrained = Engine.from_pretrained
lmdeploy.utils.get_model = lambda name, **_: name  # nothing is downloaded
run_server = SubCliServe.api_server
SubCliServe.api_server = staticmethod(serve)

if __name__ == "__main__":
    entrypoint.run()
