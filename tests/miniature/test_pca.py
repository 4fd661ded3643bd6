"""The linear latents of the miniature, and the causal encoder that is constructed to equal them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from einops import rearrange

from hunyuan_video.miniature import drawing, pca, world
from hunyuan_video.miniature.vae import MINIATURE
from hunyuan_video.models.vae import CausalVAE, VAEConfig


def render(seeds: range, split: world.Split = "train", num_frames: int = 9) -> torch.Tensor:
    scenes = [world.sample_scene(seed, split) for seed in seeds]
    return torch.stack([torch.from_numpy(drawing.render(scene, 32, 32, num_frames)) for scene in scenes])


@pytest.fixture(scope="module")
def basis() -> pca.PcaBasis:
    return pca.fit(render(range(40)))


@pytest.fixture(scope="module")
def built(basis: pca.PcaBasis) -> CausalVAE:
    vae = CausalVAE(MINIATURE)
    pca.build_encoder(vae, basis)
    return vae.requires_grad_(False)


def test_latents_have_the_vaes_shape(basis: pca.PcaBasis):
    assert pca.encode(basis, render(range(2))).shape == (2, 16, 3, 4, 4)


def test_latents_have_unit_size(basis: pca.PcaBasis):
    latents = pca.encode(basis, render(range(100, 120)))
    assert latents.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.15)


def test_unseen_clips_survive_the_projection(basis: pca.PcaBasis):
    clips = render(range(4), "held_out")
    error = pca.decode(basis, pca.encode(basis, clips)) - pca.to_pixels(clips)
    assert (error / 2).square().mean() < 10**-2.2  # 22 dB; at the miniature's own size it is 28


def test_projection_of_a_projection_changes_nothing(basis: pca.PcaBasis):
    latents = torch.randn(1, 16, 1, 2, 2, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, dim=2)
    blocks = pca.decode(basis, latents)[:, :, 1:]  # without the first frame, which is an average
    values = rearrange(blocks, "N C (T t) (H h) (W w) -> N T H W (t h w C)", t=4, h=8, w=8)
    again = (values - basis.mean) @ basis.components * basis.gains
    torch.testing.assert_close(rearrange(again, "N T H W L -> N L T H W"), latents[:, :, 1:], atol=1e-4, rtol=1e-4)


def test_a_still_clip_has_one_code(basis: pca.PcaBasis):
    clip = render(range(1), num_frames=1).expand(1, 9, 32, 32, 3)
    latents = pca.encode(basis, clip)
    torch.testing.assert_close(latents[:, :, 1:], latents[:, :, :1].expand(-1, -1, 2, -1, -1), atol=1e-5, rtol=1e-5)


def test_first_latent_knows_only_the_first_frame(basis: pca.PcaBasis):
    clips = render(range(2))
    torch.testing.assert_close(pca.encode(basis, clips)[:, :, :1], pca.encode(basis, clips[:, :1]))


def test_constructed_encoder_equals_the_projection(basis: pca.PcaBasis, built: CausalVAE):
    clips = render(range(4), "held_out")
    expected = pca.encode(basis, clips)
    error = built.encode(pca.to_pixels(clips)).mode() - expected
    assert error.square().mean() < 2e-4 * expected.var()


def test_constructed_encoder_is_exact_enough_in_bfloat16(basis: pca.PcaBasis, built: CausalVAE):
    clips = render(range(2), "held_out")
    expected = pca.encode(basis, clips)
    half = CausalVAE(MINIATURE).bfloat16()
    half.load_state_dict(built.state_dict())
    with torch.no_grad():
        error = half.encode(pca.to_pixels(clips).bfloat16()).mode().float() - expected
    assert error.square().mean() < 5e-4 * expected.var()


def test_constructed_encoder_is_nearly_certain(built: CausalVAE):
    posterior = built.encode(pca.to_pixels(render(range(1))))
    assert torch.equal(posterior.logvar, torch.full_like(posterior.logvar, pca.LOG_VARIANCE))


def test_basis_survives_its_file(basis: pca.PcaBasis, tmp_path: Path):
    basis.save(tmp_path / "pca.safetensors")
    loaded = pca.PcaBasis.load(tmp_path / "pca.safetensors")
    assert all(torch.equal(getattr(loaded, name), getattr(basis, name)) for name in ("mean", "components", "gains"))


def test_other_architectures_are_refused(basis: pca.PcaBasis):
    with pytest.raises(ValueError, match=r"block_out_channels \(16, 32, 64, 64\)"):
        pca.build_encoder(CausalVAE(VAEConfig(block_out_channels=(16, 16, 32, 32), layers_per_block=1, norm_num_groups=4)), basis)
