"""Shards of the released model's blocks, counted by their bytes on the meta device; in a pretended process group of which this is the first
rank, whose shards are the largest where they are uneven. What real ranks have in memory is counted in test_many_ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from hunyuan_video.assembly import Models, assemble
from hunyuan_video.config import Runtime
from hunyuan_video.distributed.sharding import local
from hunyuan_video.distributed.world import World
from hunyuan_video.models.llama import LlamaConfig
from hunyuan_video.models.text import without_skipped_layers
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.plan import Parts

META = torch.device("meta")
RELEASED = Parts()
FEW = replace(RELEASED.transformer, num_double_blocks=2, num_single_blocks=2)  # of which each is like the others
FEW_LAYERS = LlamaConfig(num_hidden_layers=4)


@pytest.fixture(params=[3, 8])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    size = request.param
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    yield World(META, 0, size, mesh=init_device_mesh("cpu", (size,)))
    dist.destroy_process_group()


def bytes_of(module: nn.Module) -> int:
    return sum(local(tensor).nbytes for tensor in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("in_8_bits", [False, True])
def test_each_rank_has_its_share_of_every_block(world, in_8_bits):
    with META:
        transformer = HunyuanVideoTransformer(FEW).bfloat16()
        text = nn.ModuleDict({"llm": without_skipped_layers(FEW_LAYERS).half()})
    models = Models(transformer, text)
    alone = Runtime(fp8=in_8_bits, text_fp8=in_8_bits)
    assemble(models, alone, World(META))
    stacks = models.stacks()
    modules = [transformer, text, *stacks["transformer"], *stacks["text"]]
    whole = [bytes_of(module) for module in modules]
    assemble(models, Runtime(shard=True), world)
    for module, size in zip(modules, whole, strict=True):
        assert bytes_of(module) == pytest.approx(size / world.size, rel=0.002)
    assert len(stacks["text"]) == 2  # without those that are not used


@pytest.mark.parametrize(("in_8_bits", "size"), [(False, 25.6e9), (True, 13.2e9)])
def test_the_released_13b_takes_a_byte_a_weight_in_8_bits(in_8_bits, size):
    with META:
        transformer = HunyuanVideoTransformer(RELEASED.transformer).bfloat16()
    assemble(Models(transformer), Runtime(fp8=in_8_bits), World(META))
    assert bytes_of(transformer) == pytest.approx(size, rel=0.01)
