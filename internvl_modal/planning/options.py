"""What can be fixed of a plan: the keyword options that ``plan`` and ``deploy`` share.

Apart from ``plan`` so that ``deployment.options`` can extend the same TypedDict: twelve names that
were once typed in four places and drifted apart.
"""

from __future__ import annotations

from typing_extensions import TypedDict

from internvl_modal.models.support import EngineName


class PlanOptions(TypedDict, total=False):
    """Options of ``plan()`` and of ``deploy()``; defaults and checks are those of ``Request``.

    None leaves a choice to the planner.
    """

    engine: EngineName | None
    """Engine: lmdeploy-0.7.3, lmdeploy (0.18) or vllm."""
    images_per_request: int
    """Pictures in one request."""
    max_tiles: int
    """Most tiles of a picture; the thumbnail comes on top."""
    prompt_tokens: int
    """Tokens of a prompt."""
    output_tokens: int
    """Tokens of an answer."""
    session_len: int | None
    """Tokens of one session."""
    max_batch_size: int | None
    """Requests at once."""
    cache_max_entry_count: float | None
    """Share of the GPU memory left by the weights that becomes the KV cache."""
    quant_policy: int
    """Bits of the KV cache: 0 (16), 8 or 4."""
    vision_max_batch_size: int
    """Pictures in one pass of the ViT."""
    scaledown_window: int | None
    """Idle seconds until a container stops; as long as a start takes by default."""
    cpu: float
    """CPU cores."""
    memory_gib: float
    """GiB of host memory."""
