"""The judge learns the same from the same seed, reads what a video may be, and is refused where it does not know its world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hunyuan_video.miniature import judge
from hunyuan_video.miniature.judge import Score, wilson
from hunyuan_video.miniature.world import SLOTS


def test_wilson_interval_agrees_with_published_numbers():
    assert wilson(192, 192) == pytest.approx((0.98038, 1.0), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    with pytest.raises(ValueError, match="no proportion"):
        wilson(3, 2)


def test_judge_learns_the_same_from_the_same_seed():
    first, second = (judge.train_judge(num_steps=2, batch_size=4) for _ in range(2))
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(tensor, second.state_dict()[name], rtol=0, atol=0)


def test_judge_reads_any_size_and_length_but_not_a_picture():
    tiny = judge.as_judge(judge.JudgeNet().eval())
    assert tiny(np.zeros((9, 32, 96, 3), np.uint8)).keys() == SLOTS.keys()
    with pytest.raises(ValueError, match="at least 5"):
        tiny(np.zeros((1, 64, 64, 3), np.uint8))


def test_an_untrained_judge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(judge, "train_judge", lambda seed: judge.JudgeNet().eval())
    monkeypatch.setattr(judge, "examine", lambda given: Score(590, 600))
    with pytest.raises(ValueError, match="delete the file"):
        judge.load_judge(tmp_path)
