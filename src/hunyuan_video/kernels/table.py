"""Every attention kernel that there is a name for: how it is loaded, and where it can work. A new one is a line in `KERNELS`, and its name
in `Runtime.attention`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch

from hunyuan_video.kernels import gpu
from hunyuan_video.kernels.native import build, paths
from hunyuan_video.kernels.triton import by_name
from hunyuan_video.models.attention import KINDS, AttentionFn

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Kernel:
    """An attention kernel that may be asked for."""

    load: Callable[[], AttentionFn]
    """raises an ImportError or a RuntimeError that says what is missing"""
    made_for: str = "any device"
    """and for what else, as a part of a sentence"""
    device: Literal["cpu", "cuda"] | None = None
    """None: any"""
    dtypes: tuple[torch.dtype, ...] | None = None
    """None: any"""
    max_head_dim: int | None = None
    capability: tuple[int, int] | None = None
    """the least compute capability of a GPU; None: not known, or any"""
    trains: bool = False
    is_candidate: bool = True
    """for being the fastest; what rounds more than its dtype does, or is never faster, is for those who ask for it"""
    version: Callable[[], str] = str
    """of what `load` loads: its time is another one's after an update"""


def _native(name: str) -> Kernel:
    return Kernel(
        partial(paths.load, name),
        "is written for CPUs and for inference",
        "cpu",
        paths.PATHS[name].dtypes,
        paths.MAX_HEAD_DIM,
        version=lambda: f"{build.digest()} by {build.compiler()}",
    )


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _package(load: Callable[[], AttentionFn], package: str, max_head_dim: int, *, is_candidate: bool = True) -> Kernel:
    made_for = "is written for NVIDIA's GPUs and for inference"
    return Kernel(load, made_for, "cuda", HALVES, max_head_dim, is_candidate=is_candidate, version=partial(_installed, package))


def _in_8_bits(name: by_name.Numbers) -> Kernel:
    made_for = "is written for NVIDIA's GPUs and for inference"
    return Kernel(partial(by_name.load, name), made_for, "cuda", max_head_dim=128, capability=by_name.LEAST[name], is_candidate=False)


_FLASH = partial(gpu.of_package, name="flash_attn_func", causal=False)
_OF_PYTORCH = partial(Kernel, made_for="is a kernel for NVIDIA's GPUs", device="cuda", dtypes=HALVES)

KERNELS: dict[str, Kernel] = {
    "sdpa": Kernel(lambda: KINDS["sdpa"], trains=True),  # the first one wins a tie
    "matmul": Kernel(lambda: KINDS["matmul"], trains=True, is_candidate=False),  # of all scores, which no memory holds
    "chunked": Kernel(lambda: KINDS["chunked"], "is written for a CPU's caches and for inference", "cpu"),
    **{f"native-{name}": _native(name) for name in paths.PATHS},
    "cudnn": _OF_PYTORCH(partial(gpu.of_pytorch, "CUDNN_ATTENTION"), max_head_dim=128),
    "flash": _OF_PYTORCH(partial(gpu.of_pytorch, "FLASH_ATTENTION"), max_head_dim=256),
    "flash-attn-2": _package(partial(_FLASH, "flash_attn", install="pip install flash-attn"), "flash-attn", 256),
    "flash-attn-3": _package(
        partial(_FLASH, "flash_attn_interface", install="build it from the folder hopper of flash-attention"), "flash-attn-3", 256
    ),
    "flash-attn-4": _package(partial(_FLASH, "flash_attn.cute", install="pip install flash-attn-4"), "flash-attn-4", 128),
    **{name: _in_8_bits(name) for name in by_name.BY_NAME},
    "sage": _package(
        partial(gpu.of_package, "sageattention", "sageattn", "build SageAttention 2", tensor_layout="NHD"),
        "sageattention",
        128,
        is_candidate=False,  # it computes in 8 bits
    ),
}


_loaded: dict[str, AttentionFn] = {}


def load(name: str) -> AttentionFn:
    """The kernel of that name; always the same function. Raises as `Kernel.load`."""
    if name not in _loaded:
        _loaded[name] = KERNELS[name].load()
    return _loaded[name]


def loaded() -> set[AttentionFn]:
    """Those that have been loaded so far."""
    return set(_loaded.values())


def why_not(name: str, device: torch.device, dtype: torch.dtype | None, head_dim: int | None, *, training: bool) -> str | None:
    """Why a kernel cannot work somewhere even if it is installed, as the end of a sentence; None: it can. What is None is not known."""
    kernel = KERNELS[name]
    if training and not kernel.trains:
        return f"which {kernel.made_for}, but trainings need its gradient"
    if kernel.device not in (None, device.type):
        return f"which {kernel.made_for}, but the device is {device}"
    if (
        kernel.capability is not None
        and torch.cuda.is_available()
        and (has := torch.cuda.get_device_capability(device)) < kernel.capability
    ):
        least, this = (".".join(map(str, capability)) for capability in (kernel.capability, has))
        return f"which needs a GPU of compute capability {least} or more, but {device} has {this}"
    if dtype is not None and kernel.dtypes is not None and dtype not in kernel.dtypes:
        can = " or ".join(str(each).removeprefix("torch.") for each in kernel.dtypes)
        return f"which computes in {can}, but the transformer does in {str(dtype).removeprefix('torch.')} (--dtype)"
    if head_dim is not None and kernel.max_head_dim is not None and head_dim > kernel.max_head_dim:
        return f"which takes heads of up to {kernel.max_head_dim} features, but the transformer's have {head_dim}"
    return None
