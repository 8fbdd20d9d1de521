"""What vLLM loads inside an InternVL, and how it shares out the ViT, as its own source has it."""

from __future__ import annotations

import re
from pathlib import Path

from internvl_modal.models.support import READERS
from internvl_modal.planning.vllm import MAX_SHARE
from tests.environments import ensure


def source(path: str) -> str:
    python = ensure("vllm")
    (found,) = python.parents[1].glob(f"lib/python*/site-packages/vllm/{path}")
    return Path(found).read_text()


def test_the_models_that_it_lists(enabled: None) -> None:
    listed = set(re.findall(r'^    "(\w+)": \(', source("model_executor/models/registry.py"), re.M))
    assert set(READERS["vllm"]) < listed
    assert {"InternVLChatModel", "InternVLForConditionalGeneration"} < listed


def test_what_a_plan_counts_on(enabled: None) -> None:
    """Its share of the memory, and a ViT whose attention is whole where the heads do not divide."""
    share = re.search(
        r"gpu_memory_utilization: float = Field\(default=([\d.]+)", source("config/cache.py")
    )
    assert share is not None
    assert float(share[1]) == MAX_SHARE
    vit = source("model_executor/models/intern_vit.py")
    assert "(self.num_heads + num_dummy_heads) % tp_size != 0" in vit
    assert "disable_tp=use_data_parallel" in vit
    projector = source("model_executor/models/internvl.py")
    assert re.search(r"def _init_mlp1.*?nn\.Linear\(", projector, flags=re.DOTALL)
