"""Tiles shared over ranks are those of one process, bit for bit; the work is even, and memory does not grow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spawn import on_ranks
from tiles_ranks import RANKS, SHAPES, work

from hunyuan_video.distributed.tiles import share_out
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.transforms.tiling import decode_pieces


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the ranks found, run once for all claims."""
    return on_ranks(work, RANKS, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", [*SHAPES, "bfloat16"])
def test_frames_and_moments_are_those_of_one_process_bit_for_bit(results, name):
    assert all(found[name]["same"] for found in results)


@pytest.mark.parametrize("name", SHAPES)
def test_each_tile_is_computed_once_and_each_rank_has_its_share(results, name):
    own = [found[name]["own"] for found in results]
    assert sum(own) == results[0][name]["all"] and max(own) - min(own) <= 1


def test_an_error_of_one_rank_is_everybodys_and_the_ranks_go_on(results):
    assert {found["failure"].split(" after ")[0] for found in results} == {"rank 1 has no memory"}
    assert all(int(found["failure"].split(" after ")[1]) <= 3 for found in results)  # of four
    assert all(found["after a failure"]["same"] for found in results)


def test_results_in_memory_are_two_rounds_whatever_the_number_of_tiles(results):
    for found in results:
        assert found["held"] == found["held of more"]
        held, ahead = found["held"]
        assert held <= 2 * RANKS + 1 and ahead <= 3


def tiles_of(shape: tuple[int, ...]) -> list[int]:
    """The sizes of the tiles that the released VAE decodes."""
    sizes: list[int] = []
    with torch.device("meta"):
        vae, latents = CausalVAE(VAEConfig(block_out_channels=(32, 32, 32, 32))), torch.empty(shape)
    decode_pieces(vae, latents, run=lambda _decode, tiles: sizes.extend(map(torch.Tensor.numel, tiles)) or iter([]))
    return sizes


@pytest.mark.parametrize("ranks", range(2, 9))
def test_the_largest_video_is_shared_evenly(ranks):
    """720 x 1280 x 129, of 84 tiles: 1.018 of the even share on eight ranks."""
    sizes = tiles_of((1, 16, 33, 90, 160))
    load = [0] * ranks
    for size, owner in zip(sizes, share_out(sizes, ranks), strict=True):
        load[owner] += size
    assert len(sizes) == 84 and max(load) * ranks < 1.02 * sum(sizes)


def test_the_largest_of_a_round_goes_to_who_has_had_the_least():
    assert share_out([5, 9, 1, 7, 2, 3, 4], 3) == [1, 0, 2, 2, 0, 1, 1]


def test_ranks_without_a_tile_are_idle():
    assert share_out([4, 6], 5) == [1, 0]
