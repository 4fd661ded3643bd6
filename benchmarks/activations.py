"""Memory of one step of the released 13B at 129x720x1280 beside its weights, counted on the meta device (`bench.py a4`)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from rows import Row

from hunyuan_video import plan
from hunyuan_video.assembly import Models, assemble
from hunyuan_video.config import Runtime
from hunyuan_video.distributed.cost import Step
from hunyuan_video.distributed.world import World
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import VAEConfig


def a4(repeats: int, device: torch.device) -> Iterator[Row]:
    """The same on every machine, and every time."""
    with plan.META:
        model = HunyuanVideoTransformer().to(torch.bfloat16).requires_grad_(False)
    assemble(Models(model), Runtime(attention="sdpa"), World(plan.META))
    shape = VAEConfig().latent_shape(129, 720, 1280)
    done = plan.count(model, lambda: plan.denoise(model, shape))
    detail = {"petaflop": Step(math.prod(model.config.grid(shape))).work(0).total / 1e15}
    yield Row("a4", "129x720x1280, bfloat16", "memory of a step beside weights, counted", done.most / 2**30, "GiB", {}, detail)
