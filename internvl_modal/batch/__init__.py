"""Many pictures: every one gets an outcome, and a run that was cut off goes on where it was."""

from internvl_modal.batch.options import BatchOptions, BatchSettings, Job
from internvl_modal.batch.outcome import Outcome
from internvl_modal.batch.progress import Progress
from internvl_modal.batch.sources import Images

__all__ = ["BatchOptions", "BatchSettings", "Images", "Job", "Outcome", "Progress"]
