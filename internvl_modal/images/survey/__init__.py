"""What a file's own structure says, before any decoder sees it: pure functions over bytes.

A survey walks markers, chunks or blocks once. It bounds what a decoder would do (scans, text,
pages, blocks), counts frames, and knows where the file ends, so that one that is cut is told
without decoding it.
"""

from internvl_modal.images.survey.result import Survey, UnfitError

__all__ = ["Survey", "UnfitError"]
