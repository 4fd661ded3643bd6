"""Positions in time of videos that are longer than those of a training."""

from __future__ import annotations

from math import pi

import pytest
import torch

from hunyuan_video import progressive
from hunyuan_video.models.rope import frequencies_of, riflex, rope_table
from hunyuan_video.models.transformer import HunyuanVideoTransformer


@pytest.mark.parametrize("num_frames", [197, 257, 297, 397, 497, 801, 2001])
def test_of_the_released_model_that_pair_is_slowed_down_as_in_the_official_code(num_frames):
    expected = frequencies_of(16, 256.0)
    k = min(max(2 + (num_frames + 3) // 100, 4), 8)
    expected[k - 1] = 0.9 * 2 * pi / ((num_frames - 1) // 4 + 1)
    assert torch.equal(riflex(16, 256.0, num_frames, 129), expected)


@pytest.mark.parametrize(("num_frames", "trained"), [(129, 129), (193, 129), (5, 129), (33, 33), (49, 33)])
def test_a_video_that_is_not_half_as_long_again_is_as_it_was(num_frames, trained):
    assert riflex(16, 256.0, num_frames, trained) is None


def test_of_a_model_for_shorter_videos_it_is_the_first_pair_that_would_come_around():
    frequencies = riflex(16, 256.0, 101, 33)
    assert frequencies is not None
    changed = (frequencies != frequencies_of(16, 256.0)).nonzero().flatten().tolist()
    assert changed == [1] and 26 * frequencies[1] < 2 * pi  # nine latent frames turn the first pair around, and not the second


def test_it_turns_time_alone(tiny_transformer: HunyuanVideoTransformer):
    config, shape = tiny_transformer.config, (1, 4, 60, 4, 4)
    plain = rope_table(config.grid(shape), config.rope_dims, config.rope_theta, torch.device("cpu"))
    stretched = progressive.rope(
        tiny_transformer, shape, shape, torch.device("cpu"), riflex(config.rope_dims[0], config.rope_theta, 237, 129)
    )
    time = config.rope_dims[0] // 2
    torch.testing.assert_close(stretched.cos[..., time:], plain.cos[..., time:])
    assert not torch.allclose(stretched.cos[..., :time], plain.cos[..., :time])
    torch.testing.assert_close(progressive.rope(tiny_transformer, shape, shape, torch.device("cpu"), None).sin, plain.sin)
