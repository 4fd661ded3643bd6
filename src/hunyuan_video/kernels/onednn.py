"""Products of layers and some hundred tokens by oneDNN, with GELU in the same pass, on a CPU.

PyTorch multiplies bfloat16 by oneDNN anyway, and reads and writes the result once more for GELU; float32 it leaves to a library that on
some makes of CPU is half as fast. Which is faster is measured, with a layer's own sizes, once on a machine.
"""

from __future__ import annotations

import logging
import time
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.kernels import kept, pieces
from hunyuan_video.kernels.pieces import Apply, Dense, Pieces

log = logging.getLogger(__name__)

ROUNDS = 7
TIE = 0.95  # of PyTorch's time: what must be beaten by more than the noise of a machine


def linear(layer: Apply, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S M"]:
    """As `pieces.linear`; weights that are more than a matrix multiply themselves."""
    if not isinstance(layer, Dense):
        return pieces.linear(layer, x)
    return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "none", [], "")


def linear_gelu(layer: Apply, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S M"]:
    """As `pieces.linear_gelu`."""
    if not isinstance(layer, Dense):
        return pieces.linear_gelu(layer, x)
    return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "gelu", [], "tanh")


def faster_pieces(hidden_size: int, mlp_dim: int, tokens: int, dtype: torch.dtype) -> Pieces:
    """Those that take so many tokens through an MLP faster, PyTorch's or these."""
    if not torch.backends.mkldnn.is_available():
        return Pieces()
    seconds = _seconds(hidden_size, mlp_dim, tokens, dtype, torch.get_num_threads())
    return Pieces(linear=linear, linear_gelu=linear_gelu) if seconds["oneDNN"] < TIE * seconds["PyTorch"] else Pieces()


@cache
def _seconds(hidden_size: int, mlp_dim: int, tokens: int, dtype: torch.dtype, threads: int) -> dict[str, float]:
    question: kept.Question = {
        **{"machine": kept.machine(torch.device("cpu")), "torch": torch.__version__, "threads": threads, "dtype": str(dtype)},
        **{"mlp": f"{hidden_size} x {mlp_dim}", "tokens": tokens},
    }
    seconds = kept.recall(question)
    if seconds is None:
        seconds = _measured(hidden_size, mlp_dim, tokens, dtype)
        kept.keep(question, seconds)
    times = ", ".join(f"{name} {1000 * time:.2f} ms" for name, time in seconds.items())
    log.info("An MLP of %d tokens in %s: %s.", tokens, str(dtype).removeprefix("torch."), times)
    return seconds


@torch.no_grad()
def _measured(hidden_size: int, mlp_dim: int, tokens: int, dtype: torch.dtype) -> dict[str, float]:
    """The least seconds of each, which take turns: whatever disturbs a machine only adds to them."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, tokens, hidden_size, generator=draw).to(dtype)
    fc1, fc2 = (Dense(torch.randn(shape, generator=draw).to(dtype), None) for shape in ((mlp_dim, hidden_size), (hidden_size, mlp_dim)))
    ways = {"PyTorch": Pieces(), "oneDNN": Pieces(linear=linear, linear_gelu=linear_gelu)}
    taken = dict.fromkeys(ways, float("inf"))
    for number in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way.linear(fc2, way.linear_gelu(fc1, x))
            if number > 0:  # before, memory is taken
                taken[name] = min(taken[name], time.perf_counter() - start)
    return taken
