"""What there is, and what is taken."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from hunyuan_video.memory import LiveBytes, available_memory, most_taken


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


def test_the_most_that_was_taken_grows_and_stays():
    before = most_taken()
    held = bytearray(2**28)
    held[::4096] = b"1" * len(held[::4096])
    taken = most_taken()
    assert before is not None and taken is not None and taken >= 2**28
    del held
    assert most_taken() == pytest.approx(taken, rel=0.01)  # to the system's own precision


def test_what_was_taken_is_not_that_of_whoever_started_the_process():
    held = bytearray(2**29)
    held[::4096] = b"1" * len(held[::4096])
    code = "from hunyuan_video.memory import most_taken; print(most_taken())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0 < int(said) < len(held)


def test_what_pytorch_only_caches_is_free(monkeypatch):
    free = [1]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.append(10))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[-1], 20))
    assert available_memory(torch.device("cuda")) == 10
