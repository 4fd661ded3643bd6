"""What each rank of the sequence-parallel tests does; a module of its own, as spawned processes must be able to import it."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from conftest import TINY
from measure import randomize
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hunyuan_video.distributed.sequence import parallelize_sequence
from hunyuan_video.distributed.wire import Wire
from hunyuan_video.distributed.world import Degrees, SequenceGroups
from hunyuan_video.models.attention import matmul
from hunyuan_video.models.transformer import Context, HunyuanVideoTransformer

SEVEN_HEADS = replace(TINY, hidden_size=112, num_heads=7)
# Ulysses and ring degrees: heads that divide and that do not, in groups, in a ring, and in both.
GRIDS = [(2, 1), (1, 2), (3, 1), (2, 2), (1, 5), (5, 1), (2, 3), (7, 1), (1, 7), (4, 2), (2, 4)]
RANKS = 8
# Latents, clean frames, lengths of the prompts. Tokens are a quarter of height times width: 45 and 15 divide by few of the ranks.
CASES = {
    "video": ((2, 4, 4, 4, 8), (), (5, 5)),
    "uneven": ((1, 4, 3, 6, 10), (), (7,)),
    "masked": ((2, 4, 3, 6, 10), (), (3, 6)),
    "clean": ((1, 4, 3, 6, 10), (0,), (4,)),
    "clean_masked": ((2, 4, 3, 6, 10), (0, 2), (6, 2)),
    "image": ((1, 4, 1, 6, 10), (), (4,)),
}


def velocity(model: HunyuanVideoTransformer, name: str) -> tuple[Tensor, torch.Generator]:
    """The output of one case, and where further random numbers come from."""
    shape, clean_frames, lengths = CASES[name]
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=draw)
    batch, longest = len(lengths), max(lengths)
    states, pooled = torch.randn(batch, longest, 24, generator=draw), torch.randn(batch, 20, generator=draw)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    t, guidance = 1000 * torch.rand(batch, generator=draw), torch.full((batch,), 6000.0)
    return model(x, t, model.condition(states, mask, pooled, guidance), clean_frames), draw


def run_case(model: HunyuanVideoTransformer, name: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and parameters' gradients (of an uneven loss over the whole output) of one case."""
    out, draw = velocity(model, name)
    model.zero_grad()
    (out * torch.randn(out.shape, generator=draw)).sum().backward()
    return out.detach(), {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}


def deviation(
    expected: tuple[Tensor, dict[str, Tensor]], found: tuple[Tensor, dict[str, Tensor]], everyone: dist.ProcessGroup
) -> dict[str, float]:
    """Largest relative difference of the output, and of the ranks' mean gradients, from one process's."""
    (out, gradients), (single, references) = found, expected
    assert gradients.keys() == references.keys()
    means = torch.cat([gradient.flatten() for gradient in gradients.values()])  # for one message instead of dozens
    dist.all_reduce(means, group=everyone)
    means /= everyone.size()
    worst = 0.0
    for mean, reference in zip(means.split([gradient.numel() for gradient in gradients.values()]), references.values(), strict=True):
        worst = max(worst, ((mean - reference.flatten()).abs().max() / reference.abs().max()).item())
    return {"out": ((out - single).abs().max() / single.abs().max()).item(), "gradient": worst}


def recompute_blocks(model: HunyuanVideoTransformer) -> None:
    """Activation checkpointing, as training does it: each block runs again in the backward pass."""
    for block in (*model.double_blocks, *model.single_blocks):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def two_sizes_before_backward(model: HunyuanVideoTransformer) -> Tensor:
    """The gradient of a loss over two videos of different sizes: blocks run again with the sizes of their own call."""
    condition = model.condition(torch.ones(1, 2, 24), torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 20), torch.ones(1))
    videos = [torch.linspace(-1, 1, 4 * width * 8).view(1, 4, 1, width, 8) for width in (6, 2)]
    model.zero_grad()
    torch.stack([model(x, torch.ones(1), condition).square().mean() for x in videos]).sum().backward()
    gradient = model.double_blocks.get_parameter("0.img_attn_qkv.weight").grad
    assert gradient is not None
    return gradient


def groups_of(degrees: Degrees) -> tuple[SequenceGroups | None, dist.ProcessGroup | None]:
    """The first ranks as a sequence, and all of them as one group; None for the others, which must call this, too."""
    ulysses = [range(first, first + degrees.ulysses) for first in range(0, degrees.ranks, degrees.ulysses)]
    rings = [range(first, degrees.ranks, degrees.ulysses) for first in range(degrees.ulysses)]
    mine = [dist.new_subgroups_by_enumeration([list(ranks) for ranks in every])[0] for every in (ulysses, rings, [range(degrees.ranks)])]
    if dist.get_rank() >= degrees.ranks:
        return None, None
    return SequenceGroups(mine[0], mine[1]), mine[2]


def work(rank: int, world_size: int, folder: Path) -> None:
    """All claims on one rank; its results go to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size, timeout=timedelta(seconds=120))
    single = randomize(HunyuanVideoTransformer(SEVEN_HEADS)).requires_grad_(True)
    expected = {name: run_case(single, name) for name in CASES}
    results: dict[str, Any] = {}
    for grid in GRIDS:
        groups, everyone = groups_of(Degrees(*grid))
        if groups is None or everyone is None:
            continue
        parallel = copy.deepcopy(single)
        parallelize_sequence(parallel, groups)
        cases = CASES if grid in ((2, 1), (2, 2)) else ("uneven", "clean_masked")
        for name in cases:
            apart = deviation(expected[name], run_case(parallel, name), everyone)
            results |= {f"{name} {grid} {kind}": value for kind, value in apart.items()}
        if grid in ((3, 1), (2, 2)):
            recompute_blocks(parallel)
            alone, gradient = two_sizes_before_backward(single), two_sizes_before_backward(parallel)
            dist.all_reduce(gradient, group=everyone)
            results[f"recomputed {grid}"] = ((gradient / everyone.size() - alone).abs().max() / alone.abs().max()).item()
        if grid == (2, 1):
            results |= watched(single, groups)
        if grid in ((2, 1), (1, 5), (2, 2)):
            results[f"8 bits {grid}"] = in_8_bits(single, groups)
        if grid == (2, 2):
            results["too few tokens"] = refusal_of_three_tokens(parallel)
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def watched(single: HunyuanVideoTransformer, groups: SequenceGroups) -> dict[str, set]:
    """What a kernel sees of a masked batch, and what a trunk."""
    seen, tokens = set(), set()

    def kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        seen.add((*q.shape[1:3], None if mask is None else tuple(mask.shape)))
        return matmul(q, k, v, mask)

    model = copy.deepcopy(single)
    for block in model.blocks:
        block.attention = kernel
    inner = model.trunk

    def trunk(model: HunyuanVideoTransformer, img: Tensor, txt: Tensor, ctx: Context) -> Tensor:
        tokens.add((img.shape[1], txt.shape[1], ctx.clean))
        return inner(model, img, txt, ctx)

    model.trunk = trunk
    parallelize_sequence(model, groups)
    run_case(model, "clean_masked")
    return {"kernel": seen, "tokens": tokens}


@torch.no_grad()
def in_8_bits(single: HunyuanVideoTransformer, groups: SequenceGroups) -> float:
    """How far q, v and output in 8 bits move the velocity, beside its norm."""
    parallel = copy.deepcopy(single)
    parallelize_sequence(parallel, groups, Wire.FP8)
    expected = velocity(single, "clean_masked")[0]
    return ((velocity(parallel, "clean_masked")[0] - expected).norm() / expected.norm()).item()


def refusal_of_three_tokens(parallel: HunyuanVideoTransformer) -> str:
    condition = parallel.condition(torch.ones(1, 2, 24), torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 20), torch.ones(1))
    try:
        parallel(torch.ones(1, 4, 1, 2, 6), torch.ones(1), condition)
    except ValueError as error:
        return str(error)
    return "no refusal"
