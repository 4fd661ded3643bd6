"""Blocks that work in place, on some tokens and some heads at a time: what is alive is the tokens, what attention made of them, and little
beside. The same products of the same numbers, so the outputs are equal but for rounding. For inference.

A block sees its tokens as *streams*: stretches of the sequence that share weights and modulation. Image and text are two; image tokens of
frames that are given clean are others.

Letters: B batch, S tokens of a sequence, n those of a stream, D hidden size, H heads, h those of a group, K head dimension.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video.kernels.inference import refuse_gradient
from hunyuan_video.kernels.pieces import Pieces
from hunyuan_video.memory import let_go
from hunyuan_video.models.rope import Rope
from hunyuan_video.models.transformer import Context, DoubleStreamBlock, HunyuanVideoTransformer, Modulation, SingleStreamBlock
from hunyuan_video.transforms.swap import prepared

# Tokens at a time. On a CPU their values stay in the cache from one layer to the next, and products of more rows are no faster: of 1,340
# rows in bfloat16, on one with matrix units, three times slower than of 512.
CHUNK = {"cpu": 512}
DEFAULT_CHUNK = 8192
GROUP_BYTES = 384 * 2**20  # of queries, keys and values at a time: 4 of 24 heads at 129x720x1280, where each group reads all tokens anew


class Stream(NamedTuple):
    """A stretch of a block's sequence."""

    x: Float[Tensor, "B n D"]  # changed in place
    start: int  # of it in the sequence
    modulation: tuple[Float[Tensor, "B 1 D"], ...]  # shift, scale and gate, of attention and, in a block with two streams, of the MLP
    rope: Rope | None

    def chunks(self) -> Iterator[tuple[Float[Tensor, "B n D"], slice, Rope | None]]:
        """Some tokens at a time, their place in the sequence, and their positions."""
        tokens, size = self.x.shape[1], chunk_size(self.x.device)
        # On the meta device memory is counted, and nothing computed: the first ones stand for all.
        for start in range(0, min(tokens, size) if self.x.is_meta else tokens, size):
            stop = min(start + size, tokens)
            rope = None if self.rope is None else Rope(*(table[start:stop] for table in self.rope))
            yield self.x[:, start:stop], slice(self.start + start, self.start + stop), rope


class Projection(NamedTuple):
    """A stream, and what makes queries, keys and values of it."""

    stream: Stream
    qkv: nn.Module
    q_norm: Tensor
    k_norm: Tensor


class LeanDoubleBlock(DoubleStreamBlock):
    pieces = Pieces()

    def forward(
        self, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B L D"]]:
        of_img = streams(img, self.img_mod, ctx)
        of_txt = [Stream(txt, img.shape[1], self.txt_mod(ctx), None)]
        image = [Projection(stream, self.img_attn_qkv, self.img_attn_q_norm.weight, self.img_attn_k_norm.weight) for stream in of_img]
        text = [Projection(stream, self.txt_attn_qkv, self.txt_attn_q_norm.weight, self.txt_attn_k_norm.weight) for stream in of_txt]
        attended = attend(self, [*image, *text], ctx)
        for some, proj, mlp in ((of_img, self.img_attn_proj, self.img_mlp), (of_txt, self.txt_attn_proj, self.txt_mlp)):
            proj, fc1, fc2 = (prepared(layer, img.dtype) for layer in (proj, mlp.fc1, mlp.fc2))
            for stream in some:
                _, _, gate1, shift2, scale2, gate2 = stream.modulation
                for x, place, _ in stream.chunks():
                    self.pieces.add_gated(x, gate1, self.pieces.linear(proj, attended[:, place]))
                    self.pieces.add_gated(x, gate2, self.pieces.mlp(fc1, fc2, self.pieces.modulate(x, shift2, scale2)))
        return img, txt


class LeanSingleBlock(SingleStreamBlock):
    pieces = Pieces()

    def forward(self, x: Float[Tensor, "B S D"], ctx: Context) -> Float[Tensor, "B S D"]:
        parts = streams(x, self.modulation, ctx)
        attended = attend(self, [Projection(part, self.linear1, self.q_norm.weight, self.k_norm.weight) for part in parts], ctx)
        to_mlp, back = prepared(self.linear1, x.dtype, [slice(self.widths[0], sum(self.widths))]), prepared(self.linear2, x.dtype)
        for part in parts:
            shift, scale, gate = part.modulation
            for tokens, place, _ in part.chunks():
                mlp = self.pieces.linear_gelu(to_mlp, self.pieces.modulate(tokens, shift, scale))
                self.pieces.add_gated(tokens, gate, self.pieces.linear(back, torch.cat([attended[:, place], mlp], dim=-1)))
        return x


def streams(x: Float[Tensor, "B n D"], modulation: Modulation, ctx: Context) -> list[Stream]:
    """A sequence that starts with the image tokens, by what modulates it."""
    made, found = modulation.linear(ctx.vec), []
    for start, stop, row in ctx.rows(x.shape[1]):
        rope = Rope(*(table[start:stop] for table in ctx.rope))
        found.append(Stream(x[:, start:stop], start, made[:, row, None].chunk(modulation.num_chunks, dim=-1), rope))
    return found


def attend(block: LeanDoubleBlock | LeanSingleBlock, projections: Sequence[Projection], ctx: Context) -> Float[Tensor, "B S D"]:
    """Attention of all streams together."""
    x = projections[0].stream.x
    tokens, heads = sum(each.stream.x.shape[1] for each in projections), block.num_heads
    dim = x.shape[2] // heads
    # What makes a kernel see other tokens than these (of other ranks, of the step before) does so once a block.
    size = head_group(heads, 3 * x.shape[0] * tokens * dim * x.itemsize) if ctx.attend is operator.call else heads
    out = None
    for start in range(0, heads, size):
        group = range(start, min(start + size, heads))
        attended = ctx.attend(block.attention, *project(block.pieces, projections, tokens, heads, group), ctx.mask)
        if len(group) == heads:
            return attended.flatten(2)
        out = x.new_empty(x.shape[0], tokens, heads, dim) if out is None else out
        out[:, :, group.start : group.stop] = attended
    assert out is not None
    return out.flatten(2)


def head_group(heads: int, bytes_of_one: int) -> int:
    """As many heads as may be alive, or one; all groups of the same size, but for the last."""
    groups = -(-heads // max(1, GROUP_BYTES // bytes_of_one))
    return -(-heads // groups)


def project(
    pieces: Pieces, projections: Sequence[Projection], tokens: int, heads: int, group: range
) -> tuple[Float[Tensor, "B S h K"], Float[Tensor, "B S h K"], Float[Tensor, "B S h K"]]:
    """Queries, keys and values of some heads."""
    x = projections[0].stream.x
    dim = x.shape[2] // heads
    rows = [slice((part * heads + group.start) * dim, (part * heads + group.stop) * dim) for part in range(3)]
    q, k, v = (x.new_empty(x.shape[0], tokens, len(group), dim) for _ in range(3))
    for stream, qkv, q_norm, k_norm in projections:
        layer, (shift, scale, *_) = prepared(qkv, x.dtype, rows), stream.modulation
        for chunk, place, rope in stream.chunks():
            made = pieces.linear(layer, pieces.modulate(chunk, shift, scale)).unflatten(-1, (3, len(group), dim))
            pieces.norm_rope(made[:, :, 0], q_norm, rope, q[:, place])
            pieces.norm_rope(made[:, :, 1], k_norm, rope, k[:, place])
            v[:, place] = made[:, :, 2]
    return q, k, v


def trunk(
    model: HunyuanVideoTransformer,
    img: Float[Tensor, "B N D"],
    txt: Float[Tensor, "B L D"],
    ctx: Context,
    call: Callable[..., Any] = operator.call,
) -> Float[Tensor, "B N D"]:
    """As the model's own, without a second copy of the tokens: they are one sequence from the start, and the caller's `img` lets go
    of what it was."""
    refuse_gradient(img, txt)
    size = img.shape[1]
    x = torch.cat([img, txt], dim=1)
    let_go(img)
    for block in model.double_blocks:
        call(block, x[:, :size], x[:, size:], ctx)
    ctx = ctx._replace(rope=ctx.rope.with_text(txt.shape[1]))
    for block in model.single_blocks:
        call(block, x, ctx)
    return x[:, :size]


def chunk_size(device: torch.device) -> int:
    """How many tokens a block takes at a time."""
    return CHUNK.get(device.type, DEFAULT_CHUNK)


def is_lean(model: HunyuanVideoTransformer) -> bool:
    """Whether any block computes its pieces by `use_pieces`; those of a training do not."""
    return any(isinstance(block, LeanDoubleBlock | LeanSingleBlock) for block in model.blocks)


def use_pieces(model: HunyuanVideoTransformer, pieces: Pieces) -> None:
    """Let lean blocks compute their pieces so."""
    for block in model.blocks:
        if isinstance(block, LeanDoubleBlock | LeanSingleBlock):
            block.pieces = pieces


def lean_blocks(model: HunyuanVideoTransformer) -> None:
    """Let a finished model's blocks compute so. They are the same blocks, with the same weights; what is passed to them is changed.

    Not by a function that each would hold (a reference cycle, which keeps 26 GB alive after `del model`), but by their class.
    """
    for block in model.blocks:
        if isinstance(block, DoubleStreamBlock):
            block.__class__ = LeanDoubleBlock
        elif isinstance(block, SingleStreamBlock):
            block.__class__ = LeanSingleBlock
    model.trunk = trunk
