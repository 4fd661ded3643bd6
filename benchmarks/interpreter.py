"""Triton's kernels on a CPU: set TRITON_INTERPRET=1 before anything imports Triton, and call `repair`.

TRITON_INTERPRET=1 python -c "import interpreter; interpreter.repair(); ..."
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

ROUNDED = {tl.float8e4nv: (torch.float8_e4m3fn, np.uint8), tl.bfloat16: (torch.bfloat16, np.uint16)}


def repair() -> None:
    """Round to bfloat16 and to 8 bits as a GPU does, to the nearest number and no further than the largest, and multiply in bfloat16.

    Triton's interpreter (3.9) loses what is carried into the exponent, so that 1.97 becomes 1 in 8 bits, and cuts off small numbers; and it
    multiplies the bits of bfloat16 as if they were integers. PyTorch's conversions stand in.
    """
    if interpreter._convert_float.__module__ == __name__:
        return
    theirs, their_dot = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot

    def convert(data: Any, given: Any, wanted: Any, rounding: Any) -> Any:
        if given != tl.float32 or wanted not in ROUNDED:
            return theirs(data, given, wanted, rounding)
        dtype, integer = ROUNDED[wanted]
        numbers = torch.from_numpy(np.ascontiguousarray(data).view(np.float32).copy())
        if wanted == tl.float8e4nv:
            numbers = numbers.clamp(-448.0, 448.0)
        return numbers.to(dtype).view(getattr(torch, np.dtype(integer).name)).numpy().reshape(data.shape)

    def dot(builder: Any, a: Any, b: Any, *more: Any) -> Any:
        a, b = (builder.cast_impl(x, tl.float32) if x.dtype == tl.bfloat16 else x for x in (a, b))
        return their_dot(builder, a, b, *more)

    interpreter._convert_float = convert
    interpreter.InterpreterBuilder.create_dot = dot  # pyright: ignore[reportAttributeAccessIssue]
