"""Upsampling by phases gives what enlarging and convolving gives."""

from __future__ import annotations

import pytest
import torch
from conftest import randomize

from hunyuan_video.models import vae as vae_module
from hunyuan_video.models.vae import CausalVAE, Upsample, VAEConfig
from hunyuan_video.transforms.phase_upsample import PhaseUpsample, upsample_by_phases

TINY = VAEConfig(block_out_channels=(4, 4, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=2)


@pytest.mark.parametrize("chunk_size", [2**22, 1], ids=["whole", "one frame a chunk"])
@pytest.mark.parametrize("time", [1, 2])
@torch.no_grad()
def test_a_layer_by_phases_equals_the_layer(monkeypatch, chunk_size, time):
    monkeypatch.setitem(vae_module.CHUNK_SIZE, "cpu", chunk_size)
    layer = randomize(Upsample(3, (time, 2)))
    x = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.cat(layer([x.clone()]), dim=2)
    actual = torch.cat(PhaseUpsample(layer)([x.clone()]), dim=2)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 5])
@torch.no_grad()
def test_a_decoder_by_phases_equals_the_decoder(frames):
    vae = randomize(CausalVAE(TINY), std=0.2)
    latents = torch.randn(1, 4, frames, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = vae.decode(latents.clone())
    upsample_by_phases(vae)
    assert not any(isinstance(module, Upsample) for module in vae.modules())
    torch.testing.assert_close(vae.decode(latents), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_released_decoders_golden_still_holds(golden):
    reference = golden("vae")
    vae = CausalVAE(VAEConfig.from_json(reference.info["config"]))
    vae.load_state_dict(reference.state_dict())
    vae.requires_grad_(False)
    upsample_by_phases(vae)
    reference.check(vae.decode(reference["in.dec0"]), "out.dec0")
