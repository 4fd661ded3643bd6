"""Kernels for GPUs compute on one what Triton's interpreter says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from measure import deviation

from hunyuan_video.kernels import pieces
from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.models.attention import matmul
from hunyuan_video.models.rope import rope_table

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def need(major: int, minor: int) -> None:
    if torch.cuda.get_device_capability() < (major, minor):
        pytest.skip(f"needs a GPU of compute capability {major}.{minor} or more")


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


@torch.no_grad()
def test_fused_pieces_equal_pytorchs_but_for_rounding():
    need(8, 0)
    from hunyuan_video.kernels.triton.pieces import FUSED

    x, (shift, scale, gate) = draw(1, 600, 3072), draw(1, 1, 3 * 3072).chunk(3, dim=-1)
    keys, weight, rope = draw(1, 600, 3, 24, 128)[:, :, 1], draw(128), rope_table((6, 10, 10), (16, 56, 56), 256.0, x.device)
    assert deviation(FUSED.modulate(x, shift, scale), pieces.modulate(x, shift, scale)) < 0.004
    ours, expected = (torch.empty_like(keys) for _ in range(2))
    FUSED.norm_rope(keys, weight, rope, ours)
    pieces.norm_rope(keys, weight, rope, expected)
    assert deviation(ours, expected) < 0.004
    theirs = x.clone()
    pieces.add_gated(theirs, gate, x)
    FUSED.add_gated(x, gate, x.clone())
    assert deviation(x, theirs) < 0.004


@torch.no_grad()
def test_gelu_goes_into_8_bits_in_one_pass():
    need(8, 9)
    from hunyuan_video.kernels.triton.pieces import round_tokens

    x = draw(600, 12288)
    rounded, scale = round_tokens(x, gelu=True)
    assert deviation(rounded.float() * scale, F.gelu(x.float(), approximate="tanh")) < 2**-5


@pytest.mark.parametrize(("kind", "least"), [("int8", (8, 0)), ("fp8", (8, 9))])
@torch.no_grad()
def test_attention_in_8_bits_is_near_the_exact_one(kind, least):
    need(*least)
    from hunyuan_video.kernels.triton.eight_bits import attend_in_8_bits

    q, k, v = draw(1, 1500, 3, 4, 128).unbind(2)
    k = k + 5 * draw(128)
    assert deviation(attend_in_8_bits(q, k, v, kind), matmul(q.float(), k.float(), v.float(), None)) < 0.08


@pytest.mark.parametrize("size", [64, 128])
@torch.no_grad()
def test_lists_of_all_blocks_are_attention_to_all_keys(size):
    need(8, 0)
    from hunyuan_video.kernels.triton.sparse import block_sparse

    q, k, v = draw(1, 1500, 3, 4, 128).unbind(2)
    rows = -(-1500 // size)
    indices = torch.arange(rows, dtype=torch.int32, device="cuda").expand(1, rows, rows)
    every = BlockLists(indices, torch.full((1, rows), rows, dtype=torch.int32, device="cuda"), size, size)
    assert deviation(block_sparse(q, k, v, every), matmul(q.float(), k.float(), v.float(), None)) < 0.01


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@torch.no_grad()
def test_a_gpu_that_is_not_the_current_one_computes_what_lies_on_it():
    need(8, 0)
    from hunyuan_video.kernels.triton.pieces import FUSED

    x, (shift, scale) = draw(1, 600, 3072).to("cuda:1"), draw(2, 1, 1, 3072).to("cuda:1")
    assert torch.cuda.current_device() == 0
    assert deviation(FUSED.modulate(x, shift, scale), pieces.modulate(x, shift, scale)) < 0.004
