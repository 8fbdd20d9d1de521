"""Child processes that end with their parent and whose last words can be read."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from internvl_modal.errors import InternVLError

__all__ = ["ChildProcess"]
