"""8-bit weights, as the official FP8 checkpoint has them: float8_e4m3fn with one float32 scale for each linear of the blocks.

Weights are expanded to the compute dtype at every use and activations are not quantized: it halves the memory of the blocks, which are
97 % of the model, and is no faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video.transforms.swap import swap_linears

FP8 = torch.float8_e4m3fn
LARGEST = 448.0  # the largest number of float8_e4m3fn


def in_blocks(name: str) -> bool:
    """The 320 layers that the official FP8 checkpoint quantizes: every linear of the blocks, modulation included."""
    return "double_blocks" in name or "single_blocks" in name


def scale_of(weight: Float[Tensor, "out in"]) -> Float[Tensor, " 1"]:
    """What maps the largest weight to 448."""
    return (weight.abs().max().float() / LARGEST).clamp(min=torch.finfo(torch.float32).tiny).view(1)  # an all-zero weight stays zero


def in_8_bits(weight: Float[Tensor, "out in"], scale: Float[Tensor, " 1"]) -> Float[Tensor, "out in"]:
    """Each weight as the nearest number of the format."""
    return (weight.float() / scale).to(FP8)


class Fp8Linear(nn.Module):
    """A linear layer with an 8-bit weight. The scale is rounded to the compute dtype before it is used, as in the reference."""

    scale: Tensor

    def __init__(self, weight: Float[Tensor, "out in"], scale: Float[Tensor, " 1"], bias: Float[Tensor, " out"] | None):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer("scale", scale, persistent=False)

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> Fp8Linear:
        scale = scale_of(linear.weight.detach())
        return cls(in_8_bits(linear.weight.detach(), scale), scale, linear.bias)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        if torch.is_grad_enabled() and x.requires_grad:
            return _ExpandedTwice.apply(x, self.weight, self.scale, self.bias)
        return F.linear(x, expand(self.weight, self.scale, x.dtype), self.bias)


def expand(weight: Float[Tensor, "out in"], scale: Float[Tensor, " 1"], dtype: torch.dtype) -> Float[Tensor, "out in"]:
    return weight.to(dtype).mul_(scale.to(dtype))


class _ExpandedTwice(torch.autograd.Function):
    """Keeps the 8-bit weight for the backward pass and expands it there again; autograd would keep the expanded one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(x, expand(weight, scale, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, scale = ctx.saved_tensors
        return gradient @ expand(weight, scale, gradient.dtype), None, None, None


def in_layers(name: str) -> bool:
    """Every linear of a language model's layers."""
    return name.startswith("layers.")


def quantize(model: nn.Module, where: Callable[[str], bool] = in_blocks) -> None:
    """Put a model's blocks, or the layers `where` says, into 8 bits; those that are already stay as they are."""
    swap_linears(model, lambda _name, linear: Fp8Linear.from_linear(linear), where)


def fit(model: nn.Module, scales: dict[str, Float[Tensor, " 1"]]) -> None:
    """Make a model on the meta device ready for the tensors of an FP8 checkpoint, whose scales are given by layer name."""
    unknown = scales.keys() - {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if unknown:
        raise ValueError(f"The FP8 scale map names {len(unknown)} layers that the model does not have, such as {min(unknown)}.")

    def make(name: str, linear: nn.Linear) -> Fp8Linear:
        return Fp8Linear(torch.empty_like(linear.weight, dtype=FP8), scales[name].float().view(1), linear.bias)

    swap_linears(model, make, scales.__contains__)
