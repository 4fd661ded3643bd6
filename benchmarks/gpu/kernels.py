"""Part 3: our own kernels: attention in 8 bits and by lists of blocks, pieces of a block in one pass, and the step that they would make.

A call of attention at 129 frames of 720x1280 is 174 TFLOP: 0.15 s at what one H200 does in 8 bits at most.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from measure import deviation
from torch import Tensor

from gpu.attention import CHECKED, HEAD_DIM, HEADS, in_float32
from gpu.fp8 import need_products
from gpu.models import OURS, SIZES, TEXT_TOKENS, TINY_SIZES, Inputs, caught_blocks, config_of, random_transformer
from gpu.part import Part, UnavailableError
from hunyuan_video.kernels import pieces
from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.models.attention import AttentionFn, sdpa
from hunyuan_video.models.rope import Rope
from hunyuan_video.models.transformer import TransformerConfig
from hunyuan_video.transforms import fp8

DENSITY, BLOCK = 0.3, 128
# Of a step at 129 frames of 720x1280 on one H200, in seconds.
AIMS = {"sdpa": 19.0, "int8": 11.0, "fp8": 11.0, "int8, 30 %": 4.9, "bfloat16, 30 %": 7.9}


def attentions(part: Part, tokens: int) -> dict[str, Callable[[], AttentionFn]]:
    """By name what makes each kernel, which a machine may lack."""

    def sparse(numbers: Literal["int8"] | None) -> AttentionFn:
        need_cuda(part)
        from hunyuan_video.kernels.triton.sparse import block_sparse

        blocks = random_lists(tokens, part.device)

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            if k.shape[1] != tokens:  # of the blocks that only text goes through
                return sdpa(q, k, v, mask)
            return block_sparse(q, k, v, blocks, numbers)

        return attend

    def in_8_bits(numbers: Literal["int8", "fp8"]) -> AttentionFn:
        need_cuda(part)
        from hunyuan_video.kernels.triton.by_name import BY_NAME

        return BY_NAME[numbers]

    return {
        "sdpa": lambda: sdpa,
        **{name: partial(in_8_bits, name) for name in ("int8", "fp8")},
        "bfloat16, 30 %": partial(sparse, None),
        "int8, 30 %": partial(sparse, "int8"),
    }


def need_cuda(part: Part) -> None:
    if part.device.type != "cuda":
        raise UnavailableError("needs a CUDA device")


def random_lists(tokens: int, device: torch.device) -> BlockLists:
    """For each head and block of queries the same share of all keys, drawn anew: no pattern that a cache would like."""
    blocks = -(-tokens // BLOCK)
    most = max(1, round(DENSITY * blocks))
    indices = torch.rand(HEADS, blocks, blocks, device=device).topk(most).indices.sort().values.int()
    return BlockLists(indices, torch.full((HEADS, blocks), most, dtype=torch.int32, device=device), BLOCK, BLOCK)


@torch.no_grad()
def measure_attention(part: Part, tokens: int) -> None:
    heads = 2 if part.rehearse else HEADS
    q, k, v = (torch.randn(1, tokens, heads, HEAD_DIM, device=part.device, dtype=torch.bfloat16) for _ in range(3))
    rows = torch.linspace(0, tokens - 1, CHECKED, device=part.device).long()
    expected = in_float32(q, k, v, rows)
    for name, make in attentions(part, tokens).items():
        with part.case("kernels-attention", tokens=tokens, kernel=name) as row:
            call = partial(make(), q, k, v, None)
            row.update(part.timed(call, 0.5))
            if "%" not in name:
                row["error"] = deviation(call()[:, rows], expected)
            share = DENSITY if "%" in name else 1.0
            row["tflops"] = share * 4 * heads * tokens**2 * HEAD_DIM / row["ms"] / 1e9
    with part.case("kernels-attention", tokens=tokens, kernel="int8, its rounding alone") as row:
        need_cuda(part)
        from hunyuan_video.kernels.triton.eight_bits import round_all

        row.update(part.timed(lambda: round_all(q, k, v, "int8"), 0.5))


@torch.no_grad()
def measure_pieces(part: Part, tokens: int) -> None:
    """Each beside PyTorch's, with the bytes that it has to read and write at least."""
    width, heads = (256, 2) if part.rehearse else (HEADS * HEAD_DIM, HEADS)
    draw = partial(torch.randn, device=part.device, dtype=torch.bfloat16)
    x, y, wide = draw(1, tokens, width), draw(1, tokens, width), draw(tokens, 4 * width)
    shift, scale, gate = draw(1, 1, 3 * width).chunk(3, dim=-1)
    keys, weight = draw(1, tokens, 7 * width)[..., width : 2 * width].unflatten(-1, (heads, -1)), draw(width // heads)
    turned = torch.empty_like(keys)
    half = torch.rand(tokens, 1, width // heads // 2, device=part.device)

    def calls(modulate: Any, norm_rope: Any, add_gated: Any, gelu: Any) -> dict[str, Callable[[], object]]:
        return {
            "modulate": lambda: modulate(x, shift, scale),
            "norm and rope": lambda: norm_rope(keys, weight, Rope(half, half), turned),
            "gated sum": lambda: add_gated(x, gate, y),
            "GELU to 8 bits": lambda: gelu(wide),
        }

    def fused() -> dict[str, Callable[[], object]]:
        need_cuda(part)
        from hunyuan_video.kernels.triton.pieces import FUSED, round_tokens

        return calls(*FUSED[:3], partial(round_tokens, gelu=True))

    theirs = calls(*pieces.Pieces()[:3], lambda x: fp8.round_tokens(F.gelu(x, approximate="tanh")))
    moved = {"modulate": 4 * x.numel(), "norm and rope": 4 * x.numel(), "gated sum": 6 * x.numel(), "GELU to 8 bits": 3 * wide.numel()}
    for name, theirs_call in theirs.items():
        for by, make in {"PyTorch": lambda call=theirs_call: call, "Triton": lambda name=name: fused()[name]}.items():
            with part.case("kernels-pieces", piece=name, by=by) as row:
                row.update(part.timed(make(), 0.3))
                row["gb_per_second"] = moved[name] / row["ms"] / 1e6


@torch.no_grad()
def measure_steps(part: Part) -> None:
    """One dual and one single block with each attention, with weights as they are or in 8 bits; and by PyTorch's compiler."""
    (size, grid), *_ = (TINY_SIZES if part.rehearse else SIZES).items()
    tokens, sizes = grid[0] * grid[1] * grid[2] // 4 + TEXT_TOKENS, TransformerConfig()
    for weights in ("bfloat16", "fp8-matmul", "bfloat16, compiled"):
        model = random_transformer(config_of(part, blocks=1), part.device)
        if weights == "fp8-matmul":
            fp8.quantize(model)
            fp8.multiply_in_8_bits(model)
        for name, make in attentions(part, tokens).items():
            if weights != "fp8-matmul" and name != "sdpa":
                continue
            with part.case("kernels-step", size=size, weights=weights, kernel=name) as row:
                if weights == "fp8-matmul":
                    need_products(part)
                use_attention(model, make())
                with caught_blocks(model, OURS) as caught:
                    Inputs(model.config, grid, part.device, torch.bfloat16).ours(model)()
                if weights.endswith("compiled"):
                    compiled = partial(torch.compile, backend="eager" if part.rehearse else "inductor")
                    caught = {kind: partial(compiled(call.func), *call.args) for kind, call in caught.items()}
                times = {kind: part.timed(call, 0.3)["ms"] for kind, call in caught.items()}
                row.update(dual_ms=times["dual"], single_ms=times["single"])
                row["seconds"] = (sizes.num_double_blocks * times["dual"] + sizes.num_single_blocks * times["single"]) / 1000
                row["aim"] = AIMS[name]


def main() -> None:
    part = Part("kernels")
    tokens = 512 if part.rehearse else 119_056
    measure_attention(part, tokens)
    measure_pieces(part, tokens)
    measure_steps(part)


if __name__ == "__main__":
    main()
