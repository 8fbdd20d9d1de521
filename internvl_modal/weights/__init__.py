"""Model files, complete and verified, in a folder or a Modal Volume.

``cache`` is the door; ``hub`` and ``download`` fetch, ``install`` puts a model in its place,
``layout`` says where that is. Imports ``models``, ``transport.retry`` and what lies below them.
"""

from internvl_modal.weights.cache import WeightsCache
from internvl_modal.weights.inventory import CachedModel, Snapshot
from internvl_modal.weights.progress import DownloadProgress
from internvl_modal.weights.verification import Verification

__all__ = ["CachedModel", "DownloadProgress", "Snapshot", "Verification", "WeightsCache"]
