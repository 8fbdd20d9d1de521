"""A small InternVL on this machine: llama.cpp in a process of its own, shared and short-lived.

What ``describe`` uses when nothing is configured: no GPU, no account, and 1 GB to download. The
engine is a process, shared by all backends that want the same model with the same options: loading
takes seconds and the memory is there once.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from internvl_modal._utils.daemon_thread import in_daemon
from internvl_modal._utils.user_warning import warn_user
from internvl_modal.engines.llamacpp import CONTEXT, Engine
from internvl_modal.engines.llamacpp_process import LlamaCppServer
from internvl_modal.errors import (
    ConfigError,
    WeightsError,
    WeightsInterruptedError,
)
from internvl_modal.models.catalogue import MODELS, find_model
from internvl_modal.protocol.endpoint import Capabilities, Endpoint
from internvl_modal.settings import Settings

DEFAULT_MODEL = "internvl2_5-1b"
"""The smallest: a gigabyte on disk, and a picture takes seconds on a laptop."""
DEMO = "demo"
"""3 MB inside the package, trained on generated scenes: it proves an installation, offline, and is
no use for pictures.
"""
HUB_MODELS = tuple(spec.name for spec in MODELS.values() if spec.gguf)
"""Those with files for llama.cpp on the Hub."""

DEMO_NOTICE = (
    "the demo model knows only generated scenes of one to three shapes; "
    "what it says of any other picture is worthless"
)


_running: dict[Engine, LlamaCppServer] = {}
"""Engines of this process by what they were started with; guarded by ``_lock``."""
# Held while an engine starts: two threads that want the same one must not load it twice.
_lock = threading.Lock()


def _forget() -> None:
    """In a forked child: leave the engines to the parent, and make a lock that nobody holds.

    The engines are the parent's children and end with it; the child starts its own.
    """
    global _lock  # noqa: PLW0603 - the child needs one that nobody holds
    _lock = threading.Lock()
    _running.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)


class LocalBackend:
    """InternVL on this machine through llama.cpp; needs the extra ``local``.

    ``model``: "demo" (bundled), a name from the Hub ("internvl2_5-1b", the default, and every model
    that ``internvl-modal plan --list`` calls local) or a pair of GGUF paths: the model and its
    mmproj. ``start`` downloads what is missing, raising WeightsError; the engine is
    shared by every backend of this process and ends with the last one or with the process.
    """

    name = "local"

    def __init__(
        self,
        model: str | tuple[str | os.PathLike[str], str | os.PathLike[str]] = DEFAULT_MODEL,
        *,
        n_ctx: int = CONTEXT,
        n_gpu_layers: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        hf_token: str | None = None,
    ) -> None:
        self.model = _checked(model)
        self._n_ctx = n_ctx
        self._n_gpu_layers = n_gpu_layers
        settings = Settings.load(cache_dir=cache_dir, hf_token=hf_token)
        self._cache_dir = settings.cache_dir
        self._hf_token = settings.hf_token
        self._engine: Engine | None = None

    def preview(self) -> Endpoint:
        """The demo model has tiles of 96 pixels and 9 tokens; of unknown files nothing is known."""
        named = isinstance(self.model, str)
        # Trained with tiles of its own size, so that InternVL's numbers would refuse every answer.
        if self.model == DEMO:
            capabilities = Capabilities(
                "llamacpp", tile_pixels=96, tokens_per_tile=9, max_tiles=1, json_schema=True
            )
        else:
            tokens = 256 if named else None
            capabilities = Capabilities(
                "llamacpp", tokens_per_tile=tokens, max_tiles=12, json_schema=True
            )
        return Endpoint(
            "",
            capabilities=capabilities,
            notice=DEMO_NOTICE if self.model == DEMO else "",
            models=(DEMO, *HUB_MODELS) if isinstance(self.model, str) else (self.model[0].stem,),
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> LocalBackend:
        """The model that the settings name; ``model.gguf,mmproj.gguf`` is a pair of paths."""
        token = settings.hf_token.get_secret_value() if settings.hf_token else None
        first, comma, second = (settings.model or DEFAULT_MODEL).partition(",")
        return cls(
            (first, second) if comma else first, cache_dir=settings.cache_dir, hf_token=token
        )

    def start(self) -> Endpoint:
        """Fetch the model files where missing and start the engine."""
        engine = self._engine or self._resolved()
        with _lock:
            running = _running.get(engine)
            # It may have died meanwhile, of memory for instance: its users get the new one at their
            # next call.
            if running is None or running.process.poll() is not None:
                if self.model == DEMO:
                    warn_user(DEMO_NOTICE)
                in_daemon(_import_meanwhile)
                users = running.users if running else set()
                if running is not None:
                    running.process.stop()
                running = _running[engine] = LlamaCppServer(engine)
                running.users = users
            running.users.add(self)
            self._engine = engine
        return replace(
            self.preview(),
            base_url=f"{running.address}/v1",
            model=engine.name,
            headers={"authorization": f"Bearer {running.key}"},
        )

    def stop(self) -> None:
        """Let go of the engine; the last backend to do so ends it."""
        with _lock:
            engine, self._engine = self._engine, None
            running = _running.get(engine) if engine else None
            if engine is None or running is None:
                return
            running.users.discard(self)
            if not running.users:
                del _running[engine]
                running.process.stop()

    def __repr__(self) -> str:
        return f"LocalBackend({self.model!r})"

    def _resolved(self) -> Engine:
        model, mmproj = self._files()
        name = self.model if isinstance(self.model, str) else model.stem
        return Engine(name, str(model), str(mmproj), self._n_ctx, self._n_gpu_layers)

    def _files(self) -> tuple[Path, Path]:
        """The GGUF pair, downloaded if need be."""
        if not isinstance(self.model, str):
            return self.model
        if self.model == DEMO:
            folder = Path(__file__).parents[1] / "demo"
            return folder / "demo.gguf", folder / "mmproj-demo.gguf"
        from internvl_modal.weights.cache import WeightsCache

        token = self._hf_token.get_secret_value() if self._hf_token else None
        cache = WeightsCache(self._cache_dir, token=token)
        try:
            snapshot = cache.ensure(self.model, variant="gguf")
        # Ctrl-C has its own words, and no file is missing.
        except WeightsInterruptedError:
            raise
        except WeightsError as error:
            command = f"`internvl-modal weights ensure {self.model} --variant gguf`"
            hints = (error.hint, f"{command} fetches them ahead", "model='demo' runs offline")
            raise WeightsError(
                f"{error.message}; {self._missing()}",
                hint="; ".join(filter(None, hints)),
                files=error.files,
                destination=error.destination,
            ) from error
        # A pair: the language model and the projector that holds the ViT.
        mmproj = next(name for name in snapshot.files if Path(name).name.startswith("mmproj"))
        model = next(n for n in snapshot.files if n.endswith(".gguf") and n != mmproj)
        return snapshot.file(model), snapshot.file(mmproj)

    def _missing(self) -> str:
        """Which files are wanted and where they would lie."""
        spec = find_model(str(self.model))
        repo = spec.gguf if spec and spec.gguf else str(self.model)
        stem = repo.rpartition("/")[2].removesuffix("-GGUF").removesuffix("-gguf")
        files = f"{stem}-*.gguf and mmproj-{stem}-*.gguf"
        return f"{files} are missing in {self._cache_dir / repo}"


def _import_meanwhile() -> None:
    """What the first picture needs: an engine takes as long to start as that to be imported."""
    import internvl_modal.images.encode
    import internvl_modal.transport.aio  # noqa: F401


def _checked(
    model: str | tuple[str | os.PathLike[str], str | os.PathLike[str]],
) -> str | tuple[Path, Path]:
    """A known name, or two absolute paths of files that exist; raises ConfigError.

    Absolute, since the engine is found by them and the process may change its folder.
    """
    if isinstance(model, str):
        if model not in (DEMO, *HUB_MODELS):
            raise ConfigError(f"the local backend has no model {model!r}", hint=_instead_of(model))
        return model
    files = (Path(model[0]).absolute(), Path(model[1]).absolute())
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{file} is not a file", hint="give the model and its mmproj")
    return files


def _instead_of(model: str) -> str:
    """What to do about a name that the local backend does not know."""
    here, found = (DEMO, *HUB_MODELS), find_model(model)
    near = [found.name] if found else get_close_matches(model.lower(), (*here, *MODELS), n=1)
    meant = f"did you mean {near[0]!r}? " if near and near[0] != model else ""
    if near and near[0] not in here:
        return (
            f"{meant}it needs GPUs: deploy it and use backend 'modal', "
            "or give the base_url of a server that has it"
        )
    return f"{meant}use {', '.join(here)} or MODEL.gguf,MMPROJ.gguf"
