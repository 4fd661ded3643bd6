"""Attention to a part of the keys: its output and the logarithm of the sum of its exponentials, which are enough to merge parts exactly.

Letters: B batch, L query tokens, S key tokens of the part, H heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hunyuan_video.models.attention import QUERY_CHUNK, AttentionFn, chunked, matmul

aten = torch.ops.aten

# The kernels that may be asked for where keys come in parts: those that compute here. On a GPU `sdpa` is the same as `flash`.
NAMES = ("sdpa", "matmul", "chunked", "flash")


def attend_to_part(
    kernel: AttentionFn,
    q: Float[Tensor, "B L H D"],
    k: Float[Tensor, "B S H D"],
    v: Float[Tensor, "B S H D"],
    mask: Bool[Tensor, "B 1 S"] | None,
) -> tuple[Float[Tensor, "B L H D"], Float[Tensor, "B L H"]]:
    """The output as if these were all keys, and the log-sum-exp of its scores in float32. In products where
    `kernel` is, or there is a mask; else by PyTorch's fused kernel, for no other one tells the log-sum-exp everywhere."""
    if not _is_fused(kernel, q, mask):
        parts = [_products(q[:, rows], k, v, mask) for rows in _rows(q)]
        return torch.cat([out for out, _ in parts], dim=1), torch.cat([lse for _, lse in parts], dim=1)
    flash = aten._scaled_dot_product_flash_attention_for_cpu if q.device.type == "cpu" else aten._scaled_dot_product_flash_attention
    out, lse, *_ = flash(*_heads_first(q, k, v))
    return out.transpose(1, 2), lse.transpose(1, 2)


def gradients_of_part(
    kernel: AttentionFn,
    gradient: Float[Tensor, "B L H D"],
    q: Float[Tensor, "B L H D"],
    k: Float[Tensor, "B S H D"],
    v: Float[Tensor, "B S H D"],
    mask: Bool[Tensor, "B 1 S"] | None,
    out: Float[Tensor, "B L H D"],
    lse: Float[Tensor, "B L H"],
) -> tuple[Float[Tensor, "B L H D"], Float[Tensor, "B S H D"], Float[Tensor, "B S H D"]]:
    """What a part adds to the gradients of q, k and v, given the output and the log-sum-exp over *all* parts."""
    if not _is_fused(kernel, q, mask):
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
        for rows in _rows(q):
            dq[:, rows], more_k, more_v = _product_gradients(gradient[:, rows], q[:, rows], k, v, mask, out[:, rows], lse[:, rows])
            dk += more_k
            dv += more_v
        return dq, dk, dv
    inputs = [*_heads_first(gradient, q, k, v, out), lse.transpose(1, 2).contiguous()]
    if q.device.type == "cpu":
        gradients = aten._scaled_dot_product_flash_attention_for_cpu_backward(*inputs, 0.0, False)
    else:
        nothing = torch.zeros(2, dtype=torch.uint64, device=q.device)  # the dropout's random state, of which there is none
        gradients = aten._scaled_dot_product_flash_attention_backward(
            *inputs, None, None, q.shape[1], k.shape[1], 0.0, False, nothing, nothing[0]
        )
    dq, dk, dv = (x.transpose(1, 2) for x in gradients)
    return dq, dk, dv


def _is_fused(kernel: AttentionFn, q: Tensor, mask: Tensor | None) -> bool:
    """PyTorch's fused kernels tell their log-sum-exp where there is no mask; on a GPU in 16 bits, from Ampere on."""
    if mask is not None or kernel in (matmul, chunked):
        return False
    if q.device.type != "cuda":
        return True
    return q.dtype != torch.float32 and torch.cuda.get_device_capability(q.device) >= (8, 0)


def _rows(q: Tensor) -> Iterator[slice]:
    """In pieces, so that the scores of all pairs never stand in memory."""
    return (slice(start, start + QUERY_CHUNK) for start in range(0, q.shape[1], QUERY_CHUNK))


def _heads_first(*all_of: Tensor) -> list[Tensor]:
    return [x.transpose(1, 2) for x in all_of]


def _scores(q: Tensor, k: Tensor, mask: Tensor | None) -> Float[Tensor, "B H L S"]:
    scores = ((q * q.shape[-1] ** -0.5).transpose(1, 2) @ k.permute(0, 2, 3, 1)).float()
    return scores if mask is None else scores.masked_fill(~mask.unsqueeze(1), float("-inf"))


def _products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    scores = _scores(q, k, mask)
    out = scores.softmax(-1).type_as(v) @ v.transpose(1, 2)
    return out.transpose(1, 2), scores.logsumexp(-1).transpose(1, 2)


def _product_gradients(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gradient, out, keys, values = (x.float() for x in _heads_first(gradient, out, k, v))
    shares = (_scores(q, k, mask) - lse.transpose(1, 2).unsqueeze(-1)).exp()
    dv = shares.mT @ gradient
    of_scores = shares * (gradient @ values.mT - (gradient * out).sum(-1, keepdim=True)) * q.shape[-1] ** -0.5
    dq, dk = of_scores @ keys, of_scores.mT @ q.transpose(1, 2).float()
    return dq.transpose(1, 2).type_as(q), dk.transpose(1, 2), dv.transpose(1, 2)
