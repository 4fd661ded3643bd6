"""Replacing linear layers of a finished model, chosen by dotted name: what every transform of weights is made of."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


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
