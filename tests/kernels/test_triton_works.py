"""Triton's kernels are used where they compile, which is tried once."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hunyuan_video.kernels import fused, triton
from hunyuan_video.transforms import fp8

GPU = torch.device("cuda:1")


@pytest.fixture
def tried(monkeypatch):
    """The devices on which a kernel was tried, and what it raises there."""
    devices: list[torch.device] = []
    trial = SimpleNamespace(devices=devices, error=None)

    def three(device):
        devices.append(device)
        if trial.error is not None:
            raise trial.error

    monkeypatch.setattr(triton, "is_here", lambda: True)
    monkeypatch.setitem(sys.modules, "hunyuan_video.kernels.triton.trial", SimpleNamespace(three=three))
    triton.works.cache_clear()
    yield trial
    triton.works.cache_clear()


def test_it_is_tried_once_on_a_gpu_and_never_on_a_cpu(tried):
    assert [triton.works(GPU), triton.works(GPU), triton.works(torch.device("cpu"))] == [True, True, False]
    assert tried.devices == [GPU]


def test_where_it_cannot_compile_pytorch_computes_and_one_line_says_why(tried, caplog):
    tried.error = RuntimeError("Failed to find C compiler.")
    caplog.set_level(logging.INFO)
    with FakeTensorMode():
        x = torch.empty(3, device=GPU)
    assert not fp8._fuses(x)
    assert fused.why_not("triton", GPU) == (
        "block_ops is 'triton', but Triton does not work on cuda:1; the log says why; use pytorch, or auto."
    )
    assert [record.message for record in caplog.records] == ["Without Triton's kernels on cuda:1: RuntimeError: Failed to find C compiler."]


def test_full_memory_says_nothing_of_triton(tried):
    tried.error = torch.OutOfMemoryError("full")
    with pytest.raises(torch.OutOfMemoryError):
        triton.works(GPU)


def test_without_triton_nothing_is_tried(tried, monkeypatch):
    monkeypatch.setattr(triton, "is_here", lambda: False)
    assert not triton.works(GPU) and tried.devices == []
