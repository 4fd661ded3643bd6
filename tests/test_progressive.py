"""Progressive resolution: what is small is the large one's lowest frequencies, and moving up brings in what was missing."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from conftest import TINY
from torch import Tensor

from hunyuan_video.config import Runtime
from hunyuan_video.models.rope import rope_table
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.progressive import Shape, Stage, clean, cosines, cut, full_size, move_up, rest, rope, smaller, spread, stages
from hunyuan_video.sampling import euler, shifted_sigmas

FULL, SMALL = (1, 2, 5, 8, 6), (1, 2, 3, 4, 4)
GAIN = math.sqrt(math.prod(FULL) / math.prod(SMALL))
HERE, THERE = Stage(SMALL, GAIN, 0, 5), Stage(FULL, 1.0, 5, 9)
PATCH = (1, 2, 2)


def drawn(shape: Shape, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_moving_up_then_cutting_down_is_the_identity():
    x, noise, sigma = drawn(SMALL), drawn(FULL, 1), 0.7
    torch.testing.assert_close(cut(spread(x, FULL), SMALL), x, atol=1e-6, rtol=0)
    moved = move_up(x, HERE, THERE, sigma, noise)
    torch.testing.assert_close(HERE.scale(sigma) * cut(moved, SMALL), x, atol=1e-6, rtol=0)


def test_white_noise_stays_white_and_comes_back_whole():
    """Of unit vectors as noise, what is cut are the rows of a matrix: they must be orthonormal."""
    values = math.prod(FULL[2:])
    every = torch.eye(values).view(values, 1, *FULL[2:])
    rows = cut(every, (values, 1, *SMALL[2:])).flatten(1).T
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-6, rtol=0)
    noise = drawn(FULL)
    torch.testing.assert_close(move_up(cut(noise, SMALL), HERE, THERE, 1.0, noise), noise, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma", [0.2, 0.6, 0.95])
def test_a_small_video_is_the_mixture_that_the_model_is_told(sigma):
    data, noise = torch.full(FULL, 0.8), drawn(FULL)
    x = HERE.scale(sigma) * cut((1 - sigma) * data + sigma * noise, SMALL)
    told = HERE.told(sigma)
    torch.testing.assert_close(x, (1 - told) * torch.full(SMALL, 0.8) + told * cut(noise, SMALL), atol=1e-5, rtol=0)


def test_a_whole_grid_is_told_its_own_noise_level_to_the_last_bit():
    assert all(THERE.told(sigma) == sigma for sigma in shifted_sigmas(50, 7.0).tolist())


def power(shape: Shape) -> Tensor:
    """Of data at each frequency of the full grid's, for the frequencies that a grid has: none at those that the small one lacks."""
    rows = [
        1 / (1 + torch.arange(size, dtype=torch.float32)) * (torch.arange(size) < small)
        for size, small in zip(FULL[2:], SMALL[2:], strict=True)
    ]
    return torch.einsum("t,h,w->thw", *rows)[: shape[2], : shape[3], : shape[4]]


def frequencies(x: Tensor) -> Tensor:
    return torch.einsum("bcthw,at,dh,ew->bcade", x, *(cosines(size).float() for size in x.shape[2:]))


def values(x: Tensor) -> Tensor:
    return torch.einsum("bcade,at,dh,ew->bcthw", x, *(cosines(size).float() for size in x.shape[2:]))


def exact_velocity(stage: Stage):
    """Of Gaussian data: the mean of noise minus data at each frequency, which is known."""
    variance = power(stage.shape) / stage.gain**2

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return values(frequencies(x) * (sigma - (1 - sigma) * variance) / ((1 - sigma) ** 2 * variance + sigma**2))

    return velocity


def test_gaussian_data_comes_out_with_its_own_distribution():
    """Exact sampling turns noise of power 1 into data of its power at each frequency, with the noise's own sign, by whatever stages."""
    sigmas, noise, turn = torch.linspace(1, 0, 801).tolist(), drawn(FULL), 300
    here, there = Stage(SMALL, GAIN, 0, turn), Stage(FULL, 1.0, turn, 800)
    *_, x = euler(exact_velocity(here), cut(noise, SMALL), [here.told(sigma) for sigma in sigmas[: turn + 1]])
    *_, x = euler(exact_velocity(there), move_up(x, here, there, sigmas[turn], noise), sigmas[turn:])
    expected = frequencies(noise) * power(FULL).sqrt()
    torch.testing.assert_close(frequencies(x), expected, atol=0.01, rtol=0.02)


def test_what_is_constant_stays_so_at_every_size():
    frames, still = torch.full((1, 2, 1, 8, 6), 0.8), Stage((1, 2, 5, 4, 4), math.sqrt(3), 0, 1)
    torch.testing.assert_close(clean(frames, still), torch.full((1, 2, 1, 4, 4), 0.8))
    torch.testing.assert_close(full_size(torch.full(SMALL, 0.8), HERE, FULL), torch.full(FULL, 0.8))


@pytest.mark.parametrize(
    ("full", "space", "time", "small"),
    [
        ((1, 16, 33, 90, 160), True, True, (1, 16, 17, 46, 80)),
        ((1, 16, 33, 90, 160), True, False, (1, 16, 33, 46, 80)),
        ((1, 16, 9, 16, 16), False, True, (1, 16, 5, 16, 16)),
        ((1, 16, 1, 2, 2), True, True, (1, 16, 1, 2, 2)),
    ],
)
def test_half_is_whole_patches_and_whole_frames(full, space, time, small):
    assert smaller(full, PATCH, space=space, time=time) == small


@pytest.mark.parametrize(
    ("kind", "full", "found"),
    [
        ("off", (1, 16, 33, 90, 160), [(33, 90, 0, 50)]),
        ("time", (1, 16, 33, 90, 160), [(17, 90, 0, 42), (33, 90, 42, 50)]),
        ("space", (1, 16, 33, 90, 160), [(33, 46, 0, 22), (33, 90, 22, 50)]),
        ("space-time", (1, 16, 33, 90, 160), [(17, 46, 0, 22), (17, 90, 22, 42), (33, 90, 42, 50)]),
        ("time", (1, 16, 1, 90, 160), [(1, 90, 0, 50)]),
    ],
)
def test_stages_follow_the_noise_level(kind, full, found):
    made = stages(full, shifted_sigmas(50, 7.0).tolist(), Runtime(progressive=kind), PATCH)
    assert [(stage.shape[2], stage.shape[3], stage.start, stage.stop) for stage in made] == found
    assert all(first.stop == second.start for first, second in pairwise(made)) and made[-1].gain == 1


def test_the_last_step_is_always_of_full_size():
    made = stages(FULL, [1.0, 0.9, 0.8, 0.0], Runtime(progressive="time", progressive_until=0.01), PATCH)
    assert [(stage.start, stage.stop) for stage in made] == [(0, 2), (2, 3)]
    assert [stage.start for stage in rest(made, 2)] == [2] and rest(made, 3) == rest(made, 2)


def test_tokens_of_a_small_grid_stand_between_those_that_they_are_in_place_of():
    with torch.device("meta"):
        model = HunyuanVideoTransformer(TINY)
    device = torch.device("cpu")
    small = rope(model, (1, 4, 3, 4, 4), (1, 4, 3, 8, 4), device)
    first = TINY.rope_dims[0] // 2  # pair of features that turns with the height: by one radian a token
    rows = small.cos[:, 0, first].view(3, 2, 2)[0, :, 0]
    torch.testing.assert_close(rows, torch.tensor([0.5, 2.5]).cos())
    whole = rope(model, (1, 4, 3, 8, 4), (1, 4, 3, 8, 4), device)
    assert torch.equal(whole.cos, rope_table((3, 4, 2), TINY.rope_dims, TINY.rope_theta, device).cos)
