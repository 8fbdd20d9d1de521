"""Model files, complete and verified, in a folder or a Modal Volume."""

from internvl_modal.weights.cache import CachedModel, Snapshot, Verification, WeightsCache
from internvl_modal.weights.progress import Progress

__all__ = ["CachedModel", "Progress", "Snapshot", "Verification", "WeightsCache"]
