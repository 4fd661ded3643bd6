"""Replacing linear layers of a finished model, chosen by dotted name: what every transform of weights is made of."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def swap_linears(model: nn.Module, make: Callable[[str, nn.Linear], nn.Module], where: Callable[[str], bool]) -> None:
    """Replace every `nn.Linear` whose dotted name satisfies `where` by `make(name, linear)`."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and where(name):
            model.set_submodule(name, make(name, module))
