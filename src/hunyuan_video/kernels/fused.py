"""Which pieces of a block are the fastest where it works: PyTorch's, or those that do more in one pass. Measured once on a machine: the
linear layers, and what goes over the tokens point by point beside them, such as norms and gates."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import cast

import torch
from torch import Tensor

from hunyuan_video.config import BlockOps
from hunyuan_video.kernels import kept, measured, onednn, pieces, triton
from hunyuan_video.kernels.native import build, norm_rope
from hunyuan_video.kernels.pieces import Dense, Pieces
from hunyuan_video.models.rope import Rope

CPU_TOKENS = 256  # with more, a large model's block would take seconds a round
Ways = Mapping[str, Callable[[], Pieces]]  # by name, PyTorch's own first; raises a RuntimeError or an ImportError where it is missing
PYTORCH: BlockOps = "pytorch"


def linears(device: torch.device) -> Ways:
    """Those that differ in how a layer multiplies."""
    return {PYTORCH: Pieces, "onednn": _onednn} if _is_cpu(device) else {PYTORCH: Pieces}


def pointwise(device: torch.device) -> Ways:
    """Those that differ in how norms, rotations and gates go over the tokens."""
    return {PYTORCH: Pieces, "native": norm_rope.load} if _is_cpu(device) else {PYTORCH: Pieces, "triton": partial(_triton, device)}


def fastest(hidden_size: int, heads: int, mlp_dim: int, tokens: int, dtype: torch.dtype, device: torch.device) -> BlockOps:
    """The name of those that take so many tokens at a time through a block's layers the fastest."""
    tokens = min(tokens, CPU_TOKENS) if _is_cpu(device) else tokens
    question: kept.Question = {"dtype": str(dtype), "block": f"{hidden_size} in {heads} x {mlp_dim}", "tokens": tokens}
    layers = partial(Layers, hidden_size, heads, mlp_dim, tokens, dtype, device)
    multiplied = _fastest("linear layers", question, linears(device), lambda: layers().linears, device)
    passed = _fastest("pointwise ops", question, pointwise(device), lambda: layers().pointwise, device)
    return cast(BlockOps, "+".join(name for name in (multiplied, passed) if name != PYTORCH) or PYTORCH)


def load(name: BlockOps, device: torch.device) -> Pieces:
    """The pieces of that name: linear layers, pointwise ops, or both.

    Raises:
        ValueError: they are for another device, or something is missing here.
    """
    made = Pieces()
    for part in name.split("+"):
        multiplies, passing = linears(device).get(part), pointwise(device).get(part)
        try:
            if multiplies is not None and part != PYTORCH:
                made = made._replace(linear=multiplies().linear, linear_gelu=multiplies().linear_gelu)
            elif passing is not None:
                made = passing()._replace(linear=made.linear, linear_gelu=made.linear_gelu)
            else:
                raise ValueError(f"block_ops is {name!r}, which is not for {device.type}; use pytorch, or auto.")
        except (ImportError, RuntimeError) as error:
            raise ValueError(f"block_ops is {name!r}, but {str(error).removesuffix('.')}; use pytorch, or auto.") from error
    return made


def why_not(name: BlockOps, device: torch.device) -> str | None:
    """The sentence that says why they cannot be had there; None: they can."""
    try:
        if name != "auto":
            load(name, device)
    except ValueError as error:
        return str(error)
    return None


def _fastest(what: str, question: kept.Question, ways: Ways, runs: Callable[[], Callable[[Pieces], Tensor]], device: torch.device) -> str:
    def trial() -> measured.Trial:
        run = runs()
        return measured.Trial(run, run(Pieces()))

    def found(name: str) -> Pieces | None:
        try:
            return ways[name]()
        except (ImportError, RuntimeError) as error:
            measured.say(f"Without {name} {what}: {error}")
            return None

    if len(ways) == 1:
        return PYTORCH
    return measured.fastest(what, question, {name: _version(name) for name in ways}, found, trial, device) or PYTORCH


def _is_cpu(device: torch.device) -> bool:
    return device.type == "cpu"


def _onednn() -> Pieces:
    if not torch.backends.mkldnn.is_available():
        raise RuntimeError("this PyTorch was built without oneDNN.")
    return onednn.PIECES


def _triton(device: torch.device) -> Pieces:
    triton.need("block_ops 'triton'")
    if not triton.works(device):
        raise RuntimeError(f"Triton does not work on {device}; the log says why.")
    from hunyuan_video.kernels.triton.pieces import FUSED  # which needs Triton

    return FUSED


def _version(name: str) -> str:
    """Of what PyTorch's own version does not tell."""
    if name == "triton" and triton.is_here():
        from hunyuan_video.kernels.triton import pieces as of_triton  # which needs Triton

        return f"{version('triton')} {_digest(inspect.getsource(of_triton))}"
    if name == "native":
        return f"{build.digest()} by {build.compiler()}"
    return _digest(inspect.getsource(onednn if name == "onednn" else pieces))


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
        self.qk, self.weight = normal(2, 1, tokens, heads, dim), normal(dim)
        self.rope = Rope(*torch.randn(2, tokens, 1, dim // 2, generator=draw, device=device))
        self.fc1 = Dense(normal(mlp_dim, hidden_size) / hidden_size**0.5, None)
        self.fc2 = Dense(normal(hidden_size, mlp_dim) / mlp_dim**0.5, None)

    @torch.no_grad()
    def linears(self, way: Pieces) -> Tensor:
        """Those of an MLP."""
        return way.linear(self.fc2, way.linear_gelu(self.fc1, self.x))

    @torch.no_grad()
    def pointwise(self, way: Pieces) -> Tensor:
        """What came of queries and keys, norms and gates."""
        x, turned = self.x.clone(), torch.empty_like(self.qk)
        way.add_gated(x, self.gate, way.modulate(x, self.shift, self.scale))
        for given, out in zip(self.qk, turned, strict=True):
            way.norm_rope(given, self.weight, self.rope, out)
        return torch.cat([x, *turned.flatten(3)], dim=-1)
