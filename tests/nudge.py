"""`pytest --nudge up` (or `down`): the tests as on a machine whose exponentials, sines and the like have other last bits.

Nearly every machine has some: the libraries promise such a function to within a unit in the last place, not which of the two neighbours
comes out. Here each is computed in float64, rounded, and then moved to the next float32 above or below. Sums, products, roots and what is
exact (exp(0), cos(0)) are the same everywhere, and stay.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only

VARIABLE = "HUNYUAN_VIDEO_NUDGE"
FUNCTIONS = {"exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "tanh", "erf", "pow", "__rpow__", "sigmoid"}
FUSED = {"gelu", "silu", "softplus", "logsigmoid", "softmax", "log_softmax", "cross_entropy", "scaled_dot_product_attention"}
TINY = torch.finfo(torch.float32).tiny  # what is smaller counts as zero
IN_NUMPY = ("exp", "log", "sin", "cos", "tanh", "hypot")


class OtherLastBits(TorchFunctionMode):
    def __init__(self, towards: float):
        super().__init__()
        self.towards = towards

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "").removesuffix("_")
        if name not in FUNCTIONS | FUSED or (name == "pow" and not isinstance(args[1], Tensor)):  # squares and roots are exact
            return func(*args, **kwargs)
        with torch.no_grad(), _disable_current_modes():  # else what counts memory would count this, too
            wide_args, wide_kwargs = tree_map_only(Tensor, _wide, (args, kwargs))
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out.device.type == "cpu" and out.dtype == torch.float32 and type(out.data) is Tensor:
            with torch.no_grad(), _disable_current_modes():
                wide = func(*wide_args, **wide_kwargs)
                rounded = wide.float()
                moved = rounded.nextafter(torch.tensor(self.towards))
                exact = (wide == wide.round()) & (wide.abs() <= 1) | (wide.abs() < TINY) | ~wide.isfinite()
                # In place, beneath autograd, whose backward pass then sees what the forward pass gave.
                out.data.copy_(torch.where(exact, rounded, moved))
        return out


def _wide(x: Tensor) -> Tensor:
    return x.detach().double() if x.dtype == torch.float32 and x.device.type == "cpu" else x.detach()


@contextmanager
def nudged(towards: float) -> Iterator[None]:
    """Within it, functions of torch and numpy have other last bits, towards plus or minus infinity."""
    with pytest.MonkeyPatch.context() as patch, OtherLastBits(towards):
        for name in IN_NUMPY:
            plain = getattr(np, name)
            patch.setattr(np, name, lambda *args, plain=plain, **kwargs: np.nextafter(plain(*args, **kwargs), towards))
        yield


def as_told() -> AbstractContextManager[None]:
    """As `--nudge` says; in the environment, so that ranks compute as the process does that they are compared with."""
    option = os.environ.get(VARIABLE)
    return nudged({"up": math.inf, "down": -math.inf}[option]) if option else nullcontext()
