"""How much memory there is, and how much a piece of work takes."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is PyTorch's DTensor, of which this process has a part; told without its module, whose import takes a second."""
    return hasattr(tensor, "device_mesh")


def available_memory(device: torch.device) -> int:
    """Bytes that could be taken now: of the GPU, or else this process's share of the machine (see `machine_memory`)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # else what an earlier training gave back to PyTorch would count as taken
        return torch.cuda.mem_get_info(device)[0]
    return machine_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def most_taken() -> int | None:
    """The most bytes that this process has taken so far: of its GPU if it uses one, else of the machine; None where the system does not
    say."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else most_resident()


def most_resident() -> int | None:
    """The most of the machine's memory that this process has held, in bytes; None where the system does not say."""
    if STATUS.exists():  # what Linux gives `resource` begins with the memory of whoever started the process
        return 1024 * int(STATUS.read_text(encoding="ascii", errors="replace").partition("VmHWM:")[2].split()[0])
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


MEMINFO, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
STATUS = Path("/proc/self/status")


def machine_memory() -> int:
    """Free bytes of this machine and the control group it is in. What the system keeps of files counts as free."""
    if not MEMINFO.exists():
        if not hasattr(os, "sysconf"):
            return sys.maxsize  # nobody to ask, so nothing to refuse
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":") for line in MEMINFO.read_text(encoding="ascii").splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit = (GROUP / "memory.max").read_text(encoding="ascii").strip() if (GROUP / "memory.max").exists() else "max"
    if limit == "max":
        return free
    of_group = dict(line.split() for line in (GROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    of_files = int(of_group["inactive_file"]) + int(of_group["active_file"])
    return min(free, int(limit) - int((GROUP / "memory.current").read_text(encoding="ascii")) + of_files)


def let_go(tensor: Tensor) -> None:
    """Free what a tensor holds that callers still have by name, and will not read. It keeps its shape."""
    for each in (tensor, tensor._base):  # a view keeps what it is a view of
        if each is not None:
            each.data = each.new_zeros(()).expand(each.shape)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made inside the block and not yet freed, on any device, and notes the fullest moment.

    Gradients that have been accumulated count apart, too, for where they are sharded they never are there together.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.live = self.most = self.most_activations = 0
        self.gradients = 0  # at the fullest moment
        self._gradients = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._accumulated)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and (storage := leaf.untyped_storage())._cdata not in self._known:
                self._known.add(storage._cdata)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
                self._grown(storage.nbytes())
        return result

    def _grown(self, size: int) -> None:
        self.live += size
        self.most_activations = max(self.most_activations, self.live - self._gradients)
        if self.live > self.most:
            self.most, self.gradients = self.live, self._gradients

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def _accumulated(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._gradients += parameter.grad.nbytes
