"""What each rank of the sequence-parallel tests does; a module of its own, as spawned processes must be able to import it."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from conftest import TINY
from measure import randomize
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hunyuan_video.distributed.sequence import parallelize_sequence
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.models.attention import matmul, sdpa
from hunyuan_video.models.transformer import Context, HunyuanVideoTransformer

FOUR_HEADS = replace(TINY, hidden_size=64, num_heads=4)
# Latents, clean frames, lengths of the prompts. Tokens are a quarter of height times width: 45 and 15 do not divide by 2 or 4, 1 is fewer.
CASES = {
    "video": ((2, 4, 4, 4, 8), 0, (5, 5)),
    "uneven": ((1, 4, 3, 6, 10), 0, (7,)),
    "masked": ((2, 4, 3, 6, 10), 0, (3, 6)),
    "clean": ((1, 4, 3, 6, 10), 1, (4,)),
    "clean_masked": ((2, 4, 3, 6, 10), 2, (6, 2)),
    "image": ((1, 4, 1, 6, 10), 0, (4,)),
    "one_token": ((1, 4, 1, 2, 2), 0, (3,)),
}


def run_case(model: HunyuanVideoTransformer, name: str, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and parameters' gradients (of an uneven loss over the whole output) of one case."""
    shape, clean_frames, lengths = CASES[name]
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=draw)
    batch, longest = len(lengths), max(lengths)
    states, pooled = torch.randn(batch, longest, 24, generator=draw), torch.randn(batch, 20, generator=draw)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    t, guidance = 1000 * torch.rand(batch, generator=draw), torch.full((batch,), 6000.0)
    out = model(x, t, model.condition(states, mask, pooled, guidance), clean_frames)
    model.zero_grad()
    (out * torch.randn(shape, generator=draw)).sum().backward()
    return out.detach(), {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}


def deviation(single: HunyuanVideoTransformer, parallel: HunyuanVideoTransformer, group: dist.ProcessGroup, name: str) -> dict[str, float]:
    """Largest relative difference of the output, and of the group's mean gradients, from one process's."""
    seed = dist.get_rank() // group.size()  # each group its own video
    expected, expected_gradients = run_case(single, name, seed)
    out, gradients = run_case(parallel, name, seed)
    assert gradients.keys() == expected_gradients.keys()
    worst = 0.0
    for key, gradient in gradients.items():
        dist.all_reduce(gradient, group=group)
        reference = expected_gradients[key]
        worst = max(worst, ((gradient / group.size() - reference).abs().max() / reference.abs().max()).item())
    return {"out": ((out - expected).abs().max() / expected.abs().max()).item(), "gradient": worst}


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


def work(rank: int, world_size: int, folder: Path) -> None:
    """All claims on one rank; its results go to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size, timeout=timedelta(seconds=120))
    single = randomize(HunyuanVideoTransformer(FOUR_HEADS)).requires_grad_(True)
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    everyone = dist.group.WORLD
    assert everyone is not None
    groups = {2: pairs[rank // 2], 4: everyone}
    results: dict[str, float | set] = {}
    for ranks, group in groups.items():
        parallel = copy.deepcopy(single)
        parallelize_sequence(parallel, group)
        for name in CASES:
            results |= {f"{name} {ranks} {kind}": value for kind, value in deviation(single, parallel, group, name).items()}
        recompute_blocks(parallel)
        expected, gradient = two_sizes_before_backward(single), two_sizes_before_backward(parallel)
        dist.all_reduce(gradient, group=group)
        results[f"recomputed {ranks}"] = ((gradient / ranks - expected).abs().max() / expected.abs().max()).item()

    seen = set()

    def kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        seen.add((*q.shape[1:3], None if mask is None else tuple(mask.shape)))
        return matmul(q, k, v, mask)

    watched, tokens = copy.deepcopy(single), []
    use_attention(watched, kernel)
    for block in watched.txt_in.individual_token_refiner.blocks:
        block.attention = sdpa
    inner = watched.trunk

    def trunk(model: HunyuanVideoTransformer, img: Tensor, txt: Tensor, ctx: Context) -> Tensor:
        tokens.append((img.shape[1], ctx.num_clean))
        return inner(model, img, txt, ctx)

    watched.trunk = trunk
    parallelize_sequence(watched, everyone)
    run_case(watched, "clean_masked")
    results |= {"kernel": seen, "tokens": set(tokens)}
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()
