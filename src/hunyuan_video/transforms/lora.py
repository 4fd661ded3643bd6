"""Low-rank adapters: a linear layer's weight W becomes W + strength * alpha / rank * up @ down.

A `Lora` is what one file or one training holds: factors for layers by their official names. It acts on a finished model in one of two
ways: live, beside weights that stay as they are (`apply_lora`, undone by `remove_lora`), or added to the weights (`merge_lora`), after
which it costs nothing. Several are stacked by using one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video.kernels.pieces import Apply
from hunyuan_video.memory import is_sharded
from hunyuan_video.transforms.swap import LinearLike, Rows, prepared, some

_BEFORE = "_before_lora"  # of a module: the parameters in whose place changed ones stand
Strength = float | Callable[[str], float]  # of the whole adapter, or of each layer by its official name


@dataclass(frozen=True, eq=False)
class LowRank:
    """The adapter of one layer."""

    down: Float[Tensor, "rank in"]
    up: Float[Tensor, "out rank"]
    alpha: float

    @property
    def rank(self) -> int:
        return len(self.down)

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def delta(self) -> Float[Tensor, "out in"]:
        """What is added to the weight at strength 1, in float32: bfloat16 products would lose most of a small update."""
        return self.scale * (self.up.float() @ self.down.float())


@dataclass(frozen=True, eq=False)
class Lora:
    """Adapters of a model's layers, by official name such as "double_blocks.0.img_attn_qkv"."""

    layers: dict[str, LowRank]
    metadata: dict[str, str] = field(default_factory=dict)
    offsets: dict[str, Tensor] = field(default_factory=dict)
    """what is added at strength 1 to parameters that are no linear layer's weight (biases, norms), by official name"""

    def to(self, device: torch.device) -> Lora:
        layers = {name: replace(layer, down=layer.down.to(device), up=layer.up.to(device)) for name, layer in self.layers.items()}
        return replace(self, layers=layers, offsets={name: offset.to(device) for name, offset in self.offsets.items()})


class LoraLinear(nn.Module):
    """A linear layer of any kind with an adapter beside it. The factors are float32 and computed in the input's dtype."""

    def __init__(self, base: nn.Module, adapter: LowRank, strength: float = 1.0, *, trainable: bool = False):
        super().__init__()
        self.base = base
        device = next(base.parameters()).device
        self.lora_down = nn.Parameter(adapter.down.to(device, torch.float32), requires_grad=trainable)
        self.lora_up = nn.Parameter(adapter.up.to(device, torch.float32), requires_grad=trainable)
        self.alpha = adapter.alpha
        self.strength = strength

    @property
    def weight(self) -> Tensor:
        """The base's, without the adapter."""
        return weight_of(self.base)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        low = F.linear(x, self.lora_down.to(x.dtype)) * (self.strength * self.alpha / len(self.lora_down))
        return self.base(x) + F.linear(low, self.lora_up.to(x.dtype))

    def prepared(self, dtype: torch.dtype, rows: Rows | None) -> Apply:
        base, down, up = prepared(self.base, dtype, rows), self.lora_down.to(dtype), some(self.lora_up, rows).to(dtype)
        scale = self.strength * self.alpha / len(down)
        return lambda x: base(x) + F.linear(F.linear(x, down) * scale, up)


def weight_of(layer: nn.Module) -> Float[Tensor, "out in"]:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def shape_of(layer: nn.Module) -> list[int]:
    """[out, in] of a linear layer of any kind, without its numbers."""
    while isinstance(layer, LoraLinear):
        layer = layer.base
    return [layer.out_features, layer.in_features] if isinstance(layer, LinearLike) else [*weight_of(layer).shape]


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer by its official name, whatever kind stands there now: plain, 8-bit or adapted."""
    layers: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        # Not the weight of those: it may be a copy.
        weight = None if isinstance(module, LoraLinear | LinearLike) else getattr(module, "weight", None)
        is_linear = isinstance(module, LoraLinear | LinearLike) or (isinstance(weight, Tensor) and weight.ndim == 2)
        if is_linear and not name.endswith(".base"):
            layers[name] = module
    return layers


def in_attention_and_mlp(name: str) -> bool:
    """The usual targets: every linear of the blocks but the modulation."""
    return name.startswith(("double_blocks.", "single_blocks.")) and not name.endswith(("mod.linear", "modulation.linear"))


def add_lora(
    model: nn.Module,
    rank: int,
    alpha: float,
    where: Callable[[str], bool] = in_attention_and_mlp,
    generator: torch.Generator | None = None,
) -> None:
    """Prepare a model for training adapters: those become its only trainable parameters, and change nothing yet, for `up` is zero.

    `generator` is a CPU generator; the factors are drawn on the CPU, so that they are the same on every device and rank.
    """
    chosen = {name: layer for name, layer in linear_layers(model).items() if where(name)}
    if not chosen or rank < 1:
        raise ValueError(f"A LoRA of rank {rank} on {len(chosen)} layers cannot be trained; both must be 1 or more.")
    model.requires_grad_(False)
    for name, layer in chosen.items():
        out_features, in_features = shape_of(layer)
        bound = in_features**-0.5  # Kaiming's uniform bound with a = sqrt(5), as PyTorch initializes linears
        down = torch.empty(rank, in_features).uniform_(-bound, bound, generator=generator)
        adapter = LowRank(down, torch.zeros(out_features, rank), float(alpha))
        model.set_submodule(name, LoraLinear(layer, adapter, trainable=True))


def apply_lora(model: nn.Module, lora: Lora, strength: Strength = 1.0) -> None:
    """Put adapters beside the weights, which are not touched; nor are the layers where the strength is 0.

    Raises:
        ValueError: the model lacks a layer, or has it in another size.
    """
    layers = _fitting(model, lora)
    for name, offset in lora.offsets.items():
        module, own = _owner(model, name)
        if at := _at(strength, name):
            before = module.get_parameter(own)
            module.__dict__.setdefault(_BEFORE, {}).setdefault(own, before)
            setattr(module, own, nn.Parameter((before.float() + at * offset.to(before.device)).to(before.dtype), requires_grad=False))
    for name, adapter in lora.layers.items():
        if at := _at(strength, name):
            model.set_submodule(name, LoraLinear(layers[name], adapter, at))


@torch.no_grad()
def merge_lora(model: nn.Module, lora: Lora, strength: Strength = 1.0) -> None:
    """Add adapters to the weights, in float32 and rounded once. Layers that are no plain linears keep theirs live: 8 bits would lose it.

    Raises:
        ValueError: the model lacks a layer, or has it in another size.
    """
    layers = _fitting(model, lora)
    for name, offset in lora.offsets.items():
        module, own = _owner(model, name)
        if at := _at(strength, name):
            parameter = module.get_parameter(own)
            parameter.copy_(parameter.float() + at * offset.to(parameter.device))
    for name, adapter in lora.layers.items():
        layer, at = layers[name], _at(strength, name)
        if isinstance(layer, nn.Linear) and at:
            layer.weight.copy_(layer.weight.float() + at * adapter.delta().to(layer.weight.device))
        elif at:
            model.set_submodule(name, LoraLinear(layer, adapter, at))


def remove_lora(model: nn.Module) -> None:
    """Give every layer back that adapters were put beside: the very modules and parameters that stood there."""
    for module in model.modules():
        for own, before in module.__dict__.pop(_BEFORE, {}).items():
            setattr(module, own, before)
    for name, layer in linear_layers(model).items():
        while isinstance(layer, LoraLinear):
            layer = layer.base
        model.set_submodule(name, layer)


def lora_of(model: nn.Module) -> Lora:
    """The adapters that a model holds, stacked ones as one; on the CPU. Sharded ones are gathered, so every rank must call it."""
    layers: dict[str, LowRank] = {}
    for name, layer in linear_layers(model).items():
        adapters: list[LowRank] = []
        while isinstance(layer, LoraLinear):
            down, up = (_whole(factor) for factor in (layer.lora_down, layer.lora_up))
            adapters.insert(0, LowRank(down, up, layer.strength * layer.alpha))
            layer = layer.base
        if adapters:
            layers[name] = stacked(adapters)
    return Lora(layers)


def stacked(adapters: list[LowRank]) -> LowRank:
    """One adapter that does what all of them do together; its rank is the sum of theirs."""
    if len(adapters) == 1:
        return adapters[0]
    down = torch.cat([adapter.down for adapter in adapters])
    up = torch.cat([adapter.scale * adapter.up for adapter in adapters], dim=1)
    return LowRank(down, up, float(len(down)))


def _fitting(model: nn.Module, lora: Lora) -> dict[str, nn.Module]:
    layers, problems = linear_layers(model), []
    for name, adapter in lora.layers.items():
        made_for = [len(adapter.up), adapter.down.shape[1]]
        if name not in layers:
            problems.append(f"{name} is unknown")
        elif made_for != (shape := shape_of(layers[name])):
            problems.append(f"{name} is for a weight of shape {made_for}, not {shape}")
    parameters = {re.sub(r"\.base(?=\.)", "", name): parameter.shape for name, parameter in model.named_parameters()}
    for name, offset in lora.offsets.items():
        if name not in parameters:
            problems.append(f"{name} is unknown")
        elif parameters[name] != offset.shape:
            problems.append(f"{name} has shape {[*parameters[name]]}, not {[*offset.shape]}")
    if problems:
        raise ValueError(f"The LoRA does not fit the model: {listed(problems)}.")
    return layers


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that a parameter is of, beneath any adapters, and what it is called there."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    while isinstance(module, LoraLinear):
        module = module.base
    return module, own


def listed(problems: list[str]) -> str:
    """The first ten, and how many more there are."""
    return "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")


def _at(strength: Strength, name: str) -> float:
    return strength(name) if callable(strength) else strength


def _whole(tensor: Tensor) -> Tensor:
    whole: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]
    return whole.detach().cpu().clone()
