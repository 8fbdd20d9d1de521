"""What the name of an InternVL tells: its system message, and how it counts pictures.

A server tells the name of its model and nothing else about it. Whether the right system message is
sent decides quality: on one task InternVL3-14B was right in 95% of the cases with InternVL's own
message and in 75% with the one that the tokenizer's template puts there, which says Qwen
(vllm#23988). And the number of prompt tokens that a tile must cost is how the client proves that
its picture was seen. Both are properties of a family, so they are read off the name once, here.

>>> family_of("OpenGVLab/InternVL3_5-8B-Flash").fewest_tokens
64
>>> family_of("gpt-4o") is None
True
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["SYSTEM_MESSAGE", "Family", "family_of", "system_message"]

SYSTEM_MESSAGE = (
    "你是书生·万象，英文名是InternVL，"  # noqa: RUF001 - their punctuation
    "是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
"""Of InternVL 2.5, 3 and 3.5.

``InternVL2_5.meta_instruction`` in LMDeploy 0.7.3 (``lmdeploy/model.py``), and the template
``internvl2_5`` of ``internvl_chat_gpt_oss/internvl/conversation.py`` in OpenGVLab/InternVL, which
3.5 was trained with.
"""

_NAME = re.compile(r"intern[-_ ]?vl(?:[-_ ]?(?P<major>\d)(?:[._-]?(?P<minor>5)(?![\db]))?)?", re.I)
"""``InternVL2_5``, ``internvl-3.5``, ``intern_vl 3``: served names follow no rule. A 5 that is
followed by a digit or a "b" is a size ("InternVL3-5B"), not half of a version.
"""
_SIGNED = {("2", "5"): True, ("3", None): True, ("3", "5"): False}
"""Generations of the catalogue, and whether their chat templates write the message themselves."""

_UNSIGNED = frozenset({"demo"})
"""Models trained without any system message: the bundled one gets 27 of 80 scenes with one."""


@dataclass(frozen=True)
class Family:
    """The family of a served model, as far as its name says it.

    What the name does not say is left at the careful choice: an unknown generation gets no system
    message, as a wrong one costs more than none.
    """

    system: str = ""
    """InternVL's own system message; empty where none is known for the generation."""
    signs: bool = True
    """Whether the repository's chat template writes a system message where a request has none."""
    converted: bool = False
    """An ``-HF`` repository, of transformers' own architecture: its limit of tiles is fixed.

    A limit of tiles that is sent to such a model is ignored by its processor.
    """
    flash: bool = False
    """Pictures of little detail are compressed, to a quarter of the tokens at best."""
    tokens_per_tile: int = 256

    @property
    def fewest_tokens(self) -> int:
        """Prompt tokens that a tile costs at the very least."""
        return self.tokens_per_tile // 4 if self.flash else self.tokens_per_tile

    @property
    def plain(self) -> bool:
        """Whether it is an InternVLChatModel whose every tile costs the same.

        Only then does a number of prompt tokens prove how many tiles the server has cut.
        """
        return not (self.converted or self.flash)


def family_of(*names: str) -> Family | None:
    """The family that the first telling one of a model's names belongs to; None if none tells.

    A path's last part is tried first, then the whole name: folders of the Hub's cache end in a
    hash, and the family stands in an earlier part of the path.
    """
    for name in names:
        last = name.rstrip("/").rpartition("/")[2].lower()
        found = _NAME.search(last) or _NAME.search(name)
        if found is None:
            continue
        signs = _SIGNED.get((found["major"], found["minor"]))
        # The GPT-OSS models of 3.5 have the template of their language model, which writes the
        # system block itself and takes a request's system message for the developer's. InternVL's
        # own block for them (``internvl3_5_gpt_oss`` in its conversation.py) cannot be asked for.
        known = signs is not None and "gpt-oss" not in last
        converted = re.search(r"-hf\b", last) is not None
        return Family(
            system=SYSTEM_MESSAGE if known else "",
            signs=signs is not False and not converted,
            converted=converted,
            flash="flash" in last,
        )
    return None


def system_message(family: Family | None, model: str, given: str | None) -> str | None:
    """The system message to send, None for none.

    ``given`` is the caller's: None asks for InternVL's own, and "" for an empty one, which is
    left out where no template would put another in its place.

    An empty message is not the same as none: a template that finds none inserts its own ("You are
    Qwen, created by Alibaba Cloud"), and an empty one keeps it quiet. Where a template inserts
    nothing, an empty message would only add tokens that the model was not trained with.
    """
    if given:
        return given
    quiet = model in _UNSIGNED or (family is not None and not family.signs)
    if given is None:
        return (family.system or None) if family is not None else None
    return None if quiet else ""
