"""The native kernel computes what attention is, on each path that this CPU has, and its absence is no error."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from measure import deviation

from hunyuan_video.assembly import check
from hunyuan_video.config import Runtime
from hunyuan_video.distributed.world import World
from hunyuan_video.kernels import choice, fused, kept, measured, table
from hunyuan_video.kernels.native import build, norm_rope, paths
from hunyuan_video.kernels.native.build import NotBuiltError
from hunyuan_video.models.attention import AttentionFn, sdpa

CPU = torch.device("cpu")
NO_COMPILER = "native kernels are compiled at their first use, and there is no C++ compiler; install g++ or clang++, or set CXX"
COMBINATIONS = [(name, dtype) for name, path in paths.PATHS.items() for dtype in path.dtypes]
each_path = pytest.mark.parametrize(("name", "dtype"), COMBINATIONS, ids=lambda value: str(value).removeprefix("torch."))


def kernel(name: str) -> AttentionFn:
    try:
        return paths.load(name)
    except NotBuiltError as error:
        pytest.skip(str(error))


def drawn(dtype: torch.dtype, queries: int, keys: int, heads: int = 2, dim: int = 128, batch: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(queries + keys)
    return [torch.randn(batch, tokens, heads, dim, generator=generator).to(dtype) for tokens in (queries, keys, keys)]


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return sdpa(q.double(), k.double(), v.double(), None)


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual.double() - expected).norm() / expected.norm()).item()


# No size is a multiple of any block's, or all are; one token; fewer keys than a vector holds; more than several blocks.
SIZES = [(1, 1, 128), (37, 53, 16), (130, 64, 80), (7, 1000, 48), (256, 256, 128), (301, 515, 128), (65, 33, 256), (50, 17, 24), (9, 40, 5)]


@each_path
@pytest.mark.parametrize(("queries", "keys", "dim"), SIZES)
def test_it_is_near_to_float64_and_in_bfloat16_as_near_as_pytorchs_own(name, dtype, queries, keys, dim):
    given = drawn(dtype, queries, keys, heads=3, dim=dim, batch=2)
    expected = exact(*given)
    actual = kernel(name)(*given, None)
    assert actual.dtype == dtype and actual.shape == given[0].shape
    assert error(actual, expected) < (1e-6 if dtype == torch.float32 else max(3e-3, 1.1 * error(sdpa(*given, None), expected)))


@each_path
def test_scores_that_grow_from_block_to_block_are_scaled_anew(name, dtype):
    q, k, v = drawn(dtype, 40, 1000)
    k = (k * torch.linspace(0, 6, 1000)[None, :, None, None]).to(dtype)
    expected = exact(q, k, v)
    assert error(kernel(name)(q, k, v, None), expected) < max(1.5 * error(sdpa(q, k, v, None), expected), 2e-6)


@each_path
def test_tokens_and_heads_may_lie_anywhere(name, dtype):
    q, k, v = drawn(dtype, 70, 90, heads=4, dim=64)
    expected = kernel(name)(q, k, v, None)
    together = torch.zeros(3, 1, 4, 90, 80, dtype=dtype)  # heads first, with features between that are another's
    for number, x in enumerate((q, k, v)):
        together[number, :, :, : x.shape[1], :64] = x.transpose(1, 2)
    apart = [together[n, :, :, :tokens, :64].transpose(1, 2) for n, tokens in enumerate((70, 90, 90))]
    reversed_features = [x.flip(-1).transpose(2, 3).contiguous().transpose(2, 3) for x in (q, k)]  # features that lie apart
    assert torch.equal(kernel(name)(*apart, None), expected)
    assert error(kernel(name)(*reversed_features, v, None), expected.double()) < (1e-6 if dtype == torch.float32 else 5e-3)


@each_path
def test_nothing_beyond_the_tensors_is_read_or_written(name, dtype):
    """Each ends where memory ends: a byte more would kill the process."""
    given = [_at_the_end(x) for x in drawn(dtype, 35, 45, heads=1, dim=40)]
    assert kernel(name)(*given, None).isfinite().all()


def _at_the_end(x: torch.Tensor) -> torch.Tensor:
    """A copy, behind which is a page that nobody may touch."""
    size = -(-x.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + size), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    copy = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=size - x.nbytes).view(x.shape)
    return copy.copy_(x)


@each_path
def test_not_a_number_comes_out_where_one_goes_in(name, dtype):
    q, k, v = drawn(dtype, 40, 300)
    k[0, 299, 1, 5] = float("nan")
    out = kernel(name)(q, k, v, None)
    assert out[:, :, 1].isnan().all() and out[:, :, 0].isfinite().all()


@each_path
def test_threads_change_no_bit(name, dtype):
    given = drawn(dtype, 500, 400, heads=3)
    one = kernel(name)(*given, None)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = kernel(name)(*given, None)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, three)


def test_python_threads_may_call_it_at_the_same_time():
    first = next(name for name in paths.PATHS if choice.why_not(f"native-{name}", CPU) is None) if _has_any() else pytest.skip("no path")
    given = [drawn(torch.bfloat16, 200 + n, 300) for n in range(4)]
    alone = [kernel(first)(*each, None) for each in given]
    together: dict[int, torch.Tensor] = {}
    threads = [threading.Thread(target=lambda n=n: together.update({n: kernel(first)(*given[n], None)})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[n], alone[n]) for n in range(4))


def _has_any() -> bool:
    return any(choice.why_not(f"native-{name}", CPU) is None for name in paths.PATHS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_may_go_on_with_it():
    name = next((name for name in reversed(paths.PATHS) if choice.why_not(f"native-{name}", CPU) is None), None)
    if name is None:
        pytest.skip("no path")
    given = drawn(torch.bfloat16, 60, 70)
    expected = kernel(name)(*given, None)
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # as PyTorch's workers do: with GNU's OpenMP its own kernels, too, wait forever for threads left behind
        os._exit(0 if torch.equal(kernel(name)(*given, None), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@each_path
def test_with_a_mask_it_is_pytorchs(name, dtype):
    q, k, v = drawn(dtype, 20, 30)
    mask = (torch.arange(30) < 21)[None, None]
    assert torch.equal(kernel(name)(q, k, v, mask), sdpa(q, k, v, mask))


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda x: x.half(), "computes in float32 or bfloat16 on a CPU.*float16"),
    (lambda x: x.repeat(1, 1, 1, 3), "heads of up to 256 features.* of 384"),
    (lambda x: x.requires_grad_(), "for inference have no gradient, but gradients are on"),
])  # fmt: skip
def test_what_it_cannot_is_said(change, sentence):
    given = [change(x) for x in drawn(torch.float32, 4, 4)]
    with pytest.raises(ValueError, match=sentence):
        kernel("avx2")(*given, None)


@pytest.mark.parametrize("change", [
    lambda q, k, v: (q, k.to(torch.bfloat16), v.to(torch.bfloat16)),
    lambda q, k, v: (q, k, v.to(torch.bfloat16)),
    lambda q, k, v: (q, k[:, :, :1], v[:, :, :1]),
    lambda q, k, v: (q, k, v[..., :32]),
    lambda q, k, v: (q, k, v[:, :3]),
    lambda q, k, v: (q.repeat(2, 1, 1, 1), k, v),
], ids=["dtype", "dtype of values", "heads", "features of values", "fewer values", "batch"])  # fmt: skip
def test_tensors_that_do_not_belong_together_are_refused_and_not_read(change):
    native = kernel("avx2")
    assert isinstance(native, paths.Native)
    with pytest.raises(ValueError, match=r"Attention needs q, k and v of one dtype, .* given are q \["):
        paths._attend(native.functions, "avx2", *change(*drawn(torch.float32, 4, 5)))  # behind the checks that only tests have


# Built where it runs.


@pytest.fixture
def nothing_built(tmp_path, monkeypatch):
    """An empty cache, and nothing remembered of another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(table, "_loaded", {})
    monkeypatch.setattr(measured, "_fastest", {})
    monkeypatch.setattr(measured, "_said", set())
    for cached in (paths.load, paths.require, norm_rope.load):
        cached.cache_clear()
    yield tmp_path
    for cached in (paths.load, paths.require, norm_rope.load):
        cached.cache_clear()


@pytest.fixture
def no_compiler(nothing_built, monkeypatch):
    monkeypatch.setattr(build, "compiler", lambda: None)


def test_without_a_compiler_attention_is_another_kernels_and_one_line_says_so(no_compiler, caplog):
    caplog.set_level(logging.INFO)
    assert choice.fastest(2, 16, 64, torch.float32, CPU) in ("sdpa", "chunked")
    lines = [record.message for record in caplog.records if "native" in record.message and "Without" in record.message]
    assert lines == [f"Without native attention: {NO_COMPILER}."]


def test_without_a_compiler_norms_are_pytorchs_and_one_line_says_so(no_compiler, monkeypatch, caplog):
    monkeypatch.setattr(kept, "recall", lambda _question: None)
    monkeypatch.setattr(kept, "keep", lambda _question, _seconds: None)
    caplog.set_level(logging.INFO)
    assert "native" not in fused.fastest(16, 2, 64, 8, torch.float32, CPU)
    lines = [record.message for record in caplog.records if "Without" in record.message]
    assert lines == [f"Without native pointwise ops: {NO_COMPILER}."]


@pytest.mark.parametrize("name", ["native", "native-avx2"])
def test_asked_for_by_name_it_is_refused_with_what_to_install(no_compiler, name):
    with pytest.raises(ValueError, match=re.escape(f"attention is '{name}', but {NO_COMPILER}; use sdpa, or auto.")):
        check(Runtime(attention=name), World(CPU))


def test_a_compiler_that_fails_is_named_with_its_error(nothing_built, monkeypatch):
    failing = nothing_built / "c++"
    failing.write_text("#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'cpu.cpp:1:1: error: no such option' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CXX", str(failing))
    with pytest.raises(NotBuiltError, match=r"c\+\+ cannot compile cpu.cpp \(cpu.cpp:1:1: error: no such option\); a newer"):
        build.library("cpu")


def test_a_library_stays_when_its_compiler_goes(nothing_built, monkeypatch):
    if build.compiler() is None:
        pytest.skip("no compiler")
    built = build.library("cpu")
    monkeypatch.setattr(build, "compiler", lambda: None)
    assert build.library("cpu") == built


def test_two_processes_that_build_at_once_both_have_it(nothing_built):
    if build.compiler() is None:
        pytest.skip("no compiler")
    code = "from hunyuan_video.kernels.native import build; build.opened('cpu').has; print(build.library('cpu'))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0] and said[0] == said[1]
    assert [path.name for path in Path(said[0].strip()).parent.iterdir()] == [Path(said[0].strip()).name]


def test_a_damaged_library_is_compiled_anew(nothing_built):
    if build.compiler() is None:
        pytest.skip("no compiler")
    build.library("cpu").write_bytes(b"damaged")
    assert build.opened("cpu").has(b"no path") == 0


def test_the_sources_are_installed():
    assert {path.stem for path in build.SOURCES.glob("*.cpp")} == {"cpu", "norm_rope", *paths.PATHS}


def test_a_processor_of_another_kind_has_none(nothing_built, monkeypatch):
    monkeypatch.setattr(paths.platform, "machine", lambda: "arm64")
    with pytest.raises(NotBuiltError, match="written for x86-64, and this CPU is arm64"):
        paths.load("avx2")


def test_ring_attention_takes_pytorchs_kernel_in_its_place():
    from hunyuan_video.kernels.partial import attend_to_part

    q, k, v = drawn(torch.float32, 20, 30)
    out, lse = attend_to_part(kernel("avx2"), q, k, v, None)
    assert deviation(out, sdpa(q, k, v, None)) < 1e-6 and lse.shape == q.shape[:3]
