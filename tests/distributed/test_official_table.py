"""Every size and pair of degrees of the official table, and many that the official code refuses, at the released model's size, on the meta
device, among ranks that are not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from hunyuan_video.apps import official
from hunyuan_video.distributed.sequence import parallelize_sequence
from hunyuan_video.distributed.world import CPU, Degrees, world_of_group
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig, predict, trunk
from hunyuan_video.pipeline import degrees_of

# (height, width) in either orientation, and for how many GPUs the official table gives pairs of degrees.
OFFICIAL = {
    (1280, 720): (2, 3, 4, 8),
    (1104, 832): (2, 3, 4),
    (960, 960): (2, 3, 4, 6),
    (960, 544): (2, 3, 4, 6),
    (832, 624): (2, 3, 4),
    (720, 720): (3,),
}
OFFICIAL_1_TIMES_5 = [(1280, 720), (960, 960), (960, 544), (720, 720)]
REFUSED_THERE = [
    ((1280, 720), 5, 1),
    ((1280, 720), 7, 1),
    ((1280, 720), 1, 7),
    ((720, 720), 8, 1),
    ((720, 720), 2, 4),
    ((640, 368), 5, 1),
    ((848, 480), 7, 1),
]


def rows() -> Iterator[tuple[tuple[int, int], int, int]]:
    for size, counts in OFFICIAL.items():
        yield from ((size, ulysses, ranks // ulysses) for ranks in counts for ulysses in range(1, ranks + 1) if ranks % ulysses == 0)
    yield from ((size, 1, 5) for size in OFFICIAL_1_TIMES_5)
    yield from REFUSED_THERE


@pytest.fixture(scope="module")
def model() -> HunyuanVideoTransformer:
    """The released sizes, with one block of each kind."""
    with torch.device("meta"):
        return HunyuanVideoTransformer(TransformerConfig(num_double_blocks=1, num_single_blocks=1, num_refiner_blocks=1)).bfloat16()


@pytest.mark.parametrize(("size", "ulysses", "ring", "turned"), [(*row, number % 2 == 1) for number, row in enumerate(rows())])
def test_the_official_command_gives_every_rank_its_share(official_tree, monkeypatch, model, size, ulysses, ring, turned):
    ranks = ulysses * ring
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    height, width = map(str, reversed(size) if turned else size)
    degrees = ["--ulysses_degree", str(ulysses), "--ring-degree", str(ring)]
    flags = ["--model-base", str(official_tree), "--prompt", "A cat.", "--video-size", height, width, "--video-length", "129", *degrees]
    command = official.translate(official.build_parser().parse_args(flags))
    sampling = command.requests[0].sampling.over(command.found.sampling())
    x = torch.empty(1, 16, (sampling.num_frames + 3) // 4, sampling.height // 8, sampling.width // 8, device="meta")
    rank, seen = (0 if turned else ranks - 1), []
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        world = world_of_group(CPU, degrees_of(command.runtime, sampling, model.config))
        assert world.degrees == Degrees(ulysses, ring) and world.sequence is not None
        model.trunk = lambda model, img, *more: seen.append(img.shape[1]) or trunk(model, img, *more)
        model.predict = predict
        parallelize_sequence(model, world.sequence)
        states, pooled = torch.empty(1, 19, 4096, device="meta").bfloat16(), torch.empty(1, 768, device="meta").bfloat16()
        condition = model.condition(states, torch.ones(1, 19, dtype=torch.bool), pooled, torch.empty(1, device="meta"))
        assert model(x, torch.empty(1, device="meta"), condition).shape == x.shape
    finally:
        dist.destroy_process_group()
    assert abs(seen[0] - x[0, 0].numel() / 4 / ranks) < 1
