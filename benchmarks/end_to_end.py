"""Whole videos by both pipelines: a mid-sized transformer, all channels of the VAE, 17x128x128, 8 steps (`bench.py c1`); a miniature from
a cold start (`c3`); and a step of the 13B from its file (`c2`).

Text is given to both, for the encoders are the same library's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import large_on_cpu
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline
from diffusers_peer import transformer_peer, vae_peer
from dit_step import MID, REAL_TOKENS
from measure import Spread, randomize, take_turns
from rows import Row

from hunyuan_video.assembly import Models, assemble
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.distributed.world import World
from hunyuan_video.models.text import TextEncoder, TextFeatures
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.sampling import initial_noise

VAE = VAEConfig()
SAMPLING = FullSampling(height=128, width=128, num_frames=17, num_steps=8, seed=1)
RUNTIME = Runtime(vae_tiling=False)
NEAR = 1e-3  # of latents, whose deviation is about 1
COLD = (
    "import time; from hunyuan_video import cli, memory; "
    "assert cli.main(['generate', 'A cat walks on the grass, realistic style.', '--seed', '1']) == 0; "
    "print(time.process_time(), memory.most_taken())"
)


class Given(TextEncoder):
    """Knows one prompt's features, whatever the prompt."""

    def __init__(self, features: TextFeatures):
        torch.nn.Module.__init__(self)
        self.features = features

    def encode(self, prompts: list[str], kind: str = "video") -> TextFeatures:
        return self.features


def both(dtype: torch.dtype, device: torch.device) -> tuple[HunyuanVideo, HunyuanVideoPipeline, TextFeatures]:
    """Our pipeline, Diffusers', and the text that both are given."""
    transformer, vae = randomize(HunyuanVideoTransformer(MID), std=0.02), randomize(CausalVAE(VAE), std=0.02)
    peers = transformer_peer(transformer), vae_peer(vae)
    for model in (transformer, vae, *peers):
        torch.nn.Module.to(model, device=device, dtype=dtype)
    draw = torch.Generator().manual_seed(1)
    states, pooled = (torch.randn(1, *shape, generator=draw) for shape in ((REAL_TOKENS, MID.text_dim), (MID.pooled_dim,)))
    text = TextFeatures(states, torch.ones(1, REAL_TOKENS, dtype=torch.bool), pooled).to(device, dtype)
    assemble(Models(transformer, vae=vae), RUNTIME, World(device))
    theirs = HunyuanVideoPipeline(
        *(None, None, peers[0], peers[1], FlowMatchEulerDiscreteScheduler(shift=SAMPLING.shift), None, None)  # pyright: ignore
    )
    theirs.set_progress_bar_config(disable=True)
    return HunyuanVideo(Given(text), transformer, vae, device=device, runtime=RUNTIME), theirs, text


def by_diffusers(pipe: HunyuanVideoPipeline, text: TextFeatures, output: str) -> torch.Tensor | np.ndarray:
    shape = VAE.latent_shape(SAMPLING.num_frames, SAMPLING.height, SAMPLING.width)
    return pipe(
        prompt_embeds=text.states,
        pooled_prompt_embeds=text.pooled,
        prompt_attention_mask=text.mask,
        height=SAMPLING.height,
        width=SAMPLING.width,
        num_frames=SAMPLING.num_frames,
        num_inference_steps=SAMPLING.num_steps,
        guidance_scale=SAMPLING.guidance or 0.0,
        latents=initial_noise(shape, SAMPLING.seed).to(text.states.device),
        output_type=output,
        return_dict=False,
    )[0]


def denoised(pipe: HunyuanVideo) -> torch.Tensor:
    """The final latents, which are not decoded."""
    *_, last = islice(pipe.steps("given", SAMPLING), 1 + SAMPLING.num_steps)  # text, and each step
    assert last.latents is not None
    return last.latents


@torch.no_grad()
def c1(repeats: int, device: torch.device) -> Iterator[Row]:
    """Latents in float32, and time in bfloat16."""
    ours, theirs, text = both(torch.float32, device)
    mine, other = denoised(ours).cpu(), torch.as_tensor(by_diffusers(theirs, text, "latent")).float().cpu()
    near = ((mine - other).abs() <= NEAR * (1 + other.abs())).float().mean().item()
    yield Row("c1", "17x128x128, 8 steps, float32", "latents within a thousandth of Diffusers'", 100 * near, "%")
    assert near > 0.99, f"only {near:.1%} of the latents agree: their times cannot be compared"
    ours, theirs, text = both(torch.bfloat16, device)
    calls = {"ours": lambda: ours("given", SAMPLING), "theirs": lambda: by_diffusers(theirs, text, "np")}
    calls["ours"]()  # which chooses its kernels
    seconds = take_turns(calls, device, repeats)
    ratio = seconds["theirs"].median / seconds["ours"].median
    yield Row("c1", "17x128x128, 8 steps, bfloat16", "a video of a mid-sized model, beside Diffusers", ratio, "×", seconds)


def c2(repeats: int, device: torch.device, folder: Path) -> Iterator[Row]:
    """A step of the 13B, read ahead. Its file of 26 GB is written into `folder` first, if it is not there."""
    path = large_on_cpu.write(folder, in_8_bits=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)  # the disk and all cores work together here
    taken = list(large_on_cpu.measure(path, (9, 64, 64), ahead=True, steps=2))
    torch.set_num_threads(threads)
    steps = Spread.of([each.seconds for each in taken[1:]])
    yield Row("c2", "9x64x64, bfloat16", "a step of the 13B from its file, wall", steps.median, "s", {"ours": steps})
    yield Row("c2", "9x64x64, bfloat16, memory", "of a step of the 13B in no file", max(each.own for each in taken) / 1e9, "GB")


def c3(repeats: int, device: torch.device) -> Iterator[Row]:
    """The command in a new process: importing, loading, encoding, 20 steps, decoding, writing."""
    found = []
    for _ in range(min(repeats, 3)):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", COLD]
            said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, encoding="utf-8").stdout
        found.append([float(word) for word in said.split()[-2:]])
    seconds = Spread.of([each[0] for each in found])
    peak = {"peak_mib": max(each[1] for each in found) / 2**20}
    yield Row("c3", "the embedded model's video", "of compute from a cold start", seconds.median, "s", {"ours": seconds}, peak)
