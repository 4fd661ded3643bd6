"""Linear layers of a finished model, of any kind: replaced, chosen by dotted name, which is what every transform of weights is made of; and
used several times for one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from hunyuan_video.kernels.pieces import Apply, Dense

Rows = Sequence[slice]


class LinearLike(nn.Module):
    """A linear layer that keeps its weight in another way than `nn.Linear`, and may be replaced like one."""

    in_features: int
    out_features: int
    bias: Tensor | None

    @property
    def weight(self) -> Tensor:
        """[out, in]; may be a copy, made at every call."""
        raise NotImplementedError


def swap_linears(model: nn.Module, make: Callable[[str, nn.Linear | LinearLike], nn.Module], where: Callable[[str], bool]) -> None:
    """Replace every linear layer whose dotted name satisfies `where` by `make(name, linear)`."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | LinearLike) and where(name):
            model.set_submodule(name, make(name, module))


@runtime_checkable
class Preparing(Protocol):
    """A linear layer of another kind than `nn.Linear`, that knows what it can do once for several uses."""

    def prepared(self, dtype: torch.dtype, rows: Rows | None) -> Apply: ...


def prepared(layer: nn.Module, dtype: torch.dtype, rows: Rows | None = None) -> Apply:
    """A linear layer, to be used several times for inputs of `dtype`: what it would expand at each use is expanded once. Of its outputs
    those of `rows`, in their order, or all."""
    if isinstance(layer, Preparing):
        return layer.prepared(dtype, rows)
    assert isinstance(layer, nn.Linear)
    return Dense(some(layer.weight, rows), None if layer.bias is None else some(layer.bias, rows))


def some(tensor: Tensor, rows: Rows | None) -> Tensor:
    """Of its first axis; not copied where they are one stretch."""
    if rows is None:
        return tensor
    parts = [tensor[each] for each in stretches(rows)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def stretches(rows: Rows) -> list[slice]:
    """The same rows, where neighbours are one."""
    found: list[slice] = []
    for each in rows:
        if found and found[-1].stop == each.start:
            found[-1] = slice(found[-1].start, each.stop)
        else:
            found.append(each)
    return found
