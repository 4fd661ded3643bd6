"""Kernels by name: what each needs is said where it is missing, and what packages are called with."""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType
from typing import get_args

import pytest
import torch
from torch.nn import attention

from hunyuan_video.apps.info import report
from hunyuan_video.assembly import check
from hunyuan_video.config import Attention, Runtime
from hunyuan_video.distributed.world import World
from hunyuan_video.kernels import choice, gpu, kept, measured, table
from hunyuan_video.models.attention import sdpa

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
ON_GPU = [name for name, kernel in table.KERNELS.items() if kernel.device == "cuda"]
q, k, v = torch.randn(3, 1, 20, 2, 16, generator=torch.Generator().manual_seed(0)).bfloat16()


def test_every_name_that_may_be_asked_for_is_in_the_table():
    assert set(get_args(Attention)) == {*choice.CHOSEN, *table.KERNELS}


@pytest.fixture
def installed(monkeypatch):
    """Packages with the signatures of the real ones; what they were called with."""
    calls: list[tuple[str, dict[str, object]]] = []

    def flash_attn_2(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
                     deterministic=False, return_attn_probs=False):  # fmt: skip
        calls.append(("flash-attn-2", {"causal": causal, "dropout_p": dropout_p}))
        return sdpa(q, k, v, None)

    def flash_attn_3(q, k, v, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None, v_descale=None,
                     window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False, sm_margin=0,
                     return_attn_probs=False):  # fmt: skip
        calls.append(("flash-attn-3", {"causal": causal}))
        return sdpa(q, k, v, None)

    def flash_attn_4(q, k, v, softmax_scale=None, causal=False, **_others):
        calls.append(("flash-attn-4", {"causal": causal}))
        return sdpa(q, k, v, None), None  # as it does since its first release

    def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, return_lse=False, **_others):
        calls.append(("sage", {"tensor_layout": tensor_layout, "is_causal": is_causal}))
        return sdpa(q, k, v, None)

    for module, name, function in (
        ("flash_attn", "flash_attn_func", flash_attn_2),
        ("flash_attn.cute", "flash_attn_func", flash_attn_4),
        ("flash_attn_interface", "flash_attn_func", flash_attn_3),
        ("sageattention", "sageattn", sageattn),
    ):
        fake = ModuleType(module)
        setattr(fake, name, function)
        monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.setattr(table, "_loaded", {})
    return calls


@pytest.mark.parametrize(("name", "options"), [
    ("flash-attn-2", {"causal": False, "dropout_p": 0.0}),
    ("flash-attn-3", {"causal": False}),
    ("flash-attn-4", {"causal": False}),
    ("sage", {"tensor_layout": "NHD", "is_causal": False}),
])  # fmt: skip
def test_a_package_is_called_as_it_wants_to_be_and_never_with_a_mask(installed, name, options):
    kernel = table.load(name)
    assert torch.equal(kernel(q, k, v, None), sdpa(q, k, v, None))
    assert installed == [(name, options)]
    mask = (torch.arange(20) < 11)[None, None]
    assert torch.equal(kernel(q, k, v, mask), sdpa(q, k, v, mask)) and len(installed) == 1


@pytest.mark.parametrize(("name", "backend"), [("cudnn", "CUDNN_ATTENTION"), ("flash", "FLASH_ATTENTION")])
def test_pytorchs_own_kernels_are_asked_for_by_name(monkeypatch, name, backend):
    asked = []
    monkeypatch.setattr(attention, "sdpa_kernel", lambda kind: asked.append(kind) or nullcontext())
    kernel = table.KERNELS[name].load()
    assert torch.equal(kernel(q, k, v, None), sdpa(q, k, v, None)) and asked == [getattr(attention.SDPBackend, backend)]


@pytest.mark.parametrize("name", ["flash-attn-2", "flash-attn-3", "flash-attn-4", "sage"])
def test_a_package_that_is_missing_is_named_with_what_to_install(monkeypatch, name):
    monkeypatch.setattr(table, "_loaded", {})
    with pytest.raises(ValueError, match=rf"attention is '{name}', but .* cannot be imported \(No module named .*; use sdpa, or auto"):
        check(Runtime(attention=name), World(CUDA))


def test_a_package_for_another_pytorch_is_refused_too(monkeypatch):
    def broken(name: str) -> None:
        raise OSError("undefined symbol: _ZN3c10")

    monkeypatch.setattr(gpu, "import_module", broken)
    monkeypatch.setattr(table, "_loaded", {})
    with pytest.raises(ValueError, match=r"undefined symbol.*pip install flash-attn"):
        check(Runtime(attention="flash-attn-2"), World(CUDA))


@pytest.mark.parametrize("name", ON_GPU)
def test_a_gpus_kernel_is_refused_on_a_cpu(name):
    with pytest.raises(ValueError, match=rf"attention is '{name}', which is .* but the device is cpu; use sdpa, or auto"):
        check(Runtime(attention=name), World(CPU))


@pytest.mark.parametrize(("name", "given", "reason"), [
    ("cudnn", {"dtype": torch.float32}, "which computes in bfloat16 or float16, but the transformer does in float32"),
    ("cudnn", {"head_dim": 256}, "which takes heads of up to 128 features, but the transformer's have 256"),
    ("flash", {"training": True}, "but trainings need its gradient"),
])  # fmt: skip
def test_what_a_kernel_cannot_is_refused(name, given, reason):
    with pytest.raises(ValueError, match=reason):
        check(Runtime(attention=name), World(CUDA), **given)


def test_what_can_work_is_let_through(installed):
    for name in ON_GPU:
        check(Runtime(attention=name), World(CUDA), dtype=torch.bfloat16, head_dim=128)


def test_the_fastest_on_a_gpu_is_measured_among_the_exact_ones_that_are_installed(installed, monkeypatch, tmp_path, caplog):
    """With a CPU in the GPU's place, on which PyTorch's own kernels for GPUs are given seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(measured, "_fastest", {})
    monkeypatch.setattr(measured, "_said", set())
    monkeypatch.delitem(sys.modules, "flash_attn_interface")
    monkeypatch.setattr(choice, "QUERIES", {"cpu": 32})
    monkeypatch.setattr(kept, "machine", lambda device: "a GPU")
    tried: list[str] = []
    seconds = {"sdpa": 0.3, "cudnn": 0.1, "flash": 0.3, "flash-attn-2": 0.3, "flash-attn-4": 0.2}
    monkeypatch.setattr(
        measured, "measure", lambda kernels, _run, _device: tried.extend(kernels) or {name: seconds[name] for name in kernels}
    )
    on_cpu = {name: table.KERNELS[name] for name in ("sdpa", *ON_GPU)}
    monkeypatch.setattr(table, "KERNELS", {name: _anywhere(kernel) for name, kernel in on_cpu.items()})
    for name in ("cudnn", "flash"):
        monkeypatch.setitem(table._loaded, name, lambda q, k, v, mask: sdpa(q, k, v, mask))
    caplog.set_level(logging.INFO)
    assert choice.fastest(2, 16, 40, torch.bfloat16, CPU) == "cudnn"
    assert tried == ["sdpa", "cudnn", "flash", "flash-attn-2", "flash-attn-4"]
    assert any(record.message.startswith("Without flash-attn-3 attention: flash_attn_interface") for record in caplog.records)


def _anywhere(kernel: table.Kernel) -> table.Kernel:
    return replace(kernel, device=None)


def test_a_plan_needs_no_kernel_that_is_not_installed():
    assert [choice.planned_as(name) for name in ("auto", "sdpa", "matmul", "chunked", "flash-attn-3", "native-amx", "fp8")] == [
        *("auto", "sdpa", "matmul", "chunked"),
        *("sdpa", "sdpa", "fp8"),
    ]


def test_info_says_which_kernels_work_and_why_others_do_not(monkeypatch):
    def missing() -> None:
        raise ImportError("it is not here.")

    monkeypatch.setattr(table, "_loaded", {})
    monkeypatch.setitem(table.KERNELS, "native-amx", table.Kernel(missing, device="cpu"))
    said = report(None)
    assert "sdpa on cpu: float32, bfloat16" in said and "native-amx on cpu: not usable, it is not here" in said and "flash-attn" not in said
