"""RMSNorm and rotation of queries and keys in one pass, in C++: PyTorch reads and writes them some ten times."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.kernels import pieces
from hunyuan_video.kernels.inference import refuse_gradient
from hunyuan_video.kernels.native import paths
from hunyuan_video.kernels.native.build import opened
from hunyuan_video.kernels.pieces import Pieces
from hunyuan_video.models.rope import Rope

FLAGS = (*paths.PATHS["avx2"].flags, "-fopenmp-simd")  # wider vectors gain nothing where numbers come from memory
DTYPES = (torch.float32, torch.bfloat16)


class Norms(ctypes.Structure):
    """As in norm_rope.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "cos", "sin", "out")),
        *((name, ctypes.c_int64) for name in ("batch", "tokens", "heads", "dim")),
        *((name, paths.Strides) for name in ("x_stride", "out_stride")),
        ("parallel", ctypes.c_void_p),
        ("threads", ctypes.c_int32),
    )


@cache
def load() -> Pieces:
    """Compiled, if it has to be.

    Raises:
        NotBuiltError: this CPU does not have the instructions, or it cannot be compiled.
    """
    paths.require("avx2")
    built = opened("norm_rope", FLAGS)
    functions = {dtype: built[f"norm_rope_{str(dtype).removeprefix('torch.')}"] for dtype in DTYPES}

    def norm_rope(x: Float[Tensor, "B S H K"], weight: Float[Tensor, " K"], rope: Rope | None, out: Float[Tensor, "B S H K"]) -> None:
        """As `pieces.norm_rope`."""
        refuse_gradient(x, weight)
        if x.dtype not in functions or not _fits(x, weight, rope, out):
            return pieces.norm_rope(x, weight, rope, out)
        x, weight = x if x.stride(-1) == 1 else x.contiguous(), weight.contiguous()
        turns = () if rope is None else (rope.cos.contiguous(), rope.sin.contiguous())
        parallel, threads = paths.threads()
        call = Norms(
            *(x.data_ptr(), weight.data_ptr()),
            *([each.data_ptr() for each in turns] or [None, None]),
            out.data_ptr(),
            *x.shape,
            *(paths.Strides(*each.stride()[:3]) for each in (x, out)),
            *(parallel, threads),
        )
        functions[x.dtype](ctypes.byref(call))

    return Pieces(norm_rope=norm_rope)


def _fits(x: Tensor, weight: Tensor, rope: Rope | None, out: Tensor) -> bool:
    """Whether memory may be read and written as the shapes say: what does not fit PyTorch computes, or refuses."""
    _, tokens, _, dim = x.shape
    tables = () if rope is None else rope
    return (
        all(each.is_cpu for each in (x, weight, out, *tables))
        and weight.dtype == out.dtype == x.dtype
        and all(each.dtype == torch.float32 and each.shape == (tokens, 1, dim // 2) for each in tables)
        and out.shape == x.shape
        and out.stride(3) == 1
        and weight.shape == (dim,)
        and dim % 2 == 0
        and dim <= paths.MAX_HEAD_DIM
    )
