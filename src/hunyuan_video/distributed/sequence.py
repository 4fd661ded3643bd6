"""One video on many ranks, exactly, forward and backward: Ulysses (arXiv 2309.14509) times ring attention (arXiv 2310.01889).

Every rank runs all blocks on its own share of the image tokens and of the text tokens. Only attention must see all of them:

* Among the U ranks of a Ulysses group tokens are traded for heads, so that a rank holds every token of the group for its share of heads.
* Among the R groups, in a ring, keys and values go round, and each rank merges what its queries make of each part by the log-sum-exp.

Shares of tokens and of heads may differ by one, so any size of video fits any number of ranks, unpadded. Heads are traded in pieces: the
next piece travels while the last one is computed, and so do the ring's next keys. On the meta device, for a plan, nothing is sent.

Whatever is sent has a backward pass that sends gradients the other way round. So autograd yields, on every rank, the gradient of the *sum*
of all ranks' losses: where each computes its loss on the whole output (or any loss of its own), the mean of the parameters' gradients over
the ranks, which data parallelism takes anyway, is the gradient of the mean loss.

Letters: B batch, N image tokens, L text tokens, S = N + L, s those of one rank, G those of a Ulysses group, H heads, h heads of one rank in
a piece, D head or hidden size, W width of what is sent for a token and a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from hunyuan_video.distributed.wire import Wire
from hunyuan_video.distributed.world import Degrees, SequenceGroups
from hunyuan_video.kernels.partial import attend_to_part, gradients_of_part
from hunyuan_video.memory import let_go
from hunyuan_video.models.attention import AttentionFn
from hunyuan_video.models.transformer import Context, HunyuanVideoTransformer, TrunkFn

PIECES = 4  # at most, of a rank's heads: all but the first travel in and all but the last travel out while others are computed


def parallelize_sequence(model: HunyuanVideoTransformer, groups: SequenceGroups, wire: Wire = Wire.EXACT) -> None:
    """Put each call of a finished model on the ranks of `groups`, which must all make the call with the same inputs; each gets the whole
    output, and the mean over the ranks of the parameters' gradients is the gradient.

    Raises:
        ValueError: there are more Ulysses ranks than heads; or, when it is called, more ranks than image tokens.
    """
    check_degrees(Degrees(groups.ulysses.size(), groups.ring.size()), model.config.num_heads)
    model.predict = cut_tokens(model.predict, groups, wire)


def check_degrees(degrees: Degrees, num_heads: int) -> None:
    """Raises a ValueError for more Ulysses ranks than attention heads, which have nothing to trade."""
    if degrees.ulysses > num_heads:
        raise ValueError(
            f"The Ulysses degree is {degrees.ulysses}, but the transformer has {num_heads} attention heads, of which each rank needs one; "
            "use a smaller one, and a ring degree for the other ranks."
        )


def shares(total: int, ranks: int) -> list[int]:
    """What each rank gets of `total` things: as many as the others or one more, the first ranks first."""
    return [(total + ranks - 1 - rank) // ranks for rank in range(ranks)]


def parts_of(image: int, text: int, ranks: int) -> list[tuple[int, int]]:
    """How so many image and text tokens lie on the ranks, and, where these have traded them for heads, one after the other."""
    return list(zip(shares(image, ranks), shares(text, ranks)[::-1], strict=True))  # who has one more of these has one less of those


def cut_tokens(predict: TrunkFn, groups: SequenceGroups, wire: Wire) -> TrunkFn:
    """Predict on this rank's tokens, and gather the image tokens' values, which are few, of all."""

    def parallel_predict(
        model: HunyuanVideoTransformer, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context
    ) -> Float[Tensor, "B N out"]:
        ranks, rank = groups.size, groups.index
        if img.shape[1] < ranks:
            raise ValueError(
                f"{ranks} ranks cannot share a video of {img.shape[1]} tokens, of which each needs one; use fewer, or more pixels."
            )
        of_img, of_txt = (list(sizes) for sizes in zip(*parts_of(img.shape[1], txt.shape[1], ranks), strict=True))
        start = sum(of_img[:rank])
        mask = ctx.mask
        if mask is not None:  # in the order in which the tokens lie: each rank's image, then its text
            image, text = mask.split([sum(of_img), sum(of_txt)], dim=-1)
            parts = zip(image.split(of_img, dim=-1), text.split(of_txt, dim=-1), strict=True)
            mask = torch.cat([part for pair in parts for part in pair], dim=-1)
        attend = Spread(groups, tuple(map(sum, zip(of_img, of_txt, strict=True))), wire)
        ctx = ctx.of_part(start, of_img[rank])._replace(mask=mask, attend=attend)
        own = img.split(of_img, 1)[rank]
        if not torch.is_grad_enabled():
            own = own.clone()
            let_go(img)
        out = predict(model, own, txt.split(of_txt, 1)[rank], ctx)
        out = gather(out, groups.in_group(of_img), groups.ulysses)
        return gather(out, groups.of_groups(of_img), groups.ring)

    return parallel_predict


@dataclass(frozen=True)
class Spread:
    """Attention of this rank's tokens to all; `sizes` are the tokens of each rank. The mask is of all tokens in the ranks' order."""

    groups: SequenceGroups
    sizes: tuple[int, ...]
    wire: Wire = Wire.EXACT

    def __call__(
        self,
        kernel: AttentionFn,
        q: Float[Tensor, "B s H D"],
        k: Float[Tensor, "B s H D"],
        v: Float[Tensor, "B s H D"],
        mask: Bool[Tensor, "B 1 S"] | None,
    ) -> Float[Tensor, "B s H D"]:
        groups, wire, dtype = self.groups, self.wire, q.dtype
        if groups.ulysses.size() == 1:
            return self._around(kernel, q, torch.cat([wire.exact(k), wire.short(v)], dim=-1), mask, dtype)
        tokens = groups.in_group(self.sizes)
        pieces = head_pieces(q.shape[2], groups.ulysses.size())
        qkv = torch.cat([wire.short(q), wire.exact(k), wire.short(v)], dim=-1)
        width_q = wire.short_width(q)
        coming = [Trade.start(qkv, pieces[0], tokens, groups.ulysses)]
        going: list[Trade] = []
        for number, piece in enumerate(pieces):
            if number + 1 < len(pieces):
                coming.append(Trade.start(qkv, pieces[number + 1], tokens, groups.ulysses))
            packed_q, packed_kv = coming.pop(0).finish().tensor_split([width_q], dim=-1)
            out = self._around(kernel, wire.long(packed_q, dtype), packed_kv, mask, dtype)
            going.append(Trade.start_back(wire.short(out), piece, tokens, groups.ulysses))
        by_rank = [back.finish().split([len(heads) for heads in piece], dim=2) for back, piece in zip(going, pieces, strict=True)]
        return wire.long(torch.cat([heads for parts in zip(*by_rank, strict=True) for heads in parts], dim=2), dtype)

    def _around(
        self,
        kernel: AttentionFn,
        q: Float[Tensor, "B G h D"],
        packed_kv: Shaped[Tensor, "B G h W"],
        mask: Tensor | None,
        dtype: torch.dtype,
    ) -> Float[Tensor, "B G h D"]:
        """Attention to what this group has, and what comes round the ring."""
        if self.groups.ring.size() > 1:
            return _Ring.apply(q, packed_kv, mask, kernel, self.groups.of_groups(self.sizes), self.groups.ring, self.wire)
        k, v = self.wire.split(packed_kv, q)
        return kernel(q, k, v, mask)


def head_pieces(num_heads: int, ranks: int) -> list[list[range]]:
    """For each piece, the heads of each rank, which has as many in all as the others, or one more."""
    own = list(pairwise(accumulate(shares(num_heads, ranks), initial=0)))
    count = min(PIECES, num_heads // ranks)  # nobody's piece is empty
    cuts = [[start + cut for cut in accumulate(shares(end - start, count), initial=0)] for start, end in own]
    return [[range(*cut[number : number + 2]) for cut in cuts] for number in range(count)]


class Trade:
    """Tokens on their way to where their heads are, or back."""

    def __init__(self, sent: Tensor, flight: _Flight, shapes: list[list[int]], dim: int):
        self._sent, self._flight, self._shapes, self._dim = sent, flight, shapes, dim

    @staticmethod
    def start(x: Shaped[Tensor, "B s H W"], piece: list[range], tokens: list[int], group: dist.ProcessGroup) -> Trade:
        """Send each rank its heads of these tokens, for those of all tokens that are this rank's."""
        batch, _, _, width = x.shape
        rows = [x[:, :, heads.start : heads.stop] for heads in piece]
        return Trade._start(rows, [[batch, n, len(piece[group.rank()]), width] for n in tokens], 1, group)

    @staticmethod
    def start_back(x: Shaped[Tensor, "B G h W"], piece: list[range], tokens: list[int], group: dist.ProcessGroup) -> Trade:
        """Send each rank its tokens of these heads, for those of all heads in the piece that are this rank's tokens."""
        batch, _, _, width = x.shape
        return Trade._start(x.split(tokens, dim=1), [[batch, tokens[group.rank()], len(heads), width] for heads in piece], 2, group)

    @staticmethod
    def _start(rows: Sequence[Tensor], shapes: list[list[int]], dim: int, group: dist.ProcessGroup) -> Trade:
        flight = _Flight(group, [x.numel() for x in rows], [torch.Size(shape).numel() for shape in shapes])
        return Trade(_Leave.apply(torch.cat([x.flatten() for x in rows]), flight), flight, shapes, dim)

    def finish(self) -> Tensor:
        """What has come, in the ranks' order along the tokens, or the heads."""
        parts = _Arrive.apply(self._sent, self._flight).split(self._flight.receive)
        return torch.cat([part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)], dim=self._dim)


@dataclass
class _Flight:
    """An exchange of `send[r]` values to rank r for `receive[r]` from it; of gradients the other way round, later."""

    group: dist.ProcessGroup
    send: list[int]
    receive: list[int]
    _under_way: tuple[Tensor, Tensor, Any] | None = None

    def depart(self, x: Tensor, *, back: bool = False) -> Tensor:
        """Where what comes will be, once it has landed."""
        send, receive = (self.receive, self.send) if back else (self.send, self.receive)
        x, out = x.contiguous(), x.new_empty(sum(receive))
        work = None if x.is_meta else dist.all_to_all_single(out, x, receive, send, group=self.group, async_op=True)
        self._under_way = x, out, work
        return out

    def land(self) -> Tensor:
        assert self._under_way is not None
        _, out, work = self._under_way
        self._under_way = None
        if work is not None:
            work.wait()
        return out


class _Leave(torch.autograd.Function):
    """An exchange begins. PyTorch's own differentiable all-to-alls are deprecated or private, and wait at once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, flight: _Flight) -> Tensor:
        ctx.flight = flight
        flight.depart(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.flight.land(), None


class _Arrive(torch.autograd.Function):
    """And ends. The backward pass begins it here, the other way round, and ends it above."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, flight: _Flight) -> Tensor:
        ctx.flight = flight
        return flight.land()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.flight.depart(gradient, back=True), None


def gather(x: Float[Tensor, "B n D"], sizes: list[int], group: dist.ProcessGroup) -> Float[Tensor, "B N D"]:
    """The tokens of all ranks of a group, on each; differentiable."""
    ranks = group.size()
    if ranks == 1:
        return x
    return Trade._start([x] * ranks, [[x.shape[0], size, x.shape[2]] for size in sizes], 1, group).finish()


class _Ring(torch.autograd.Function):
    """Attention to keys and values that go round; the backward pass sends them round again, with their gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Float[Tensor, "B G h D"],
        packed_kv: Shaped[Tensor, "B G h W"],
        mask: Bool[Tensor, "B 1 S"] | None,
        kernel: AttentionFn,
        sizes: list[int],
        group: dist.ProcessGroup,
        wire: Wire,
    ) -> Float[Tensor, "B G h D"]:
        masks = [None] * len(sizes) if mask is None else mask.split(sizes, dim=-1)
        out = lse = None
        for owner, packed in going_round(packed_kv, sizes, group):
            k, v = wire.split(packed, q)
            part, part_lse = attend_to_part(kernel, q, k, v, masks[owner])
            out, lse = (part.float(), part_lse) if out is None or lse is None else merge(out, lse, part, part_lse)
        assert out is not None and lse is not None
        result = out.type_as(q)
        ctx.save_for_backward(q, packed_kv, mask, result, lse)
        ctx.kernel, ctx.sizes, ctx.group, ctx.wire = kernel, sizes, group, wire
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, packed_kv, mask, out, lse = ctx.saved_tensors
        masks = [None] * len(ctx.sizes) if mask is None else mask.split(ctx.sizes, dim=-1)
        dq, dkv = torch.zeros_like(q, dtype=torch.float32), None
        for owner, packed in going_round(packed_kv, ctx.sizes, ctx.group):
            k, v = ctx.wire.split(packed, q)
            more_q, *more = gradients_of_part(ctx.kernel, gradient, q, k, v, masks[owner], out, lse)
            dq += more_q
            mine = torch.cat([x.float() for x in more], dim=-1)
            if dkv is not None:  # what the ranks before have added to these keys, which comes after them
                mine += hand_on(dkv, mine.shape, ctx.group)
            dkv = mine
        assert dkv is not None
        home = hand_on(dkv, packed_kv.shape, ctx.group)
        return dq.type_as(q), home.type_as(packed_kv), *[None] * 5


def going_round(x: Shaped[Tensor, "B G h W"], sizes: list[int], group: dist.ProcessGroup) -> Iterator[tuple[int, Tensor]]:
    """Whose tokens, and these: first this rank's, then those of the one before it, and so on; the next ones travel while one is used."""
    ranks, rank = group.size(), group.rank()
    x = x.contiguous()
    for step in range(ranks):
        owner = (rank - step) % ranks
        if step + 1 == ranks:
            yield owner, x
            return
        following = x.new_empty(x.shape[0], sizes[owner - 1], *x.shape[2:])
        works = _send_on(x, following, group)
        yield owner, x
        while works:
            works.pop().wait()  # which also lets go of what it sent
        x = following


def hand_on(x: Tensor, shape: torch.Size, group: dist.ProcessGroup) -> Tensor:
    """Give `x` to the next rank of a ring, for what the one before gives."""
    received = x.new_empty(shape)
    for work in _send_on(x, received, group):
        work.wait()
    return received


def _send_on(x: Tensor, received: Tensor, group: dist.ProcessGroup) -> list[dist.Work]:
    if x.is_meta:
        return []
    ranks, rank = group.size(), group.rank()
    send = dist.P2POp(dist.isend, x, group=group, group_peer=(rank + 1) % ranks)
    receive = dist.P2POp(dist.irecv, received, group=group, group_peer=(rank - 1) % ranks)
    return dist.batch_isend_irecv([send, receive])


def merge(
    out: Float[Tensor, "B G h D"], lse: Float[Tensor, "B G h"], part: Float[Tensor, "B G h D"], part_lse: Float[Tensor, "B G h"]
) -> tuple[Float[Tensor, "B G h D"], Float[Tensor, "B G h"]]:
    """Attention to some keys and to others as attention to all of them, in float32."""
    share = torch.sigmoid(part_lse - lse).unsqueeze(-1)
    return torch.lerp(out, part.float(), share), lse - F.logsigmoid(lse - part_lse)
