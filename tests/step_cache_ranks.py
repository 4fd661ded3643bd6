"""What each rank of the step caches' tests does."""

from __future__ import annotations

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
THRESHOLDS = {"drift": 0.4, "taylor": 0.4, "first-block": 0.4}
STEPS = 9


def denoised(kind: StepCache, cfg_scale: float = 1.0) -> Step:
    """The last step of denoising a small video of the embedded weights, with a threshold at which some steps are left out."""
    runtime = Runtime(device="cpu", attention="sdpa", step_cache=kind, cache_threshold=THRESHOLDS[kind])
    sampling = Sampling(height=64, width=64, num_frames=5, num_steps=STEPS, cfg_scale=cfg_scale, seed=0)
    pipe = HunyuanVideo.load(runtime=runtime, sampling=sampling)
    *_, last = (step for step in pipe.steps("A boat moves right on the sea", sampling) if step.stage == "denoise")
    return last


def work(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size, timeout=timedelta(seconds=120))
    results: dict[str, Any] = {}
    for kind in KINDS:
        last = denoised(kind)
        results[kind] = last.computed, last.latents
    turns = Turns(num_steps=9, threshold=0.2, total=world_of_group(CPU, Degrees(world_size)).total, step=5)
    part = torch.tensor([0.19 if rank == 0 else 0.22])  # one alone would leave the step out, and the other not
    results["decision"] = turns.leaves_out(partial(turns.share, part, torch.ones(1)))
    results["halves"] = [denoised(kind, cfg_scale=3.0).latents for kind in ("drift", "first-block")]
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
