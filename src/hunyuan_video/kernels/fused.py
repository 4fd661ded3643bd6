"""Which pieces of a block are the fastest where it works: PyTorch's, or those that do more in one pass. Measured once on a machine."""

from __future__ import annotations

import hashlib
import inspect
from importlib.metadata import version

import torch
from torch import Tensor

from hunyuan_video.kernels import kept, measured, onednn, pieces, triton
from hunyuan_video.kernels.pieces import Dense, Pieces
from hunyuan_video.models.rope import Rope

CPU_TOKENS = 256  # with more, a large model's block would take seconds a round


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
    tokens = min(tokens, CPU_TOKENS) if device.type == "cpu" else tokens
    question: kept.Question = {"dtype": str(dtype), "block": f"{hidden_size} in {heads} x {mlp_dim}", "tokens": tokens}

    def trial() -> measured.Trial:
        layers = Layers(hidden_size, heads, mlp_dim, tokens, dtype, device)
        return measured.Trial(layers.run, layers.run(ways["PyTorch"]))

    name = measured.fastest("pieces", question, {name: _version(name) for name in ways}, ways.get, trial, device)
    return ways[name or "PyTorch"]


def _version(name: str) -> str:
    """Of what PyTorch's own version does not tell."""
    if name == "Triton":
        from hunyuan_video.kernels.triton import pieces as of_triton  # which needs Triton

        return f"{version('triton')} {_digest(inspect.getsource(of_triton))}"
    return _digest(inspect.getsource(onednn if name == "oneDNN" else pieces))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


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
