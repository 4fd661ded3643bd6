"""Every attention kernel that this CPU has, in turns: whether the one that is chosen is at least PyTorch's, and what lists of blocks gain
of what they leave out. zentorch's kernel takes turns with them where it is installed (on AMD)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec

import torch
from dit_step import NAMED
from measure import take_turns
from rows import Row
from torch import Tensor

from hunyuan_video.kernels import choice, table
from hunyuan_video.kernels.sparse import seen_pairs
from hunyuan_video.models.attention import AttentionFn
from hunyuan_video.transforms.sparse import Video

HEADS, HEAD_DIM = 6, 128
TOKENS = (380, 1340, 3516)
GRID, TEXT, SPARSE_HEADS = (9, 32, 32), 64, 2
DENSITIES = (0.3, 0.5)


@torch.no_grad()
def a5(repeats: int, device: torch.device) -> Iterator[Row]:
    for dtype in (torch.float32, torch.bfloat16):
        kernels = kernels_for(dtype, device)
        for tokens in TOKENS:
            chosen = choice.fastest(HEADS, HEAD_DIM, tokens, dtype, device)
            q, k, v = drawn(tokens, HEADS, dtype, device)
            calls = {name: partial(kernel, q, k, v, None) for name, kernel in kernels.items()}
            for call in calls.values():  # what the first call does is not its speed
                call()
            seconds = take_turns(calls, device, 3 * repeats)
            detail = {"kernel": chosen, "gflops": 4e-9 * tokens**2 * HEADS * HEAD_DIM / seconds[chosen].median}
            ratio = seconds["sdpa"].median / seconds[chosen].median
            yield Row(
                "a5",
                f"{tokens:,} tokens, {NAMED[dtype]}",
                "attention as chosen, beside `sdpa`",
                ratio,
                "×",
                seconds,
                detail,
            )


@torch.no_grad()
def a6(repeats: int, device: torch.device) -> Iterator[Row]:
    tokens = math.prod(GRID) + TEXT
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = drawn(tokens, SPARSE_HEADS, dtype, device)
        for density in DENSITIES:
            kernel = table.load(choice.fastest(SPARSE_HEADS, HEAD_DIM, tokens, dtype, device, density=density))
            video = Video(GRID, density, "dynamic", lambda image, text: [(image, text)])
            video.is_sparse = True
            calls = {"dense": partial(kernel, q, k, v, None), "sparse": partial(video.attend, kernel, q, k, v, None)}
            for call in calls.values():
                call()
            seconds = take_turns(calls, device, repeats)
            seen = seen_pairs(video.lists(q, k), tokens)
            gained = 1 - seconds["sparse"].median / seconds["dense"].median
            case = f"{tokens:,} tokens, density {density}, {NAMED[dtype]}"
            yield Row("a6", case, "time saved, of the pairs left out", 100 * gained / (1 - seen), "%", seconds, {"pairs": seen})


def drawn(tokens: int, heads: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values."""
    q, k, v = torch.randn(3, 1, tokens, heads, HEAD_DIM, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return q, k, v


def kernels_for(dtype: torch.dtype, device: torch.device) -> Mapping[str, AttentionFn]:
    names = [name for name, each in table.KERNELS.items() if each.is_candidate and choice.why_not(name, device, dtype, HEAD_DIM) is None]
    theirs = zentorch_sdpa()
    return {name: table.load(name) for name in names} | ({} if theirs is None else {"zentorch": theirs})


def zentorch_sdpa() -> AttentionFn | None:
    """The attention of AMD's package, which takes heads first as PyTorch's operator does."""
    if find_spec("zentorch") is None:
        return None
    import zentorch  # noqa: F401  # pyright: ignore[reportMissingImports] (registers its operators)

    def attention(q: Tensor, k: Tensor, v: Tensor, _mask: Tensor | None) -> Tensor:
        out = torch.ops.zentorch.zentorch_sdpa(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return (out if isinstance(out, Tensor) else out[0]).transpose(1, 2)

    return attention
