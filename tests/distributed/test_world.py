"""Which device a process gets, and what it touches to find that out. CUDA is pretended: whatever would really use it fails."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from hunyuan_video.distributed.world import Degrees, placed, resolve_device, world_of_group


@pytest.fixture
def four_gpus(monkeypatch):
    """Four GPUs that can only be counted, and the second of torchrun's two processes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("_lazy_init", "current_device", "set_device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("a GPU was touched"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_process_of_torchrun_has_its_own_gpu_and_touches_none(four_gpus, name):
    assert resolve_device(name) == torch.device("cuda:1")


def test_the_fixture_would_see_a_tensor_that_is_made(four_gpus):
    with pytest.raises(pytest.fail.Exception, match="a GPU was touched"):
        torch.empty(0, device="cuda")


def test_one_gpu_for_several_processes_is_refused(four_gpus):
    with pytest.raises(ValueError, match=r"device is 'cuda:0', but torchrun has started 2 processes"):
        resolve_device("cuda:0")


def test_alone_a_gpu_is_the_first_or_the_one_that_was_asked_for(four_gpus, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("LOCAL_RANK")
    assert [resolve_device(name).index for name in ("auto", "cuda", "cuda:3")] == [0, 0, 3]
    with pytest.raises(ValueError, match="'cuda:4', but this machine has none"):
        resolve_device("cuda:4")


def test_a_caller_who_chose_a_gpu_keeps_it(four_gpus, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert placed(torch.device("cuda")) == torch.device("cuda:2")


def test_a_process_more_than_there_are_gpus_is_refused(four_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ValueError, match="'cuda:4', but this machine has none"):
        resolve_device("cuda")


@pytest.mark.parametrize(("backend", "device", "lacking"), [("cuda:nccl", "cuda", "cpu"), ("cpu:gloo", "cuda", "cuda")])
def test_a_group_that_cannot_send_from_everywhere_is_refused(monkeypatch, backend, device, lacking):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_backend_config", lambda: backend)
    with pytest.raises(ValueError, match=f"The process group has no backend for {lacking}; make it by `process_group`"):
        world_of_group(torch.device(device), Degrees(2))


def test_a_cpu_is_everybodys(four_gpus):
    assert resolve_device("cpu") == torch.device("cpu")


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="this machine has none"):
        resolve_device("cuda")
