"""Which pieces of a block are the fastest where it works: PyTorch's, or those that do more in one pass. Measured once on a machine."""

from __future__ import annotations

import logging
import math
import time
from functools import cache

import torch
from torch import Tensor

from hunyuan_video.kernels import kept, onednn, triton
from hunyuan_video.kernels.pieces import Dense, Pieces
from hunyuan_video.models.rope import Rope

log = logging.getLogger(__name__)

ROUNDS = 7  # of which the first one only warms up
TIE = 0.95  # of PyTorch's time: what must be beaten by more than the noise of a machine
AGREE = 0.03  # pieces whose result is farther from PyTorch's, as a share of its norm, are broken here


def candidates(device: torch.device) -> dict[str, Pieces]:
    """By name, PyTorch's own first."""
    found = {"PyTorch": Pieces()}
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        found["oneDNN"] = onednn.PIECES
    if triton.works(device):
        from hunyuan_video.kernels.triton.pieces import FUSED  # which needs Triton

        found["Triton"] = FUSED
    return found


def fastest_pieces(hidden_size: int, heads: int, mlp_dim: int, tokens: int, dtype: torch.dtype, device: torch.device) -> Pieces:
    """Those that take so many tokens at a time through a block's layers the fastest."""
    ways = candidates(device)
    if len(ways) == 1:
        return ways["PyTorch"]
    seconds = _seconds(hidden_size, heads, mlp_dim, tokens, dtype, device, torch.get_num_threads())
    best = min(seconds, key=lambda name: seconds[name])
    return ways[best if seconds[best] < TIE * seconds["PyTorch"] else "PyTorch"]


@cache
def _seconds(
    hidden_size: int, heads: int, mlp_dim: int, tokens: int, dtype: torch.dtype, device: torch.device, threads: int
) -> dict[str, float]:
    question: kept.Question = {
        **{"machine": kept.machine(device), "torch": torch.__version__, "threads": threads, "dtype": str(dtype)},
        **{"pieces": [*candidates(device)], "block": f"{hidden_size} in {heads} x {mlp_dim}", "tokens": tokens},
    }
    seconds = kept.recall(question)
    if seconds is None or "PyTorch" not in seconds or not seconds.keys() <= candidates(device).keys():
        seconds = _measured(Layers(hidden_size, heads, mlp_dim, tokens, dtype, device))
        kept.keep(question, seconds)
    times = ", ".join(f"{name} {1000 * time:.2f} ms" for name, time in seconds.items())
    log.info("The pieces of a block, %d tokens in %s: %s.", tokens, str(dtype).removeprefix("torch."), times)
    return seconds


class Layers:
    """A block's layers with random weights, and tokens."""

    def __init__(self, hidden_size: int, heads: int, mlp_dim: int, tokens: int, dtype: torch.dtype, device: torch.device):
        draw = torch.Generator(device).manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw, device=device).to(dtype)

        dim = hidden_size // heads
        self.x, self.shift, self.scale, self.gate = normal(1, tokens, hidden_size), *normal(3, 1, 1, hidden_size)
        self.qk, self.weight = normal(1, tokens, heads, dim), normal(dim)
        self.rope = Rope(*torch.randn(2, tokens, 1, dim // 2, generator=draw, device=device))
        self.fc1 = Dense(normal(mlp_dim, hidden_size) / hidden_size**0.5, None)
        self.fc2 = Dense(normal(hidden_size, mlp_dim) / mlp_dim**0.5, None)

    @torch.no_grad()
    def run(self, way: Pieces) -> Tensor:
        """One layer's work; what comes out holds what every piece made."""
        x = self.x.clone()
        way.add_gated(x, self.gate, way.linear(self.fc2, way.linear_gelu(self.fc1, way.modulate(x, self.shift, self.scale))))
        turned = [way.norm_rope(self.qk, self.weight, self.rope) for _ in range(2)]
        return torch.cat([x, *(each.flatten(2) for each in turned)], dim=-1)


def _measured(layers: Layers) -> dict[str, float]:
    """The least seconds of all that work, which take turns: whatever disturbs a machine only adds to them."""
    device, expected = layers.x.device, layers.run(Pieces()).float()
    ways = {"PyTorch": Pieces()} | {
        name: way for name, way in candidates(device).items() if name != "PyTorch" and _works(name, way, layers, expected)
    }
    taken = dict.fromkeys(ways, math.inf)
    for number in range(ROUNDS):
        for name, way in ways.items():
            start = _now(device)
            layers.run(way)
            if number > 0:
                taken[name] = min(taken[name], _now(device) - start)
    return taken


def _works(name: str, way: Pieces, layers: Layers, expected: Tensor) -> bool:
    try:
        apart = ((layers.run(way).float() - expected).norm() / expected.norm()).item()
    except Exception as error:  # other people's compilers: what they raise on a GPU that they do not know is their own
        log.info("Without the pieces of %s, which fail here: %s: %s", name, type(error).__name__, error)
        return False
    if apart > AGREE:
        log.info("Without the pieces of %s, which compute something else than PyTorch's here.", name)
    return apart <= AGREE


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
