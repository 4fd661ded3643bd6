"""What presets leave out, and whether time follows (`bench.py g`): a mid-sized model of random weights, whose decisions mean nothing, but
whose operations and seconds do. What a preset does to a video, `hunyuan-video bench quality` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from dit_step import MID, REAL_TOKENS
from end_to_end import Given
from measure import Spread, randomize
from rows import Row

from hunyuan_video.assembly import Models, assemble
from hunyuan_video.config import SPEEDS, FullSampling, Runtime
from hunyuan_video.distributed.world import World
from hunyuan_video.evaluation.quality import make
from hunyuan_video.models.text import TextFeatures
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.sampling import initial_noise
from hunyuan_video.transforms.ahead import ahead
from hunyuan_video.transforms.offload import on_device

SAMPLING = FullSampling(height=256, width=256, num_frames=17, num_steps=30, seed=1)  # 1,280 image tokens
SMALL_VAE = VAEConfig(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4)
ROUNDS = 3
SAVES = 1.05  # times as many operations; of less, time tells nothing


def pipelines(dtype: torch.dtype, device: torch.device) -> dict[str, HunyuanVideo]:
    """One for each preset, with the same models."""
    transformer = randomize(HunyuanVideoTransformer(MID), std=0.02).to(device, dtype)
    vae = randomize(CausalVAE(SMALL_VAE), std=0.02).to(device, dtype)
    draw = torch.Generator().manual_seed(1)
    states, pooled = (torch.randn(1, *shape, generator=draw) for shape in ((REAL_TOKENS, MID.text_dim), (MID.pooled_dim,)))
    text = Given(TextFeatures(states, torch.ones(1, REAL_TOKENS, dtype=torch.bool), pooled))
    runtimes = [Runtime(speed=speed) for speed in SPEEDS]
    exact = runtimes[0]
    streamed = assemble(Models(transformer, vae=vae), exact, World(device))
    return {
        runtime.speed: HunyuanVideo(text, transformer, vae, device=device, runtime=runtime, streamed=streamed)
        for runtime in runtimes
        if runtime is exact or replace(runtime, speed="exact") != exact
    }


@torch.no_grad()
def by_hand(pipe: HunyuanVideo) -> torch.Tensor:
    """The final latents by the model alone, and the formula of a step. Modulations of all steps are one product, as in the pipeline, for
    one at a time they are rounded otherwise."""
    model = pipe.transformer
    text = pipe.encode_text(["given"], SAMPLING)
    guidance = torch.full((1,), SAMPLING.guidance or 0.0, device=pipe.device, dtype=pipe.dtype) * 1000
    x = initial_noise(pipe.vae.config.latent_shape(SAMPLING.num_frames, SAMPLING.height, SAMPLING.width), SAMPLING.seed).to(pipe.device)
    sigmas = pipe.sigmas(SAMPLING)
    t = {sigma: torch.full((1,), sigma, device=pipe.device) * 1000 for sigma in sorted(sigmas[:-1])}
    with ahead(model, list(t.values()), (), lambda module: on_device(module, pipe.device)) as prepare:
        condition = prepare(0, text.states, text.mask, text.pooled, guidance)
        for sigma, next_sigma in pairwise(sigmas):
            x = x + (next_sigma - sigma) * model(x, t[sigma], condition).float()
    return x


def g(repeats: int, device: torch.device) -> Iterator[Row]:
    pipes = pipelines(torch.bfloat16, device)
    exact = pipes["exact"]
    latents = exact("given", SAMPLING).latents
    same = (latents == by_hand(exact)).float().mean().item()
    yield Row("g", "exact", "latents that are bit for bit those of the model and the formula of a step", 100 * same, "%")
    made = [{speed: make(pipe, "given", SAMPLING) for speed, pipe in pipes.items()} for _ in range(min(repeats, ROUNDS))]
    for speed in list(pipes)[1:]:
        seconds = {name: Spread.of([turn[name].denoise_seconds for turn in made]) for name in ("exact", speed)}
        done, all_of = made[0][speed].computed, made[0]["exact"].computed
        saved, faster = all_of.operations / done.operations, seconds["exact"].median / seconds[speed].median
        if saved < SAVES:
            continue
        detail = {"passes": done.passes, "of": all_of.passes, "density": done.density, "operations": 1 / saved, "faster": faster}
        yield Row("g", speed, "realised speed, of what its operations save", 100 * faster / saved, "%", seconds, detail)
