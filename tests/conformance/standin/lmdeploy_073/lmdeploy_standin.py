"""The ``lmdeploy`` command without its CUDA engine: what the engine was given can be read.

Everything down to the call into TurboMind's C++ library is LMDeploy 0.7.3's own code: argument
parser, HTTP application, key check, chat template, image loader, tiler, embedding of the pictures
in the prompt, stop words, context limit, detokenizer. Ours are the vision tower, whose "features"
are the mean colours of each 28x28 patch, the generator of tokens behind ``forward``, and the few
torchvision transforms that the tiler asks for.

Beside LMDeploy's routes are those of ``generator``, without a key.
"""

import sys
import types
from collections.abc import AsyncIterator, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

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
from generator import (  # noqa: E402
    Progress,
    TokenGenerator,
    colours,
    register,
    seen,
    thumbnails,
)
from lmdeploy.cli import entrypoint  # noqa: E402
from lmdeploy.cli.serve import SubCliServe  # noqa: E402
from lmdeploy.serve.openai import api_server  # noqa: E402
from lmdeploy.turbomind import turbomind  # noqa: E402
from lmdeploy.turbomind.deploy.converter import get_tm_model  # noqa: E402
from lmdeploy.vl.model.base import VISION_MODELS  # noqa: E402
from lmdeploy.vl.model.internvl import InternVLVisionModel  # noqa: E402


class VisionTower:
    """Instead of InternViT and projector: 256 tokens a tile, each the mean colour of its patch."""

    device = torch.device("cpu")

    def extract_feature(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return colours(pixel_values)


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


class Instance(TokenGenerator):
    """The library's model instance."""

    def forward(
        self, inputs: dict, session: object, config: object, stream: bool, signal: Callable
    ) -> tuple[dict, Progress]:
        del session, stream
        return self.start(inputs, config, signal)


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
                    {
                        "size": size,
                        "tokens": end - begin,
                        "tiles": thumbnails(torch.as_tensor(features)),
                    }
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

    def create_model_instance(self, device: int) -> Instance:
        return Instance(self.tokenizer, self.session_len)

    def create_instance(self) -> ReportingInstance:
        return ReportingInstance(self, self.config)

    def close(self) -> None:
        """Nothing is held."""


def serve(args: object) -> None:
    """``lmdeploy serve api_server``, with the tiny model instead of the one named."""
    args.model_path = tiny_model.staged(args.model_path)
    run_server(args)


register(api_server.router)
turbomind.TurboMind.from_pretrained = Engine.from_pretrained
lmdeploy.utils.get_model = lambda name, **_: name  # nothing is downloaded
run_server = SubCliServe.api_server
SubCliServe.api_server = staticmethod(serve)

if __name__ == "__main__":
    entrypoint.run()
