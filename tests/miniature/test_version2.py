"""What the recipe of version 2 starts from: each step changes what can be trained, and not what is computed."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, randomize
from safetensors.torch import save_file

from hunyuan_video.checkpoint import load_transformer, load_vae
from hunyuan_video.checkpoint.convert import official_vae_json
from hunyuan_video.miniature import drawing, pca, world
from hunyuan_video.miniature.vae import MINIATURE
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.training.vae_clips import to_pixels


def recipe(name: str) -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).parents[2] / "recipes/tiny" / name))


unguided, awake, basis_of = recipe("unguided.py")["unguided"], recipe("awake.py")["awake"], recipe("basis.py")["basis_of"]


@torch.no_grad()
def test_without_its_guidance_embedding_a_model_is_what_it_was_at_the_scale_1(tmp_path: Path):
    model = randomize(HunyuanVideoTransformer(TINY), std=0.15)
    save_file(model.state_dict(), tmp_path / "guided.safetensors")
    unguided(tmp_path / "guided.safetensors", tmp_path / "plain.safetensors")
    plain = load_transformer(tmp_path / "plain.safetensors", torch.float32, torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)
    x, states, pooled = (torch.randn(shape, generator=draw) for shape in ((1, 4, 3, 4, 4), (1, 5, TINY.text_dim), (1, TINY.pooled_dim)))
    mask, t = torch.ones(1, 5, dtype=torch.bool), torch.full((1,), 600.0)
    expected = model(x, t, model.condition(states, mask, pooled, torch.full((1,), 1000.0)))
    torch.testing.assert_close(plain(x, t, plain.condition(states, mask, pooled)), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(SystemExit, match="has no guidance embedding"):
        unguided(tmp_path / "plain.safetensors", tmp_path / "again.safetensors")


CLIP = torch.from_numpy(drawing.render(world.sample_scene(9, "train"), 32, 32, 9))[None]


@pytest.fixture(scope="module")
def basis() -> pca.PcaBasis:
    scenes = [world.sample_scene(seed, "train") for seed in range(8)]
    return pca.fit(torch.stack([torch.from_numpy(drawing.render(scene, 32, 32, 5)) for scene in scenes]))


@pytest.fixture(scope="module")
def constructed(basis: pca.PcaBasis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a VAE whose encoder is the projection."""
    vae = CausalVAE(MINIATURE)
    pca.build_encoder(vae, basis)
    return saved(vae, tmp_path_factory.mktemp("vae"))


def saved(vae: CausalVAE, folder: Path) -> Path:
    save_file(vae.state_dict(), folder / "pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(official_vae_json(vae.config)))
    return folder


def loaded(folder: Path) -> CausalVAE:
    return load_vae(folder, torch.float32, torch.device("cpu"))


@torch.no_grad()
def test_the_projection_is_read_off_a_constructed_encoder(basis: pca.PcaBasis, constructed: Path):
    found, expected = (pca.encode(each, CLIP) for each in (basis_of(constructed), basis))
    assert (found - expected).square().mean() < 0.01**2 * expected.square().mean()


@torch.no_grad()
def test_an_encoder_that_is_no_projection_is_refused(constructed: Path, tmp_path: Path):
    vae = loaded(constructed)
    vae.encoder.mid_block.resnets[0].conv2.conv.weight.normal_(0, 0.1)
    with pytest.raises(SystemExit, match="is no constructed encoder"):
        basis_of(saved(vae, tmp_path))


def test_an_awake_encoder_computes_what_it_did_and_can_learn(constructed: Path, tmp_path: Path):
    awake(constructed, tmp_path)
    before, after = loaded(constructed), loaded(tmp_path).requires_grad_(True)
    latents = after.encode(to_pixels(CLIP)).mean
    torch.testing.assert_close(latents, before.encode(to_pixels(CLIP)).mean)
    latents.square().mean().backward()
    assert after.encoder.conv_in.conv.weight.flatten(1).any(dim=1).all()
    constants = ~after.encoder.conv_out.conv.weight[:16].any(dim=(0, 2, 3, 4))
    gradient = after.encoder.conv_out.conv.weight.grad
    assert gradient is not None and constants.sum() == 32 and not gradient[:, constants].any() and gradient[:, ~constants].any()
