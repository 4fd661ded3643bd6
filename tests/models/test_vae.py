"""The causal VAE: official names, the reference's numbers, and the pieces that were written differently from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import manifest, randomize
from diffusers_peer import vae_peer
from torch import nn
from torch.utils.checkpoint import checkpoint

from hunyuan_video.models.vae import CausalAttention, CausalConv3d, CausalVAE, Posterior, ResBlock, Upsample, VAEConfig


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- Names and goldens ---


def test_default_config_has_the_released_checkpoints_names_and_shapes():
    with torch.device("meta"):
        vae = CausalVAE()
    assert {name: list(tensor.shape) for name, tensor in vae.state_dict().items()} == manifest("vae_884_16c")


def test_config_reads_the_official_json():
    path = Path(__file__).parents[1] / "data" / "manifests" / "vae_884_16c.json"
    values = json.loads(path.read_text())["_meta"]["config"]
    assert VAEConfig.from_json({"_class_name": "AutoencoderKLCausal3D", **values}) == VAEConfig()


@pytest.mark.parametrize("case", ["enc0", "enc1"])
def test_encode_matches_the_reference(golden, reference: CausalVAE, case: str):
    expected = golden("vae")
    posterior = reference.encode(expected[f"in.{case}"])
    expected.check(posterior.mean, f"out.{case}_mean")
    expected.check(posterior.logvar, f"out.{case}_logvar")


@pytest.mark.parametrize("case", ["dec0", "dec1"])
def test_decode_matches_the_reference(golden, reference: CausalVAE, case: str):
    expected = golden("vae")
    expected.check(reference.decode(expected[f"in.{case}"]), f"out.{case}")


# --- Diffusers ---


def test_encode_equals_diffusers(vae: CausalVAE):
    x = random(2, 3, 9, 24, 16)
    expected = vae_peer(vae).encode(x).latent_dist
    posterior = vae.encode(x)
    torch.testing.assert_close(posterior.mean, expected.mean, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(posterior.logvar, expected.logvar, atol=2e-5, rtol=1e-4)


def test_decode_equals_diffusers(vae: CausalVAE):
    latents = random(2, 4, 4, 3, 2)
    torch.testing.assert_close(vae.decode(latents), vae_peer(vae).decode(latents).sample, atol=2e-5, rtol=1e-4)


def test_decode_of_a_single_frame_equals_diffusers(vae: CausalVAE):
    latents = random(1, 4, 1, 3, 2)
    torch.testing.assert_close(vae.decode(latents), vae_peer(vae).decode(latents).sample, atol=2e-5, rtol=1e-4)


# --- Causality ---


def test_attention_frame_by_frame_equals_a_dense_mask():
    attention = randomize(CausalAttention(8, 2))
    x = random(2, 8, 3, 2, 4)
    normed = nn.functional.group_norm(x, 2, attention.group_norm.weight, attention.group_norm.bias, 1e-6)
    tokens = normed.flatten(2).transpose(1, 2)
    frame = torch.arange(3).repeat_interleave(2 * 4)
    scores = attention.to_q(tokens) @ attention.to_k(tokens).transpose(1, 2) / 8**0.5
    scores = scores.masked_fill(frame[:, None] < frame[None, :], float("-inf"))
    expected = x + attention.to_out[0](scores.softmax(-1) @ attention.to_v(tokens)).transpose(1, 2).view_as(x)
    torch.testing.assert_close(attention(x), expected)


def test_convolution_sees_no_later_frame():
    conv = CausalConv3d(2, 2)
    x = random(1, 2, 5, 4, 4)
    before = conv(x)
    x[:, :, 3:] += 1
    after = conv(x)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 3:], after[:, :, 3:])


@pytest.mark.parametrize("past", [1, 2])
def test_convolution_goes_on_behind_frames_of_its_past(past: int):
    conv = CausalConv3d(2, 3)
    x = random(2, 2, 5, 4, 4)
    torch.testing.assert_close(conv(x[:, :, : past + 2], past), conv(x)[:, :, past : past + 2])


@pytest.mark.parametrize(("time", "past"), [(1, 1), (1, 2), (2, 1)])
def test_enlarging_goes_on_behind_frames_of_its_past(time: int, past: int):
    layer = Upsample(2, (time, 2))
    x = random(2, 2, past + 3, 4, 4)
    torch.testing.assert_close(layer(x, past), layer(x)[:, :, -3 * time :])


# --- Posterior ---


def test_log_variance_is_clamped():
    posterior = Posterior.from_moments(torch.tensor([0.0, -99.0, 0.0, 99.0]).view(1, 4, 1, 1, 1)[:, [0, 2, 1, 3]])
    assert posterior.logvar.flatten().tolist() == [-30.0, 20.0]


def test_sample_has_the_posteriors_deviation():
    shape = (1, 1, 1, 100, 100)
    posterior = Posterior(torch.full(shape, 3.0), torch.full(shape, 2.0).log() * 2)
    sample = posterior.sample(torch.Generator().manual_seed(0))
    assert sample.mean().item() == pytest.approx(3.0, abs=0.1)
    assert sample.std().item() == pytest.approx(2.0, abs=0.1)


def test_sample_is_repeatable():
    posterior = Posterior(torch.zeros(1, 4, 1, 2, 2), torch.zeros(1, 4, 1, 2, 2))
    first, second = (posterior.sample(torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)


# --- Mistakes ---


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((1, 3, 8, 16, 16), r"frames must be 4n \+ 1; got 8: cut it to 5"),
        ((1, 3, 5, 20, 16), "multiples of 8; got 20x16"),
        ((1, 4, 5, 16, 16), r"pixels \[B, 3, F, H, W\]"),
    ],
)
def test_pixels_that_cannot_be_encoded_are_refused(vae: CausalVAE, shape: tuple[int, ...], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        vae.encode(torch.zeros(shape))


def test_latents_with_other_channels_are_refused(vae: CausalVAE):
    with pytest.raises(ValueError, match=r"latents \[B, 4, T, H, W\]"):
        vae.decode(torch.zeros(1, 16, 1, 2, 2))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"norm_num_groups": 7}, "norm_num_groups=7"),
        ({"spatial_compression_ratio": 16}, "must be 8, not 16, with 4 blocks"),
        ({"time_compression_ratio": 3}, "power of two"),
        ({"act_fn": "relu"}, "act_fn='relu'"),
        ({"down_block_types": ["DownEncoderBlockCausal3D"]}, "names 1 blocks"),
        ({"layers_per_block": 0}, "must be positive"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        VAEConfig.from_json(change)


def test_activation_checkpointing_gives_the_same_gradients():
    block = randomize(ResBlock(4, 4, 2)).requires_grad_(True)
    x = random(1, 4, 3, 5, 5)
    block(x).square().sum().backward()
    expected = block.conv1.conv.weight.grad.clone()
    block.zero_grad()
    checkpoint(block, x, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(block.conv1.conv.weight.grad, expected)
