"""Run with TRITON_INTERPRET=1, which Triton reads when it is imported: prints what its kernels compute on a CPU, as JSON by claim."""

from __future__ import annotations

import json
from collections.abc import Callable
from unittest import mock

import interpreter
import numpy as np
import torch
import torch.nn.functional as F
from measure import deviation
from torch import Tensor

from hunyuan_video.kernels import pieces
from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.triton import pieces as fused
from hunyuan_video.kernels.triton import tiles
from hunyuan_video.kernels.triton.eight_bits import attend_in_8_bits
from hunyuan_video.kernels.triton.sparse import block_sparse
from hunyuan_video.models.attention import matmul
from hunyuan_video.models.rope import Rope, rope_table

CLAIMS: dict[str, Callable[[], object]] = {}
HEADS = 2


def claim(function: Callable[[], object]) -> Callable[[], object]:
    CLAIMS[function.__name__] = function
    return function


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def farthest(actual: Tensor, expected: Tensor) -> float:
    return (actual.float() - expected.float()).abs().max().item()


@claim
def modulate() -> list[float]:
    """One row for a batch, and one for each token; a width that is no power of two."""
    x, found = 3 * numbers(2, 5, 96) + 1, []
    for rows in (1, 5):
        shift, scale, *_ = numbers(2, rows, 6 * 96, seed=1).chunk(6, dim=-1)
        found.append(farthest(fused.modulate(x, shift, scale), pieces.modulate(x, shift, scale)))
    return found


@claim
def norm_rope() -> list[bool]:
    """Bit for bit, of a part of a projection into a part of what attention reads, with positions and without."""
    keys = numbers(2, 6, 3 * 3 * 16, dtype=torch.bfloat16)[..., 48:96].unflatten(-1, (3, 16))
    weight, rope = numbers(16, seed=1).to(torch.bfloat16), rope_table((1, 2, 3), (4, 6, 6), 256.0, torch.device("cpu"))

    def into(way: Callable[..., None], given: Rope | None) -> torch.Tensor:
        out = torch.zeros(2, 10, 5, 16, dtype=torch.bfloat16)
        way(keys, weight, given, out[:, 2:8, 1:4])
        return out

    return [torch.equal(into(fused.norm_rope, given), into(pieces.norm_rope, given)) for given in (rope, None)]


@claim
def add_gated() -> list[float]:
    found = []
    for rows in (1, 5):
        x, gate, y = numbers(2, 5, 96), numbers(2, rows, 3 * 96, seed=1)[..., 96:192], numbers(2, 5, 96, seed=2)
        expected = x + gate * y
        fused.add_gated(x, gate, y)
        found.append(farthest(x, expected))
    return found


@claim
def gelu_in_8_bits() -> dict[str, object]:
    x = 4 * numbers(6, 96)
    x[3] = 0
    rounded, scale = fused.round_tokens(x, gelu=True)
    expected = F.gelu(x, approximate="tanh")
    largest = rounded.float().abs().amax(dim=1)
    rest = [row for row in range(6) if row != 3]
    return {
        "error": deviation(rounded.float() * scale, expected),
        "plain": deviation(torch.mul(*(part.float() for part in fused.round_tokens(x))), x),
        "largest": largest[rest].tolist(),
        "zeros": largest[3].item(),
    }


def structured(dim: int, tokens: int = 150) -> tuple[Tensor, Tensor, Tensor]:
    """All keys far from zero in the same direction, a channel ten times the others in queries and another in keys, uneven values."""
    q, k, v = (numbers(1, tokens, HEADS, dim, seed=seed) for seed in range(3))
    k += 5 * numbers(dim, seed=3)
    q[..., 7] *= 10
    k[..., 3] *= 10
    return q, k, 2 + v * numbers(dim, seed=4).exp()


@claim
def errors() -> dict[str, float]:
    q, k, v = structured(128)
    expected = matmul(q, k, v, None)
    ways = {"plain": (False, False), "smooth": (True, False), "both": (True, True)}
    return {
        f"{kind} {way}": deviation(attend_in_8_bits(q, k, v, kind, smooth=smooth, rotate=rotate), expected)
        for kind in ("int8", "fp8")
        for way, (smooth, rotate) in ways.items()
    }


@claim
def strided_and_of_other_lengths() -> float:
    """Fewer queries than keys, in a projection's memory, in bfloat16, of heads of 64; no length a multiple of a block."""
    whole = torch.cat(structured(64), dim=2).flatten(2).to(torch.bfloat16)
    q, k, v = whole.unflatten(-1, (3, HEADS, 64)).unbind(2)
    return deviation(attend_in_8_bits(q[:, :70], k, v, "int8"), matmul(*(x.float() for x in (q[:, :70], k, v)), None))


@claim
def values_in_16_bits() -> float:
    q, k, v = (x.half() for x in structured(128))
    with mock.patch.object(tiles, "capability", return_value=(8, 0)):
        return deviation(attend_in_8_bits(q, k, v, "int8"), matmul(*(x.float() for x in (q, k, v)), None))


@claim
def one_key_has_all() -> dict[str, list[float]]:
    """How much of its value a query gets that sees one key alone: the largest share there is, in the first block or the last."""
    found: dict[str, list[float]] = {"int8": [], "fp8": []}
    for place in (3, 140):
        q, k, v = numbers(1, 5, 1, 64), 0.1 * numbers(1, 150, 1, 64, seed=1), numbers(1, 150, 1, 64, seed=2)
        k[:, place] = 100.0
        q = q.abs() + 1
        for kind, shares in found.items():
            out, value = attend_in_8_bits(q, k, v, kind)[0, :, 0], v[0, place, 0]
            shares.append(((out @ value) / (value @ value)).min().item())
    return found


def lists(query_block: int, key_block: int, queries: int, keys: int, *, heads: int) -> tuple[BlockLists, Tensor]:
    """Some blocks of keys for each of queries, in no order, with nonsense behind them; and the mask that says the same."""
    rows, columns = -(-queries // query_block), -(-keys // key_block)
    generator = torch.Generator().manual_seed(5)
    indices = torch.stack([torch.randperm(columns, generator=generator) for _ in range(heads * rows)]).view(heads, rows, columns).int()
    counts = torch.randint(1, columns + 1, (heads, rows), generator=generator).int()
    named = torch.arange(columns) < counts.unsqueeze(-1)
    seen = torch.zeros(heads, rows, columns, dtype=torch.bool).scatter(2, indices.long(), named)
    mask = seen.repeat_interleave(query_block, 1)[:, :queries].repeat_interleave(key_block, 2)[:, :, :keys]
    return BlockLists(indices.masked_fill(~named, 2**30), counts, query_block, key_block), mask


def by_mask(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), k.float()) * q.shape[-1] ** -0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(~mask, float("-inf")).softmax(-1), v.float())


@claim
def sparse() -> dict[str, float]:
    q, k, v = structured(64, tokens=300)
    q = q[:, :200]
    found = {}
    for query_block, key_block, heads in ((64, 64, HEADS), (128, 64, 1), (64, 128, 1), (128, 128, HEADS)):
        blocks, mask = lists(query_block, key_block, 200, 300, heads=heads)
        found[f"{query_block} x {key_block}"] = deviation(block_sparse(q, k, v, blocks), by_mask(q, k, v, mask))
    half = [x.to(torch.bfloat16) for x in (q, k, v)]
    found["bfloat16"] = deviation(block_sparse(*half, blocks), by_mask(*half, mask))
    with mock.patch.object(tiles, "capability", return_value=(8, 9)):  # whose tiles are smaller than blocks
        found["in parts"] = deviation(block_sparse(q, k, v, blocks), by_mask(q, k, v, mask))
    return found


@claim
def sparse_in_8_bits() -> float:
    q, k, v = structured(128, tokens=300)
    blocks, mask = lists(128, 128, 300, 300, heads=1)
    return deviation(block_sparse(q, k, v, blocks, "int8"), by_mask(q, k, v, mask))


def main() -> None:
    interpreter.repair()
    with np.errstate(over="ignore"):  # of exponentials, whose infinity is right
        print(json.dumps({name: function() for name, function in CLAIMS.items()}))


if __name__ == "__main__":
    main()
