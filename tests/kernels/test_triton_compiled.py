"""Kernels for GPUs compile for each kind of GPU, as they are launched at 129 frames of 720x1280, without spills and within its memory."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="needs Triton, which exists for Linux")
from compiled_kernels import SHARED, Compiled, compiling_for

from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.triton import pieces
from hunyuan_video.kernels.triton.eight_bits import attend_in_8_bits
from hunyuan_video.kernels.triton.sparse import block_sparse
from hunyuan_video.models.rope import Rope

TOKENS, HEADS, DIM = 119_056, 24, 128
CAPABILITIES = [pytest.param(number, marks=pytest.mark.slow) for number in SHARED]  # 15 s each


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def blocks(size: int) -> BlockLists:
    rows = -(-TOKENS // size)
    return BlockLists(empty(HEADS, rows, rows // 3, dtype=torch.int32), empty(HEADS, rows, dtype=torch.int32), size, size)


def launch_all(capability: int) -> None:
    width, has_fp8 = HEADS * DIM, capability >= 89
    x, (shift, scale, gate) = empty(1, TOKENS, width), empty(1, 1, 3 * width).chunk(3, dim=-1)
    q, k, v = empty(1, TOKENS, 7 * width)[..., : 3 * width].unflatten(-1, (3, HEADS, DIM)).unbind(2)  # as a single block's first linear
    half = empty(TOKENS, 1, DIM // 2, dtype=torch.float32)

    pieces.modulate(x, shift, scale)
    pieces.norm_rope(q, empty(DIM), Rope(half, half), empty(1, TOKENS, HEADS, DIM))
    pieces.add_gated(x, gate, x)
    if has_fp8:
        pieces.round_tokens(empty(TOKENS, 4 * width), gelu=True)
    for size in (64, 128):
        block_sparse(q, k, v, blocks(size))
        block_sparse(q, k, v, blocks(size), "int8")
    attend_in_8_bits(q, k, v, "int8")
    if has_fp8:
        attend_in_8_bits(q, k, v, "fp8")


@pytest.fixture(scope="module", params=CAPABILITIES)
def compiled(request, tmp_path_factory) -> list[Compiled]:
    folder = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setitem(os.environ, "TRITON_CACHE_DIR", str(folder))
        patch.setitem(os.environ, "TRITON_DEFAULT_FP_FUSION", "1")  # products and sums in one instruction; unset, Triton 3.9 warns
        with compiling_for(request.param, patch, folder) as found:
            launch_all(request.param)
    return found


def test_every_kernel_compiles_without_spills(compiled):
    assert {kernel.name for kernel in compiled} >= {"modulate_token", "norm_rope_token", "add_gated_token", "round_block", "attend"}
    assert [kernel for kernel in compiled if kernel.spilled or kernel.registers > 255] == []


def test_every_kernel_fits_into_shared_memory(compiled):
    assert [kernel for kernel in compiled if kernel.shared > SHARED[kernel.capability] * 1024] == []


def test_attention_multiplies_with_the_gpus_own_units(compiled):
    units = {80: "mma.sync", 89: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma", 120: "mma.sync"}
    assert all(units[kernel.capability] in kernel.ptx for kernel in compiled if kernel.name == "attend")
