"""The Fréchet distance where it is known, and by random features."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from rendered_cameras import film, path

from hunyuan_video.evaluation.frechet import distance, random_feature_frechet


def test_it_is_exact_of_known_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    a, b = torch.rand(2, 5, generator=generator, dtype=torch.float64) + 0.1
    mean, mean_2 = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    covariance, covariance_2 = (turn @ torch.diag(each) @ turn.T for each in (a, b))  # which commute, so that roots are known
    expected = (mean - mean_2).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert distance(mean, covariance, mean_2, covariance_2) == pytest.approx(float(expected), abs=1e-6)


def test_it_is_that_of_one_dimension_whatever_the_scale():
    one = [torch.tensor([2.0]), torch.tensor([[9.0]]), torch.tensor([5.0]), torch.tensor([[4.0]])]
    assert distance(*one) == pytest.approx(9 + 1, abs=1e-6)


def test_more_noise_is_farther_and_the_same_clips_are_nowhere():
    clips = [film(path("tilt-left", seed, 5), seed)[:, ::3, ::3] for seed in range(4)]
    noise = np.random.default_rng(0).normal(size=clips[0].shape)
    sets = [[np.clip(clip + level * noise, 0, 255).astype(np.uint8) for clip in clips] for level in (0, 8, 24, 72)]
    found = [random_feature_frechet(clips, each) for each in sets]
    assert found[0] == pytest.approx(0, abs=1e-6) and found == sorted(found) and found[1] > 1e-6


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_two_clips_are_no_distribution(number):
    clip = np.zeros((1, 8, 8, 3), np.uint8)
    for sets in ([clip] * number, [clip] * 2), ([clip] * 2, [clip] * number):
        with pytest.raises(ValueError, match=f"A set has {number} clips, and a distribution needs 2 or more"):
            random_feature_frechet(*sets)


def test_one_clip_at_a_time_is_held():
    made: list[weakref.ref[np.ndarray]] = []
    alive = []

    def clips() -> Iterator[np.ndarray]:
        for seed in range(3):
            yield one_clip(seed)

    def one_clip(seed: int) -> np.ndarray:
        gc.collect()
        alive.append(sum(clip() is not None for clip in made))
        clip = np.random.default_rng(seed).integers(0, 255, (2, 8, 8, 3), np.uint8)
        made.append(weakref.ref(clip))
        return clip

    random_feature_frechet(clips(), clips())
    assert alive == [0] * 6  # before the next is read


def test_rounding_makes_no_distance_less_than_nothing():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = torch.randn(3, 16, generator=generator, dtype=torch.float64)
        covariance = x.T @ x * 1e6
        assert distance(x[0], covariance, x[0], covariance) >= 0
