"""What each rank of the step caches' tests does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hunyuan_video.config import Runtime, Sampling, StepCache
from hunyuan_video.distributed.world import CPU, Degrees, world_of_group
from hunyuan_video.pipeline import HunyuanVideo, Step
from hunyuan_video.transforms.step_cache import Turns

KINDS: tuple[StepCache, ...] = ("drift", "taylor", "first-block")
THRESHOLDS = {"drift": 0.4, "taylor": 2.0, "first-block": 0.5}  # with random weights, between all and as many as may be
STEPS = 9
SMALL = Sampling(height=32, width=48, num_frames=5, num_steps=STEPS, seed=7)
GUIDED = replace(SMALL, cfg_scale=3.0)


def with_cache(pipe: HunyuanVideo, kind: StepCache, threshold: float | None = None) -> HunyuanVideo:
    """The same models with a cache."""
    runtime = replace(pipe.runtime, step_cache=kind, cache_threshold=threshold)
    return HunyuanVideo(pipe.text_encoder, pipe.transformer, pipe.vae, world=pipe.world, runtime=runtime, origin=pipe.origin)


def denoised(pipe: HunyuanVideo, kind: StepCache, sampling: Sampling = SMALL) -> Step:
    """The last step of denoising, with a threshold at which some steps are left out."""
    steps = with_cache(pipe, kind, THRESHOLDS[kind]).steps("A cat.", sampling)
    return next(step for step in steps if step.stage == "denoise" and step.step == step.total)


def work(rank: int, world_size: int, folder: Path, tree: Path) -> None:
    """All claims on one rank; its results go to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size, timeout=timedelta(seconds=120))
    runtime, results = Runtime(device="cpu", attention="sdpa"), dict[str, Any]()
    shared = HunyuanVideo.load(tree, runtime, SMALL)
    assert shared.world.sequence is not None
    for kind in KINDS:
        last = denoised(shared, kind)
        results[kind] = last.computed, last.latents
    sharded = HunyuanVideo.load(tree, replace(runtime, shard=True), SMALL)
    results["sharded"] = denoised(sharded, "first-block").latents
    halves = HunyuanVideo.load(tree, runtime, GUIDED)
    assert halves.world.across is not None
    results["halves"] = [denoised(halves, kind, GUIDED).latents for kind in KINDS]
    turns = Turns(num_steps=9, threshold=0.2, total=world_of_group(CPU, Degrees(world_size)).total, step=5)
    part = torch.tensor([0.19 if rank == 0 else 0.22])  # one alone would leave the step out, and the other not
    results["decision"] = turns.leaves_out(partial(turns.share, part, torch.ones(1)))
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
