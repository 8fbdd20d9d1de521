"""What each LMDeploy loads inside an InternVL, as its own source lists it."""

from __future__ import annotations

import re
from pathlib import Path

from internvl_modal.models.support import READERS
from tests.conformance.environment import NEW, OLD
from tests.environments import ensure


def source(version: str, path: str) -> str:
    python = ensure(f"lmdeploy-{version}")
    (found,) = python.parents[1].glob(f"lib/python*/site-packages/lmdeploy/{path}")
    return Path(found).read_text()


def test_the_readers_of_the_version_of_the_image(enabled: None) -> None:
    text = source(OLD, "turbomind/deploy/source_model/internvl.py")
    table = re.search(r"_readers = dict\((.*?)\)", text, flags=re.DOTALL)
    assert table is not None
    assert set(re.findall(r"(\w+)=", table[1])) == set(READERS["lmdeploy-0.7.3"])


def test_the_readers_of_todays(enabled: None) -> None:
    """It lists more, of models that no InternVL is made of; GPT-OSS is not documented there."""
    listed = set(re.findall(r"^    (\w+)='", source(NEW, "turbomind/supported_models.py"), re.M))
    assert set(READERS["lmdeploy"]) < listed
    assert {"InternVLChatModel", "InternVLForConditionalGeneration"} < listed


def test_todays_vit_keeps_its_attention_whole_where_the_heads_do_not_divide(enabled: None) -> None:
    """What a plan counts on every GPU of several."""
    text = source(NEW, "turbomind/models/internvl.py")
    assert "self._heads % self._model_tp.size == 0 else ParallelGroup(1, None)" in text
    assert text.count("SplitSide.OUTPUT)") >= 2  # the projector's and the MLP's first halves
