"""Blocks that are computed twice: the same gradients from less memory, and a model that can be copied and let go like any other."""

from __future__ import annotations

import copy
import gc
import weakref

import torch
from torch import Tensor

from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.transforms.recompute import recompute_blocks


def loss(model: HunyuanVideoTransformer) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    x, states, pooled = (torch.randn(shape, generator=draw) for shape in ((1, 4, 2, 8, 8), (1, 5, 24), (1, 20)))
    condition = model.condition(states, torch.ones(1, 5, dtype=torch.bool), pooled, torch.full((1,), 4000.0))
    return model(x, torch.full((1,), 500.0), condition).square().mean()


def gradients(model: HunyuanVideoTransformer) -> dict[str, Tensor]:
    model.requires_grad_(True).zero_grad()
    loss(model).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_gradients_are_the_same_bits_from_less_memory(tiny_transformer):
    recomputed = copy.deepcopy(tiny_transformer)
    recompute_blocks(recomputed)
    expected, found = gradients(tiny_transformer), gradients(recomputed)
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    held = []
    for model in (tiny_transformer, recomputed):
        with LiveBytes(model) as seen:
            kept = loss(model)
        held.append(seen.live)
        del kept
    assert held[1] < 0.5 * held[0]


def test_a_copy_computes_with_its_own_weights(tiny_transformer):
    recompute_blocks(tiny_transformer)
    other = copy.deepcopy(tiny_transformer)
    before = loss(other)
    for block in tiny_transformer.blocks:
        block.requires_grad_(False).apply(lambda module: [parameter.zero_() for parameter in module.parameters()])
    assert torch.equal(loss(other), before) and not torch.equal(loss(tiny_transformer), before)


def test_deleting_the_model_frees_it_without_the_garbage_collector(tiny_transformer):
    model = copy.deepcopy(tiny_transformer)
    recompute_blocks(model)
    gc.disable()
    try:
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()
