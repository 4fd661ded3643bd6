"""Latents seen without the VAE."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hunyuan_video import HunyuanVideo, previews
from hunyuan_video.video import to_frames, to_tensor


@pytest.fixture(scope="module")
def pipe() -> HunyuanVideo:
    return HunyuanVideo.load()


def test_a_vae_that_is_a_sum_is_found_exactly():
    mix = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))

    def encode(frames):
        x = to_tensor(frames)
        first, rest = F.avg_pool3d(x[None, :, :1], (1, 8, 8)), F.avg_pool3d(x[None, :, 1:], (4, 8, 8))
        return torch.einsum("cr,brthw->bcthw", mix, torch.cat([first, rest], dim=2)) + 0.5

    preview = previews.fit(encode)
    colours = torch.rand(1, 3, 5, 4, 4) * 2 - 1
    expected = to_frames(colours[0])
    seen = preview(torch.einsum("cr,brthw->bcthw", mix, colours) + 0.5)
    assert np.abs(seen.astype(int) - expected).max() <= 1


def test_the_embedded_models_videos_are_seen_in_their_colours(pipe):
    preview = previews.fit(pipe.encode)
    video = pipe("a red ball bounces", num_frames=9, num_steps=4, seed=1)
    seen = preview(video.latents).astype(float)
    x = torch.from_numpy(video.frames).permute(3, 0, 1, 2).float()
    first, rest = F.avg_pool3d(x[None, :, :1], (1, 8, 8)), F.avg_pool3d(x[None, :, 1:], (4, 8, 8))
    expected = torch.cat([first, rest], dim=2)[0].permute(1, 2, 3, 0).numpy()
    left_over = np.square(seen - expected).mean() / np.square(expected - expected.mean(axis=(0, 1, 2))).mean()
    assert left_over < 0.1  # 0.01 for most clips


def test_each_step_estimates_what_comes_out_and_the_last_one_knows_it(pipe):
    steps = [step for step in pipe.steps("a red ball bounces", num_frames=5, num_steps=6, seed=1) if step.stage == "denoise"]
    final = steps[-1].latents
    errors = [float((step.estimate - final).square().mean()) for step in steps]
    noises = [float((step.latents - final).square().mean()) for step in steps]
    assert errors[-1] == 0 and all(error < noise for error, noise in zip(errors[:-1], noises[:-1], strict=True))
