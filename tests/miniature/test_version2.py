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
from hunyuan_video.miniature import drawing, nature, pca, world
from hunyuan_video.miniature.vae import MINIATURE, keep_encoders_trunk
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.training.vae_clips import to_pixels


def recipe(name: str) -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).parents[2] / "recipes/tiny" / name))


unguided, wider, basis_of = recipe("unguided.py")["unguided"], recipe("wider.py")["wider"], recipe("basis.py")["basis_of"]
bound = recipe("linear_bound.py")


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


# --- The wider VAE ---


@pytest.fixture(scope="module")
def widened(basis: pca.PcaBasis, constructed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wider")
    clips = [torch.from_numpy(nature.render(seed, 32, 17))[None] for seed in range(12)]
    wider(constructed, basis, [*clips, CLIP], folder)
    return folder


@torch.no_grad()
def test_a_wider_vae_computes_what_it_did(basis: pca.PcaBasis, constructed: Path, widened: Path):
    before, after = loaded(constructed), loaded(widened)
    latents = after.encode(to_pixels(CLIP)).mean
    expected = pca.encode(basis, CLIP)
    assert (latents - expected).square().mean() < 0.01**2 * expected.square().mean()
    torch.testing.assert_close(after.decode(expected), before.decode(expected), atol=1e-5, rtol=1e-5)


def test_what_is_beside_a_wider_encoders_trunk_sees_all_at_one_scale(widened: Path):
    encoder = loaded(widened).encoder
    keep_encoders_trunk(encoder)
    learning = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    assert all(name.startswith(("down_blocks.2.resnets", "down_blocks.3.resnets", "mid_block")) for name in learning)
    assert not any("shortcut" in name or "downsamplers" in name for name in learning) and any("to_out" in name for name in learning)
    seen: list[torch.Tensor] = []
    encoder.mid_block.resnets[0].norm1.register_forward_hook(lambda _module, _given, found: seen.append(found.detach()))
    for seed in range(20, 24):
        encoder(to_pixels(torch.from_numpy(nature.render(seed, 32, 17))[None]))
    scale = torch.cat(seen).square().mean(dim=(0, 2, 3, 4)).sqrt().view(4, 32)
    assert scale[:, :4].min() > 0.1 and scale[:, :4].max() < 4  # latents
    assert scale[:, 8:20].min() > 0.1 and scale[:, 8:20].max() < 4  # what else there is
    assert not scale[:, 24:].any()  # constants


def test_a_wider_encoder_learns_to_hold_what_the_projection_does_not(widened: Path):
    """The brightness of each of four flashing frames, of which latents fitted to the drawn world know nothing."""
    encoder = loaded(widened).encoder
    keep_encoders_trunk(encoder)
    optimizer = torch.optim.Adam([parameter for parameter in encoder.parameters() if parameter.requires_grad], lr=1e-4)
    flashes = to_pixels(
        torch.randint(256, (8, 5, 1, 1, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 16, 16, 3)
    )
    errors = []
    for _ in range(30):
        first = encoder(flashes)[:, :1, 1:].mean(dim=(1, 2, 3, 4))
        errors.append((first - flashes[:, 0, 1].mean(dim=(1, 2))).square().mean())
        optimizer.zero_grad()
        errors[-1].backward()
        optimizer.step()
    assert errors[-1] < 0.3 * errors[0]


def test_a_vae_of_other_widths_is_not_widened(basis: pca.PcaBasis, widened: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="only the miniature's"):
        wider(widened, basis, [CLIP], tmp_path)


def test_the_best_linear_decoding_is_better_than_undoing_the_projection(basis: pca.PcaBasis):
    clip = torch.from_numpy(nature.render(1, 96, 17))[None]  # 720 positions for 433 unknowns

    def encode(clip: torch.Tensor) -> torch.Tensor:
        return pca.encode(basis, clip)

    latents, psnr = encode(clip), bound["psnr_of_blocks"]
    undone = (latents[0].movedim(0, -1) / basis.gains) @ basis.components.T + basis.mean
    best = bound["around"](latents) @ bound["fit"](encode, [clip])
    assert psnr(undone, clip) + 0.5 < psnr(best, clip) < psnr(pca.blocks_of(clip)[0], clip) == float("inf")


def test_edges_repeat_and_no_later_latents_are_seen():
    latents = torch.arange(3.0).view(1, 1, 3, 1, 1)
    seen = bound["around"](latents)
    assert seen.shape == (3, 1, 1, 28) and seen[1, 0, 0].unique().tolist() == [0.0, 1.0] and seen[..., -1].eq(1).all()
