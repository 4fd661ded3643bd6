"""Keys and values that are one step old, by hand; and what each rank of the PipeFusion tests does."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from conftest import TINY
from measure import randomize
from torch import Tensor

from hunyuan_video.config import Runtime, Sampling
from hunyuan_video.distributed import pipefusion
from hunyuan_video.distributed.pipefusion import Elsewhere, Line, one_step_old, spread_blocks
from hunyuan_video.distributed.sequence import shares
from hunyuan_video.models.attention import sdpa
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.pipeline import HunyuanVideo

# Seven blocks, so that stages differ in size and are cut among blocks of each kind.
SEVEN = replace(TINY, num_double_blocks=3, num_single_blocks=4)
RANKS = 4
# Latents, clean frames, lengths of the prompts: 45 tokens, which divide by few numbers of patches.
CASES = {
    "video": ((1, 4, 3, 6, 10), (), (5,)),
    "clean": ((1, 4, 3, 6, 10), (0,), (4,)),
    "clean_masked": ((2, 4, 3, 6, 10), (0, 2), (6, 2)),
}
STAGES = [(2, 1), (2, 3), (3, 5), (4, 7)]  # of those, with so many patches
WARMUP_STEPS, STEPS = 1, 4


def steps(model: HunyuanVideoTransformer, name: str, seed: int = 1, branches: int = 1) -> list[Tensor]:
    """Velocities of the steps of a short video, as its latents and noise levels change; of several branches, all of each step."""
    shape, clean_frames, lengths = CASES[name]
    draw = torch.Generator().manual_seed(seed)
    batch, longest = len(lengths), max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    conditions = []
    for branch in range(branches):
        states, pooled = torch.randn(batch, longest, 24, generator=draw), torch.randn(batch, 20, generator=draw)
        conditions.append(replace(model.condition(states, mask, pooled, torch.full((batch,), 6000.0)), branch=branch))
    x = torch.randn(shape, generator=draw)
    out = []
    with torch.no_grad():
        for step in range(STEPS):
            of_step = [model(x, torch.full((batch,), 900.0 - 200 * step), condition, clean_frames) for condition in conditions]
            x = x - 0.2 * sum(of_step)
            out += of_step
    return out


class Old:
    """A block's attention over all tokens at once, in which the queries of a patch see the last call's keys and values of later patches."""

    def __init__(self, patches: int, num_txt: int, warmup_steps: int):
        self.patches, self.num_txt, self.warmup_steps = patches, num_txt, warmup_steps
        self.last: list[Tensor] = []
        self.calls = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        self.calls += 1
        if self.calls <= self.warmup_steps:
            self.last = [k, v]
            return sdpa(q, k, v, mask)
        sizes = shares(k.shape[1] - self.num_txt, self.patches)
        out = torch.empty_like(q)
        for number, end in enumerate(torch.tensor(sizes).cumsum(0).tolist()):
            rows = list(range(end - sizes[number], end)) + (list(range(sum(sizes), k.shape[1])) if number == 0 else [])
            pairs = zip((k, v), self.last, strict=True)
            seen = [torch.cat([new[:, :end], old[:, end : sum(sizes)], new[:, sum(sizes) :]], dim=1) for new, old in pairs]
            out[:, rows] = sdpa(q[:, rows], *seen, mask)
        self.last = [k, v]
        return out


def by_hand(model: HunyuanVideoTransformer, patches: int, num_txt: int, warmup_steps: int = WARMUP_STEPS) -> HunyuanVideoTransformer:
    """The same in one piece."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.attention = Old(patches, num_txt, warmup_steps)
    return model


def seven() -> HunyuanVideoTransformer:
    return randomize(HunyuanVideoTransformer(SEVEN), std=0.2)


def video(stages: int) -> Tensor:
    """What the pipeline makes of the embedded weights, with two branches of guidance."""
    runtime = Runtime(device="cpu", attention="sdpa", pipefusion_patches=5, pipefusion_stages=stages, warmup_steps=WARMUP_STEPS)
    sampling = Sampling(height=64, width=96, num_frames=9, num_steps=STEPS, cfg_scale=3.0, seed=0)
    return HunyuanVideo.load(runtime=runtime, sampling=sampling)("A boat moves right on the sea", sampling).latents


def apart(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of any step, beside its largest number."""
    return max(((x - y).abs().max() / y.abs().max()).item() for x, y in zip(found, expected, strict=True))


def work(rank: int, world_size: int, folder: Path) -> None:
    """All claims on one rank; its results go to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size, timeout=timedelta(seconds=120))
    results: dict[str, Any] = {}
    for stages, patches in STAGES:
        group = dist.new_subgroups_by_enumeration([list(range(stages))])[0]
        if rank >= stages:
            continue
        alone, spread = seven(), seven()
        spread_blocks(spread, group)
        results[f"blocks {stages}"] = [not isinstance(block, Elsewhere) for block in spread.blocks]
        results[f"bytes {stages}"] = sum(parameter.nbytes for block in spread.blocks for parameter in block.parameters())
        assert isinstance(spread.predict, Line)
        results[f"exact {stages}"] = apart(steps(spread, "clean"), steps(alone, "clean"))
        for name in CASES:
            with one_step_old(alone, patches, WARMUP_STEPS):
                expected = steps(alone, name, branches=2)
            with one_step_old(spread, patches, WARMUP_STEPS), Sent() as sent:
                found = steps(spread, name, branches=2)
            results[f"{name} {stages}"] = apart(found, expected)
            results[f"sent {name} {stages}"] = sent.bytes
    results["latents"] = video(stages=2)
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


class Sent:
    """Counts bytes that this rank sends to another, inside."""

    def __enter__(self) -> Sent:
        self.bytes, self._isend = 0, pipefusion.dist.isend
        pipefusion.dist.isend = self._count
        return self

    def __exit__(self, *_: object) -> None:
        pipefusion.dist.isend = self._isend

    def _count(self, x: Tensor, **where: Any) -> Any:
        self.bytes += x.nbytes
        return self._isend(x, **where)
