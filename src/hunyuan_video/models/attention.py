"""Attention kernels: functions `(q, k, v, mask) -> out` that a block holds and a transform may replace.

Letters: B batch, L query tokens, S key tokens, H heads, D head dimension. Every kind takes and returns `[B, L, H, D]`, scales by
1/sqrt(D), is not causal and has no dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

# (q, k, v, mask) -> out. The mask is True where a query may attend to a key; None means everywhere, which keeps every backend's fast path.
AttentionFn = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def sdpa(
    q: Float[Tensor, "B L H D"],
    k: Float[Tensor, "B S H D"],
    v: Float[Tensor, "B S H D"],
    mask: Bool[Tensor, "B _ S"] | None,
) -> Float[Tensor, "B L H D"]:
    """PyTorch's scaled_dot_product_attention: flash on CUDA when there is no mask, a blocked kernel on CPU."""
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=None if mask is None else mask.unsqueeze(1)
    )
    return out.transpose(1, 2)


def matmul(
    q: Float[Tensor, "B L H D"],
    k: Float[Tensor, "B S H D"],
    v: Float[Tensor, "B S H D"],
    mask: Bool[Tensor, "B _ S"] | None,
) -> Float[Tensor, "B L H D"]:
    """Softmax between two matrix products, as in the paper. Materializes the L x S scores, so it is for short sequences, where it is
    faster than `sdpa` on CPU, above all in the backward pass."""
    scores = (q * q.shape[-1] ** -0.5).transpose(1, 2) @ k.permute(0, 2, 3, 1)
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(1), float("-inf"))
    return (scores.softmax(-1) @ v.transpose(1, 2)).transpose(1, 2)


QUERY_CHUNK = 512  # scores of 512 queries fit in a core's cache for sequences of thousands of tokens


def chunked(
    q: Float[Tensor, "B L H D"],
    k: Float[Tensor, "B S H D"],
    v: Float[Tensor, "B S H D"],
    mask: Bool[Tensor, "B _ S"] | None,
) -> Float[Tensor, "B L H D"]:
    """`matmul` for one head and 512 queries at a time, so the scores never leave the cache: nearly twice as fast on a CPU whose
    instructions for matrix products in bfloat16 `sdpa` does not use. For inference."""
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for b, h in product(range(q.shape[0]), range(q.shape[2])):
        queries = (q[b, :, h] * q.shape[-1] ** -0.5).contiguous()
        keys, values = k[b, :, h].t().contiguous(), v[b, :, h].contiguous()
        for start in range(0, q.shape[1], QUERY_CHUNK):
            rows = slice(start, start + QUERY_CHUNK)
            scores = queries[rows] @ keys
            if mask is not None:
                scores.masked_fill_(~(mask[b, rows] if mask.shape[1] > 1 else mask[b]), float("-inf"))
            out[b, rows, h] = scores.softmax(-1) @ values
    return out


KINDS: dict[str, AttentionFn] = {"sdpa": sdpa, "matmul": matmul, "chunked": chunked}
