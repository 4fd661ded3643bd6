"""Random adapters for a tiny model, and a forward pass to see them by."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.transforms.lora import Lora, LowRank, linear_layers, weight_of


def random_lora(model: nn.Module, rank: int = 3, alpha: float = 2.0, seed: int = 0, where: Callable[[str], bool] = bool) -> Lora:
    generator = torch.Generator().manual_seed(seed)

    def adapter(layer: nn.Module) -> LowRank:
        out_features, in_features = weight_of(layer).shape
        draw = (torch.randn(shape, generator=generator) * 0.2 for shape in ((rank, in_features), (out_features, rank)))
        return LowRank(*draw, alpha)

    return Lora({name: adapter(layer) for name, layer in linear_layers(model).items() if where(name)})


@torch.no_grad()
def forward(model: HunyuanVideoTransformer, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x, states, pooled = (torch.randn(shape, generator=generator).to(dtype) for shape in ((1, 4, 2, 4, 4), (1, 5, 24), (1, 20)))
    condition = model.condition(states, torch.ones(1, 5, dtype=torch.bool), pooled, torch.full((1,), 4000.0))
    return model(x, torch.full((1,), 500.0), condition).float()
