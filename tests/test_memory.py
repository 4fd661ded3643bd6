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


def test_ranks_of_one_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr("hunyuan_video.memory.machine_memory", lambda: 1000)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available_memory(torch.device("cpu")) == 250


def test_what_pytorch_only_caches_is_free(monkeypatch):
    free = [1]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.append(10))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[-1], 20))
    assert available_memory(torch.device("cuda")) == 10
