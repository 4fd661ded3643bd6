"""The paths of the native kernel, as attention functions. Which of them is fast differs between CPUs that have the same instructions."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.inference import refuse_gradient
from hunyuan_video.kernels.native.build import NotBuiltError, opened
from hunyuan_video.models.attention import AttentionFn, sdpa

MAX_HEAD_DIM = 256  # beyond, blocks leave the caches


class Path(NamedTuple):
    """Flags for a compiler, and what comes in and goes out. What multiplies float32 takes bfloat16, too, and rounds only the output."""

    flags: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]


_AVX512_BF16 = ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx512bf16")
PATHS = {
    "avx2": Path(("-mavx2", "-mfma"), (torch.float32, torch.bfloat16)),
    "avx512": Path(("-mavx512f", "-mavx512dq"), (torch.float32, torch.bfloat16)),
    "avx512-bf16": Path(_AVX512_BF16, (torch.bfloat16,)),
    "amx": Path((*_AVX512_BF16, "-mamx-tile", "-mamx-bf16"), (torch.bfloat16,)),
}

Strides = ctypes.c_int64 * 3  # of a batch, a token and a head


class Call(ctypes.Structure):
    """As in flash.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "out")),
        *((name, ctypes.c_int64) for name in ("batch", "queries", "keys", "heads", "dim")),
        *((name, Strides) for name in ("q_stride", "k_stride", "v_stride", "out_stride")),
        ("parallel", ctypes.c_void_p),
        ("threads", ctypes.c_int32),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("seen", "counts")),
        *((name, ctypes.c_int64) for name in ("lists", "most", "query_block", "key_block")),
    )


@cache
def load(name: str) -> AttentionFn:
    """One of `PATHS`, compiled if it has to be.

    Raises:
        NotBuiltError: this CPU does not have its instructions, or it cannot be compiled.
    """
    path = PATHS[name]
    require(name)
    built = opened(name, path.flags)
    return Native(name, {dtype: built[f"attend_{str(dtype).removeprefix('torch.')}"] for dtype in path.dtypes})


@dataclass(frozen=True, eq=False)
class Native:
    """Flash attention in C++, for inference; with a mask it is `sdpa`."""

    name: str
    functions: Mapping[torch.dtype, Callable[..., int]]

    def __call__(
        self,
        q: Float[Tensor, "B L H D"],
        k: Float[Tensor, "B S H D"],
        v: Float[Tensor, "B S H D"],
        mask: Bool[Tensor, "B _ S"] | None,
    ) -> Float[Tensor, "B L H D"]:
        return sdpa(q, k, v, mask) if mask is not None else _attend(self.functions, self.name, q, k, v)

    def of_blocks(
        self, q: Float[Tensor, "1 L H D"], k: Float[Tensor, "1 S H D"], v: Float[Tensor, "1 S H D"], lists: BlockLists
    ) -> Float[Tensor, "1 L H D"]:
        """Each block of queries sees the blocks of keys that `lists` names for it, and no others."""
        lists.check(q.shape[2], q.shape[1], k.shape[1])
        return _attend(self.functions, self.name, q, k, v, lists)


def _attend(
    functions: Mapping[torch.dtype, Callable[..., int]], name: str, q: Tensor, k: Tensor, v: Tensor, lists: BlockLists | None = None
) -> Tensor:
    if q.dtype not in functions or q.shape[-1] > MAX_HEAD_DIM or q.device.type != "cpu":
        can = " or ".join(str(dtype).removeprefix("torch.") for dtype in functions)
        raise ValueError(
            f"native-{name} computes in {can} on a CPU, with heads of up to {MAX_HEAD_DIM} features; this is {q.dtype} on {q.device}, of "
            f"{q.shape[-1]}; use sdpa."
        )
    refuse_gradient(q, k, v)
    if not q.dtype == k.dtype == v.dtype or not q.device == k.device == v.device or k.shape != v.shape or _heads(q) != _heads(k):
        given = ", ".join(f"{name} {list(x.shape)} {x.dtype} on {x.device}" for name, x in zip("qkv", (q, k, v), strict=True))
        raise ValueError(
            f"Attention needs q, k and v of one dtype, on one device, with the same batch, heads and features, and as many values as keys; "
            f"given are {given}."
        )
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    if q.numel() == 0 or k.numel() == 0:
        return sdpa(q, k, v, None)
    out = torch.empty(q.shape, dtype=q.dtype)
    seen = () if lists is None else tuple(x.contiguous() for x in lists[:2])
    call = Call(
        *(x.data_ptr() for x in (q, k, v, out)),
        *(q.shape[0], q.shape[1], k.shape[1], q.shape[2], q.shape[3]),
        *(Strides(*x.stride()[:3]) for x in (q, k, v, out)),
        *threads(),
        q.shape[-1] ** -0.5,
        *(x.data_ptr() for x in seen),
        *(() if lists is None else (len(lists.counts), lists.indices.shape[2], lists.query_block, lists.key_block)),
    )
    if functions[q.dtype](ctypes.byref(call)) != 0:
        raise MemoryError("There is not enough memory for the keys and values of an attention head, packed.")
    return out


def _heads(x: Tensor) -> tuple[int, ...]:
    batch, _, *heads = x.shape
    return batch, *heads


@cache
def require(name: str) -> None:
    """Raises a NotBuiltError if this CPU does not have a path's instructions."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise NotBuiltError(f"the native kernels are written for x86-64, and this CPU is {platform.machine()}.")
    if opened("cpu").has(name.encode()) != 1:
        raise NotBuiltError(f"this CPU does not have the instructions of native-{name}.")


def threads() -> tuple[int | None, int]:
    """What a call needs to know to start PyTorch's threads, and how many."""
    parallel = _parallel()
    return parallel, 1 if parallel is None else torch.get_num_threads()


@cache
def _parallel() -> int | None:
    """The address of the OpenMP function by which PyTorch itself starts threads: with a second set of threads, the first one's, which go on
    spinning for a while, would be in the way. None where PyTorch has another OpenMP or none."""
    try:
        return ctypes.cast(ctypes.CDLL(torch._C.__file__).GOMP_parallel, ctypes.c_void_p).value
    except AttributeError:
        return None
