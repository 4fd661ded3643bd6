"""The pieces of a block beside its matrix products and attention: what a device may compute in one pass over the tokens.

Letters: B batch, S tokens, R rows of modulation (1, or one a token), D hidden size, H heads, K head dimension, M width of the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.models.rope import Rope, apply_rope
from hunyuan_video.models.transformer import gelu_tanh

Apply = Callable[[Tensor], Tensor]  # what a linear layer does


class Dense(NamedTuple):
    """A linear layer's weight as it is multiplied by."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None

    def __call__(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return F.linear(x, self.weight, self.bias)


def modulate(x: Float[Tensor, "B S D"], shift: Float[Tensor, "B R D"], scale: Float[Tensor, "B R D"]) -> Float[Tensor, "B S D"]:
    """LayerNorm without parameters, then x * (1 + scale) + shift."""
    if x.shape[0] == scale.shape[1] == 1:  # for all tokens the same: the norm's own weight and bias, in one pass
        return F.layer_norm(x, (x.shape[-1],), 1 + scale[0, 0], shift[0, 0], eps=1e-6)
    return F.layer_norm(x, (x.shape[-1],), eps=1e-6).mul_(1 + scale).add_(shift)


def norm_rope(x: Float[Tensor, "B S H K"], weight: Float[Tensor, " K"], rope: Rope | None, out: Float[Tensor, "B S H K"]) -> None:
    """RMSNorm of each head's features, in float32; cast back, times the weight; then rotated, where there are positions. Into `out`, where
    attention reads it."""
    x = F.rms_norm(x.float(), (x.shape[-1],), eps=1e-6).type_as(x) * weight
    out.copy_(x if rope is None else apply_rope(x, rope))


def add_gated(x: Float[Tensor, "B S D"], gate: Float[Tensor, "B R D"], y: Float[Tensor, "B S D"]) -> None:
    """x += gate * y, in place."""
    x.addcmul_(gate, y)


def linear(layer: Apply, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S M"]:
    """A linear layer of any kind."""
    return layer(x)


def linear_gelu(layer: Apply, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S M"]:
    """The same, then GELU (its tanh form)."""
    return gelu_tanh(layer(x))


@runtime_checkable
class TakesGelu(Protocol):
    """A linear layer that rounds its input, and can do so with GELU in the same pass."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def of_gelu(self, x: Tensor) -> Tensor: ...


class Pieces(NamedTuple):
    """How a device computes them; each as the function of its name here, but for rounding."""

    modulate: Callable[[Tensor, Tensor, Tensor], Tensor] = modulate
    norm_rope: Callable[[Tensor, Tensor, Rope | None, Tensor], None] = norm_rope
    add_gated: Callable[[Tensor, Tensor, Tensor], None] = add_gated
    linear: Callable[[Apply, Tensor], Tensor] = linear
    linear_gelu: Callable[[Apply, Tensor], Tensor] = linear_gelu

    def mlp(self, fc1: Apply, fc2: Apply, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S M"]:
        """Two layers with GELU between them."""
        if isinstance(fc2, TakesGelu):
            return fc2.of_gelu(self.linear(fc1, x))
        return self.linear(fc2, self.linear_gelu(fc1, x))
