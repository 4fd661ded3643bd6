"""What errors mean that other libraries raise, none of which is imported here."""

from __future__ import annotations

import errno
import re

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk, of a user's share, of a file


def is_out_of_memory(error: BaseException) -> bool:
    """PyTorch's, on a GPU or a CPU, or Python's."""
    on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return on_cpu or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def is_full(error: BaseException | None) -> bool:
    """Whether a disk was full, also where that was said in other words."""
    while error is not None:
        said = re.search(r"\(os error (\d+)\)", str(error))  # safetensors' way
        if getattr(error, "errno", None) in FULL or (said is not None and int(said[1]) in FULL):
            return True
        error = error.__cause__
    return False
