"""One video on many ranks, exactly, forward and backward: Ulysses (arXiv 2309.14509).

Every rank runs all blocks on its own share of the image tokens. Only attention must see all of them: around it tokens are traded for
heads, so that a rank holds every token of its share of the heads, for whichever kernel is there. Text is short: its tokens stay on every
rank, which computes its heads of them and sends the result to all. Shares may differ by a token, so any size of video fits, unpadded.

All that is sent goes through one exchange, and its backward pass is the same exchange the other way round. So autograd yields, on every
rank, the gradient of the *sum* of all ranks' losses: where each computes its loss on the whole output (or any loss of its own), the mean of
the parameters' gradients over the group, which data parallelism takes anyway, is the gradient of the mean loss.

Letters: B batch, N image tokens, n those of this rank, L text tokens, P ranks, H heads, h heads of one rank, D head or hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from hunyuan_video.models.attention import AttentionFn
from hunyuan_video.models.rope import Rope
from hunyuan_video.models.transformer import Context, DoubleStreamBlock, HunyuanVideoTransformer, SingleStreamBlock, TrunkFn


class Shares(NamedTuple):
    """How the tokens lie, beside the mask of all of them. It travels in the mask's place, the one thing of a `Context` that reaches the
    attention: so a block that runs again in the backward pass (activation checkpointing) sees what it saw the first time."""

    mask: Bool[Tensor, "B 1 S"] | None
    sizes: tuple[int, ...]  # image tokens of each rank


def parallelize_sequence(model: HunyuanVideoTransformer, group: dist.ProcessGroup) -> None:
    """Put each call of a finished model on the ranks of `group`, which must all make the call with the same inputs; each gets the whole
    output, and the mean over the group of the parameters' gradients is the gradient. Comes after the attention kernels were chosen.

    Raises:
        ValueError: the heads cannot be shared evenly.
    """
    check_heads(model.config.num_heads, group.size())
    model.trunk = cut_tokens(model.trunk, group)
    for block in model.blocks:
        assert isinstance(block, DoubleStreamBlock | SingleStreamBlock)
        block.attention = trade_tokens_for_heads(block.attention, group)


def check_heads(heads: int, ranks: int) -> None:
    """Raises a ValueError for attention heads that cannot be shared evenly by the ranks of one video."""
    if heads % ranks:
        fits = ", ".join(str(count) for count in range(1, heads + 1) if heads % count == 0)
        raise ValueError(f"{heads} attention heads cannot be shared by {ranks} ranks; use {fits} ranks for one video.")


def cut_tokens(trunk: TrunkFn, group: dist.ProcessGroup) -> TrunkFn:
    """A trunk that runs on this rank's image tokens and gathers those of all."""

    def parallel_trunk(
        model: HunyuanVideoTransformer, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context
    ) -> Float[Tensor, "B N D"]:
        rank, ranks = group.rank(), group.size()
        sizes = tuple((img.shape[1] + ranks - 1 - r) // ranks for r in range(ranks))
        start = list(accumulate(sizes, initial=0))[rank]
        mine = slice(start, start + sizes[rank])
        ctx = ctx._replace(
            num_clean=min(max(ctx.num_clean - start, 0), sizes[rank]),  # clean frames are the first tokens of all
            rope=Rope(ctx.rope.cos[mine], ctx.rope.sin[mine]),
            mask=Shares(ctx.mask, sizes),  # pyright: ignore[reportArgumentType]
        )
        img = trunk(model, img[:, mine], txt, ctx)
        gathered = exchange(repeat(img, "B n D -> (P n) B D", P=ranks), [sizes[rank]] * ranks, sizes, group)
        return rearrange(gathered, "N B D -> B N D")

    return parallel_trunk


def trade_tokens_for_heads(kernel: AttentionFn, group: dist.ProcessGroup) -> AttentionFn:
    """Attention of this rank's image tokens and all text, which `kernel` computes on all tokens and this rank's heads."""

    def parallel_attention(
        q: Float[Tensor, "B S H D"], k: Float[Tensor, "B S H D"], v: Float[Tensor, "B S H D"], shares: Shares
    ) -> Float[Tensor, "B S H D"]:
        rank, ranks, (mask, sizes) = group.rank(), group.size(), shares
        num_img, num_txt = sizes[rank], q.shape[1] - sizes[rank]
        img, txt = torch.stack([q, k, v]).split([num_img, num_txt], dim=2)

        img = rearrange(img, "qkv B n (P h) D -> (P n) qkv B h D", P=ranks)
        img = rearrange(exchange(img, [num_img] * ranks, sizes, group), "N qkv B h D -> qkv B N h D")
        txt = txt.chunk(ranks, dim=3)[rank]
        q, k, v = torch.cat([img, txt], dim=2)
        out = rearrange(kernel(q, k, v, mask), "B S h D -> S B h D")

        *img_parts, txt = out.split([*sizes, num_txt])
        out = torch.cat([part for img in img_parts for part in (img, txt)])  # to each rank its image tokens and all text
        out = exchange(out, [size + num_txt for size in sizes], [num_img + num_txt] * ranks, group)
        return rearrange(out, "(P S) B h D -> B S (P h) D", P=ranks)

    return parallel_attention  # pyright: ignore[reportReturnType]


def exchange(
    x: Float[Tensor, "sent *shape"], send: Sequence[int], receive: Sequence[int], group: dist.ProcessGroup
) -> Float[Tensor, "received *shape"]:
    """Row ranges of `x`, `send[r]` rows to rank r, for `receive[r]` rows from it; differentiable."""
    return _Exchange.apply(x, list(send), list(receive), group)


class _Exchange(torch.autograd.Function):
    """PyTorch's own differentiable all-to-alls are deprecated or private; the plain one is neither."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, send: list[int], receive: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.send, ctx.receive, ctx.group = send, receive, group
        out = x.new_empty(sum(receive), *x.shape[1:])
        dist.all_to_all_single(out, x.contiguous(), receive, send, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return exchange(gradient, ctx.receive, ctx.send, ctx.group), None, None, None
