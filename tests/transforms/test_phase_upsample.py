"""Upsampling by phases gives what enlarging and convolving gives."""

from __future__ import annotations

import pytest
import torch
from conftest import randomize
from tiny_checkpoint import VAE as TINY

from hunyuan_video.models.vae import CausalVAE, Upsample
from hunyuan_video.transforms.phase_upsample import PhaseUpsample, upsample_by_phases


@pytest.mark.parametrize("past", [0, 1, 2])
@pytest.mark.parametrize("time", [1, 2])
@torch.no_grad()
def test_a_layer_by_phases_equals_the_layer(time, past):
    layer = randomize(Upsample(3, (time, 2)))
    past = min(past, layer.lookback)
    x = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(PhaseUpsample(layer)(x, past), layer(x, past), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 5])
@torch.no_grad()
def test_a_decoder_by_phases_equals_the_decoder(frames):
    vae = randomize(CausalVAE(TINY), std=0.2)
    latents = torch.randn(1, 4, frames, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = vae.decode(latents)
    upsample_by_phases(vae)
    assert not any(isinstance(module, Upsample) for module in vae.modules())
    torch.testing.assert_close(vae.decode(latents), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_golden_still_holds(golden, reference):
    upsample_by_phases(reference)
    golden("vae").check(reference.decode(golden("vae")["in.dec0"]), "out.dec0")
