"""Tiled encoding and decoding: the reference's numbers, Diffusers', and what tiles must never change."""

from __future__ import annotations

import pytest
import torch
from diffusers_peer import vae_peer
from tiny_checkpoint import VAE as TINY

from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.transforms.tiling import TileSizes, decode_pieces, tiled_decode, tiled_encode

SMALL_TILES = TileSizes(pixels=32, frames=16)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def tiled_peer(vae: CausalVAE, tiles: TileSizes):
    """Diffusers' model with the same tiles, on every axis."""
    peer = vae_peer(vae)
    stride = round(tiles.pixels * (1 - tiles.overlap))
    peer.enable_tiling(
        tile_sample_min_height=tiles.pixels,
        tile_sample_min_width=tiles.pixels,
        tile_sample_min_num_frames=tiles.frames,
        tile_sample_stride_height=stride,
        tile_sample_stride_width=stride,
        tile_sample_stride_num_frames=round(tiles.frames * (1 - tiles.overlap)),
    )
    peer.use_framewise_encoding = peer.use_framewise_decoding = True
    return peer


@pytest.mark.parametrize("case", ["tdec0", "tdec1", "tdec2"])
def test_tiled_decode_matches_the_reference(golden, reference: CausalVAE, case: str):
    expected = golden("vae")
    expected.check(tiled_decode(reference, expected[f"in.{case}"]), f"out.{case}")


@pytest.mark.parametrize("case", ["tenc0", "tenc1"])
def test_tiled_encode_matches_the_reference(golden, reference: CausalVAE, case: str):
    expected = golden("vae")
    posterior = tiled_encode(reference, expected[f"in.{case}"])
    expected.check(posterior.mean, f"out.{case}_mean")
    expected.check(posterior.logvar, f"out.{case}_logvar")


@pytest.mark.parametrize("shape", [(2, 4, 2, 7, 5), (1, 4, 6, 3, 2), (1, 4, 6, 3, 5)])
def test_tiled_decode_equals_diffusers(vae: CausalVAE, shape: tuple[int, ...]):
    latents = random(*shape)
    expected = tiled_peer(vae, SMALL_TILES).decode(latents).sample
    torch.testing.assert_close(tiled_decode(vae, latents, SMALL_TILES), expected, atol=2e-5, rtol=1e-4)


def test_tiled_encode_equals_diffusers(vae: CausalVAE):
    x = random(1, 3, 21, 48, 40)
    expected = tiled_peer(vae, SMALL_TILES).encode(x).latent_dist
    torch.testing.assert_close(tiled_encode(vae, x, SMALL_TILES).mean, expected.mean, atol=2e-5, rtol=1e-4)


def test_what_fits_into_one_tile_is_decoded_whole(vae: CausalVAE):
    latents = random(1, 4, 3, 4, 3)
    assert torch.equal(tiled_decode(vae, latents), vae.decode(latents))


class Enlarge(CausalVAE):
    """Stands for a VAE in which every latent makes its own pixels, so that tiles should change nothing."""

    def __init__(self) -> None:
        super().__init__(TINY)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        frames = torch.cat([latents[:, :, :1], latents[:, :, 1:].repeat_interleave(4, dim=2)], dim=2)
        return frames.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)

    def moments(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :, ::4, ::8, ::8], torch.zeros_like(x[:, :, ::4, ::8, ::8])], dim=1)


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 7, 8, 9, 12])
@pytest.mark.parametrize("height", [1, 4, 5, 7])
def test_every_length_and_size_is_put_together_again(frames: int, height: int):
    latents = random(1, 4, frames, height, 6)
    torch.testing.assert_close(tiled_decode(Enlarge(), latents, SMALL_TILES), Enlarge().decode(latents))


@pytest.mark.parametrize("frames", [1, 13, 17, 29, 33])
@pytest.mark.parametrize("width", [8, 32, 40, 56])
def test_every_clip_is_encoded_to_its_own_latents(frames: int, width: int):
    x = random(1, 3, frames, 40, width)
    encoded = tiled_encode(Enlarge(), x, SMALL_TILES).mean
    torch.testing.assert_close(encoded, x[:, :, ::4, ::8, ::8])


def test_a_tile_without_overlap_is_decoded_alone(vae: CausalVAE):
    latents = random(1, 4, 1, 4, 8)
    decoded = tiled_decode(vae, latents, TileSizes(pixels=32, overlap=0.0))
    halves = [vae.decode(half) for half in latents.split(4, dim=4)]
    torch.testing.assert_close(decoded, torch.cat(halves, dim=4))


def test_tiles_that_start_between_latents_are_refused(vae: CausalVAE):
    with pytest.raises(ValueError, match=r"start every 3.75 latents"):
        tiled_decode(vae, torch.zeros(1, 4, 1, 9, 9), TileSizes(pixels=40))


def test_pixels_that_cannot_be_encoded_are_refused_as_a_whole(vae: CausalVAE):
    with pytest.raises(ValueError, match="got 24: cut it to 21"):
        tiled_encode(vae, torch.zeros(1, 3, 24, 48, 48), SMALL_TILES)


def test_seams_are_exact_for_every_length_up_to_401_frames():
    for frames in range(1, 402, 4):
        latents = random(1, 4, (frames - 1) // 4 + 1, 1, 1)
        decoded = tiled_decode(Enlarge(), latents)
        torch.testing.assert_close(decoded, Enlarge().decode(latents))
        assert decoded.shape[2] == frames


def test_pieces_put_together_are_the_whole(vae: CausalVAE):
    latents = random(1, 4, 9, 6, 5)
    assert torch.equal(torch.cat(list(decode_pieces(vae, latents, SMALL_TILES)), dim=2), tiled_decode(vae, latents, SMALL_TILES))


def test_no_tile_is_decoded_for_nothing(vae: CausalVAE, monkeypatch):
    """7 latents in tiles of 4 that start every 3: a third tile would hold only the latent whose frame is dropped."""
    lengths = []
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda z: lengths.append(z.shape[2]) or decode(z))
    tiled_decode(vae, random(1, 4, 7, 2, 2), SMALL_TILES)
    assert lengths == [5, 4]


@torch.no_grad()
def test_the_memory_of_decoding_does_not_grow_with_the_number_of_frames(vae: CausalVAE):
    def most(frames: int) -> int:
        latents = random(1, 4, (frames - 1) // 4 + 1, 6, 5)
        with LiveBytes(vae) as seen:
            sizes = map(torch.Tensor.numel, decode_pieces(vae, latents, SMALL_TILES))
            assert sum(sizes) == 3 * frames * 48 * 40
        return seen.most - latents.nbytes

    short, *longer = (most(frames) for frames in (33, 65, 129))
    assert all(size < 1.02 * short for size in longer)
