"""Kernels in Triton are launched where their tensors lie."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton", reason="needs Triton, which exists for Linux")
from hunyuan_video.kernels.triton.jit import Kernel


@pytest.mark.parametrize(("device", "expected"), [("cuda:1", [torch.device("cuda:1")]), ("cpu", [])])
def test_a_launch_is_on_the_device_of_its_first_tensor(monkeypatch, device, expected):
    current, launched = [], []

    @contextmanager
    def entered(device):
        current.append(device)
        yield
        current.pop()

    class Jitted:
        def __getitem__(self, grid):
            return lambda *given, **options: launched.append((grid, given, options, [*current]))

    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr("triton.jit", lambda _function: Jitted())
    with FakeTensorMode():
        x = torch.empty(3, device=device)
    Kernel(lambda: None)[2, 3](7, x, 1.0, num_warps=4)
    (((grid, given, options, on),), after) = launched, current
    assert (grid, given, options) == ((2, 3), (7, x, 1.0), {"num_warps": 4})
    assert on == expected and after == []
