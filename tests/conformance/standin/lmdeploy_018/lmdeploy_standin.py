"""The ``lmdeploy`` command of 0.18.0 without its CUDA engine: what the engine was given can be read.

Everything down to the call into TurboMind's C++ library is LMDeploy's own code: argument parser,
HTTP application, key check, health monitor, chat template, image loader, tiler, places of the
pictures in the prompt, sampling defaults, stop words, context limit, check of response formats,
detokenizer, response parser. Ours is what the library does behind ``forward``: the vision tower
(inside the library since 0.16), whose "features" are the mean colours of each 28x28 patch, and the
generator of tokens.

Beside LMDeploy's routes are those of ``generator``, with the key.
"""

import sys
import types
from collections.abc import AsyncIterator, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch


def _stand_in_for_torchvisions_library() -> torch.library.Library:
    """Its wheel is for CUDA's torch; the Python part needs to know of two operators.

    What the returned library defines goes with it.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _stand_in_for_the_engine_library() -> None:
    """Let ``lmdeploy.turbomind`` be imported without the CUDA libraries."""
    library = types.ModuleType("lmdeploy.turbomind._turbomind")
    library.TensorMap = dict
    library.TokenizerInfo = object
    library.from_dlpack = lambda tensor: tensor
    library.DataType = types.SimpleNamespace(TYPE_UINT32=object(), TYPE_INT32=object())
    library.GenerationConfig = types.SimpleNamespace
    library.SessionParam = types.SimpleNamespace
    sys.modules[library.__name__] = library
    torch.cuda.device_count = lambda: 8
    torch.cuda.mem_get_info = lambda device=None: (0, 0)
    torch.cuda.get_device_name = lambda device=None: "stand-in"


operators = _stand_in_for_torchvisions_library()
_stand_in_for_the_engine_library()

import tiny_model  # noqa: E402
import xgrammar  # noqa: E402
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


class Instance(TokenGenerator):
    """The library's model instance."""

    def forward(
        self,
        inputs: dict,
        pictures: object,
        session: object,
        config: object,
        stream: bool,
        metrics: bool,
        signal: Callable,
    ) -> tuple[dict, Progress, object]:
        del pictures, session, stream, metrics
        times = types.SimpleNamespace(cached_tokens=0, enqueue_time=1, scheduled_time=1)
        return *self.start(inputs, config, signal), times

    def set_grammar(self, grammar: object) -> None:
        """The generator says what it was told to, whether the grammar allows it or not."""
        assert isinstance(grammar, xgrammar.CompiledGrammar)


class ReportingInstance(turbomind.TurboMindInstance):
    """LMDeploy's; the stand-in's report is made of what it is called with."""

    async def async_stream_infer(self, session_id: int, **given: object) -> AsyncIterator:
        config = given["gen_config"]
        seen.append(
            {
                "prompt": given.get("prompt"),
                "prompt_tokens": len(given["input_ids"]),
                "sampling": vars(self._get_generation_config(config)),
                "response_format": config.response_format,
                "images": [report(each) for each in given.get("multimodal") or []],
            }
        )
        async for output in super().async_stream_infer(session_id, **given):
            yield output


def report(picture: dict) -> dict:
    """One picture; its size is not known of ``-HF`` repositories."""
    features = colours(picture["pixel_values"])
    return {
        "size": picture.get("image_size"),
        "tokens": picture["image_tokens"],
        "tiles": thumbnails(features),
    }


class Engine(turbomind.TurboMind):
    """LMDeploy's, its configuration too, without weights and the library that holds them."""

    def __init__(self, model_path: str, engine_config: object, **rest: object) -> None:
        turbomind.update_parallel_config(engine_config)
        self.engine_config = engine_config
        self.session_len = engine_config.session_len
        self.tokenizer = turbomind.Tokenizer(model_path)
        self.health_executor = turbomind.ThreadPoolExecutor(max_workers=1)
        self.model_comm = self
        self._engine_created = True
        self._ticks = 0

    def create_request(self) -> Instance:
        return Instance(self.tokenizer, self.session_len)

    def create_instance(self, cuda_stream_id: int = 0) -> ReportingInstance:
        return ReportingInstance(self, cuda_stream_id)

    def get_schedule_metrics(self) -> turbomind.ScheduleMetrics:
        self._ticks += 1
        return turbomind.ScheduleMetrics(scheduler_tick=self._ticks)

    def mm_input_converter(self, multimodal: list[dict] | None) -> None:
        """The vision tower's input is of the library's own types."""

    @property
    def grammar_compiler(self) -> xgrammar.GrammarCompiler:
        """The library's is the same one, built in."""
        vocabulary = xgrammar.TokenizerInfo.from_huggingface(self.tokenizer.model.model)
        return xgrammar.GrammarCompiler(vocabulary)


def create_router(context: object) -> object:
    router = create_openai_router(context)
    register(router)
    return router


def serve(args: object) -> None:
    """``lmdeploy serve api_server``, with the tiny model instead of the one named."""
    args.model_path = tiny_model.staged(args.model_path)
    run_server(args)


create_openai_router = api_server.create_openai_router
api_server.create_openai_router = create_router
turbomind.TurboMind.from_pretrained = Engine
run_server = SubCliServe.api_server
SubCliServe.api_server = staticmethod(serve)

if __name__ == "__main__":
    entrypoint.run()
