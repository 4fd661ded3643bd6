"""What there is, and what is taken."""

from __future__ import annotations

import torch
from torch import nn

from hunyuan_video.memory import LiveBytes, available_memory


def test_bytes_are_counted_while_they_live():
    with LiveBytes(nn.Module()) as seen:
        first = torch.zeros(100)
        view = first[10:]
        assert seen.live == 400
        del first
        assert seen.live == 400
        del view
        torch.zeros(50)
        assert seen.live == 0 and seen.most == 400


def test_available_memory_is_less_than_there_is():
    assert 0 < available_memory(torch.device("cpu")) < 2**50
