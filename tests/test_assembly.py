"""What cannot work is refused before weights are read; which pairs of transforms cannot, `test_pairs` says."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from hunyuan_video import assembly, checkpoint
from hunyuan_video.assembly import check, dtype_of
from hunyuan_video.config import Runtime
from hunyuan_video.distributed.world import Degrees, World
from hunyuan_video.kernels import triton
from hunyuan_video.pipeline import HunyuanVideo

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


def test_a_kernel_that_is_made_for_cpus_is_refused_elsewhere():
    with pytest.raises(ValueError, match=r"'chunked', which is written for a CPU's caches .* the device is cuda:0; use sdpa, or auto"):
        check(Runtime(attention="chunked"), World(CUDA))


@pytest.mark.parametrize("attention", ["auto", "sdpa", "matmul"])
def test_the_other_kernels_run_anywhere(attention):
    check(Runtime(attention=attention), World(CUDA))
    check(Runtime(attention=attention), World(CPU), training=True)


@pytest.mark.parametrize("attention", ["int8", "fp8"])
def test_attention_in_8_bits_is_refused_off_gpus_and_in_trainings(attention):
    with pytest.raises(ValueError, match=rf"'{attention}', which is written for NVIDIA's GPUs .* the device is cpu; use sdpa, or auto"):
        check(Runtime(attention=attention), World(CPU))
    with pytest.raises(ValueError, match="trainings need its gradient"):
        check(Runtime(attention=attention), World(CUDA), training=True)


def test_attention_in_8_bits_without_triton_says_what_to_install(monkeypatch):
    monkeypatch.setattr(triton, "is_here", lambda: False)
    with pytest.raises(ValueError, match=r"attention 'int8' is computed by Triton, which is missing; .* pip install triton"):
        check(Runtime(attention="int8"), World(CUDA))


@pytest.mark.parametrize(("attention", "capability"), [("int8", (7, 5)), ("fp8", (8, 6))])
def test_attention_in_8_bits_is_refused_on_older_gpus(monkeypatch, attention, capability):
    """Of two GPUs in a process it is the one that computes which counts, not the current one."""
    second = torch.device("cuda:1")
    monkeypatch.setattr(triton, "is_here", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability if device == second else (9, 0))
    check(Runtime(attention=attention), World(CUDA))
    with pytest.raises(ValueError, match=rf"or more, but cuda:1 has {capability[0]}\.{capability[1]}; use sdpa"):
        check(Runtime(attention=attention), World(second))


def test_a_kernel_that_does_not_compute_where_keys_come_in_parts_is_refused_there(monkeypatch):
    monkeypatch.setattr(triton, "is_here", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    check(Runtime(attention="int8"), World(CUDA, size=2, degrees=Degrees(ulysses=2)))
    with pytest.raises(ValueError, match="sees all keys at once, but with ring_degree 2 they come in parts"):
        check(Runtime(attention="int8"), World(CUDA, size=2, degrees=Degrees(ring=2)))
    with pytest.raises(ValueError, match=r"'cudnn', .* use one of auto, sdpa, matmul, chunked, flash, or Ulysses alone"):
        check(Runtime(attention="cudnn"), World(CUDA, size=2, degrees=Degrees(ring=2)))
    check(Runtime(attention="flash"), World(CUDA, size=2, degrees=Degrees(ring=2)))


def test_more_ranks_than_heads_to_trade_are_refused():
    with pytest.raises(ValueError, match="Ulysses degree is 25, but the transformer has 24 attention heads"):
        check(Runtime(), World(CPU, size=25, degrees=Degrees(25)), num_heads=24)
    check(Runtime(), World(CPU, size=7, degrees=Degrees(7)), num_heads=24)


def test_8_bits_on_a_wire_that_nothing_goes_over_are_refused():
    with pytest.raises(ValueError, match="wire is 'fp8', but no tokens are shared here"):
        check(Runtime(wire="fp8"), World(CPU))


def test_exact_steps_without_patches_are_refused():
    with pytest.raises(ValueError, match="warmup_steps is 3, but without pipefusion_patches every step is exact"):
        check(Runtime(warmup_steps=3), World(CPU))


@pytest.mark.parametrize(
    ("runtime", "world", "training", "sentence"),
    [
        (Runtime(sparse_pattern="tiles"), World(CPU), False, "sparse_pattern is 'tiles', but attention_density is 1"),
        (Runtime(progressive="time"), World(CPU), True, "progressive is 'time', which is for sampling"),
        (Runtime(attention_density=0.5), World(CPU, size=2, degrees=Degrees(1, 2)), False, "with a ring no kernel sees all"),
    ],
)
def test_what_would_leave_nothing_out_or_cannot_is_refused(runtime, world, training, sentence):
    with pytest.raises(ValueError, match=sentence):
        check(runtime, world, training=training)


def test_patches_whose_blocks_are_gathered_are_refused():
    with pytest.raises(ValueError, match="shard would gather every block for every patch"):
        check(Runtime(pipefusion_patches=2, shard=True), World(CPU, size=2))


def test_blocks_that_are_gathered_by_ranks_that_leave_out_other_steps_are_refused():
    halves = dist.ProcessGroup(0, 2)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="leaves out other steps, and would wait for ever"):
        check(Runtime(step_cache="taylor", shard=True), World(CPU, size=2, across=halves))


def test_loading_refuses_before_it_reads(official_tree, monkeypatch):
    monkeypatch.setattr(checkpoint, "load_text_encoder", lambda *_, **__: pytest.fail("weights were read"))
    monkeypatch.setattr(checkpoint, "is_large", lambda _part: True)
    with pytest.raises(ValueError, match="would copy weights into memory"):
        HunyuanVideo.load(official_tree, Runtime(device="cpu", offload="blocks"))


@pytest.mark.parametrize(("device", "large", "multiplies", "dtypes"), [
    (CPU, False, True, (torch.float32, torch.float32, torch.float32)),
    (CPU, True, True, (torch.bfloat16, torch.bfloat16, torch.bfloat16)),
    (CPU, True, False, (torch.float32, torch.float32, torch.float32)),
    (CUDA, True, False, (torch.float16, torch.bfloat16, torch.float16)),
])  # fmt: skip
def test_the_dtype_of_a_part_depends_on_the_device_and_its_size(monkeypatch, device, large, multiplies, dtypes):
    monkeypatch.setattr(assembly, "multiplies_bfloat16", lambda: multiplies)
    assert tuple(dtype_of(part, Runtime(), device, large=large) for part in ("text", "transformer", "vae")) == dtypes
    assert dtype_of("vae", Runtime(vae_dtype="float32"), device, large=large) == torch.float32
