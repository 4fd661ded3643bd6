"""PipeFusion (arXiv 2405.14430): the blocks of a model on several ranks, a video's tokens through them in patches, and attention to keys
and values of which some are one step old.

Consecutive steps see nearly the same video. So, after some exact steps, a patch of the image tokens goes through all blocks alone: in each
it attends to the keys and values of this step where they are there, which is its own and earlier patches', and to those of the last step
for later patches. Text goes with the first patch, so that all patches see it as it is now. Then patches can follow each other through
stages of blocks like cars on an assembly line, and a rank sends each token's hidden state once a step, where sequence parallelism sends its
keys, values and more in every block.

What is old depends on the patches alone, not on the stages: one process with M patches computes what P ranks with M patches do. With one
patch nothing is old.

    spread_blocks(model, group)                                     # once; exact until patches are asked for
    with one_step_old(model, patches=8, warmup_steps=4):            # for one video
        ...

Letters: B batch, N image tokens, L text tokens, n l those of one patch, S = N + L; D hidden size, H heads, K head dimension.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hunyuan_video.distributed.sequence import shares
from hunyuan_video.models.attention import AttentionFn
from hunyuan_video.models.transformer import Context, HunyuanVideoTransformer, TransformerConfig, TrunkFn, predict, stack, trunk
from hunyuan_video.transforms import lean


@contextmanager
def one_step_old(model: HunyuanVideoTransformer, patches: int, warmup_steps: int) -> Iterator[None]:
    """Inside, the calls of a model are the steps of one video, of which all but the first `warmup_steps` go through it in `patches` parts.
    Each branch of guidance counts, and remembers, its own. For inference; what is remembered is forgotten at the end.

    Raises:
        ValueError: something else has wrapped the model's calls already; or, when it is called, there are more patches than image tokens.
    """
    given = model.predict
    line = given if isinstance(given, Line) else Line()
    if model.trunk not in (trunk, lean.trunk) or given not in (predict, line):
        raise ValueError("The model's calls are wrapped already, and what wraps them would see patches as whole videos.")
    model.predict = in_patches(line, patches, warmup_steps)
    try:
        yield
    finally:
        model.predict = given


def in_patches(line: Line, patches: int, warmup_steps: int) -> TrunkFn:
    """Predict all tokens at once in the first steps, and then patch by patch."""
    branches: dict[int, Remembered] = {}

    def predict_in_patches(
        model: HunyuanVideoTransformer, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context
    ) -> Float[Tensor, "B N out"]:
        if img.shape[1] < patches:
            raise ValueError(f"A video of {img.shape[1]} tokens cannot be cut into {patches} patches, of which each needs one; use fewer.")
        remembered = branches.setdefault(ctx.branch, Remembered())
        remembered.steps += 1
        sizes = shares(img.shape[1], 1 if remembered.steps <= warmup_steps else patches)
        return line.run(model, remembered.cut(img, txt, ctx, sizes))

    return predict_in_patches


@dataclass(frozen=True)
class Patch:
    """Some image tokens, and the text tokens or none, on their way through the blocks, of which each is run by `call(block, *inputs)`."""

    img: Float[Tensor, "B n D"]
    txt: Float[Tensor, "B l D"]
    ctx: Context
    call: Callable[..., Any] = operator.call


class Remembered:
    """The newest keys (after RoPE) and values of all of a video's tokens, image before text, in each block of one branch of guidance."""

    def __init__(self) -> None:
        self.steps = 0
        self.blocks: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def cut(self, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context, sizes: list[int]) -> list[Patch]:
        """Patches of `sizes` image tokens, the first one with the text, whose attention remembers and is reminded."""
        starts = list(accumulate(sizes, initial=0))
        of_text, total = slice(starts[-1], starts[-1] + txt.shape[1]), starts[-1] + txt.shape[1]
        patches = []
        for start, part in zip(starts, img.split(sizes, dim=1), strict=False):  # there is one more start
            places = [slice(start, start + part.shape[1]), of_text] if start == 0 else [slice(start, start + part.shape[1])]
            call = partial(self._call, places, total)
            patches.append(Patch(part, txt if start == 0 else txt[:, :0], ctx.of_part(start, part.shape[1]), call))
        return patches

    def _call(self, places: list[slice], total: int, block: nn.Module, *inputs: Any) -> Any:
        *tokens, ctx = inputs
        return block(*tokens, ctx._replace(attend=partial(self._attend, block, places, total)))

    def _attend(
        self,
        block: nn.Module,
        places: list[slice],
        total: int,
        kernel: AttentionFn,
        q: Float[Tensor, "B s H K"],
        k: Float[Tensor, "B s H K"],
        v: Float[Tensor, "B s H K"],
        mask: Bool[Tensor, "B 1 S"] | None,
    ) -> Float[Tensor, "B s H K"]:
        if block not in self.blocks:  # copies, for keys and values are views into more
            keys, values = (x.new_empty(x.shape[0], total, *x.shape[2:]) for x in (k, v))
            self.blocks[block] = keys, values
        for kept, new in zip(self.blocks[block], (k, v), strict=True):
            for place, part in zip(places, new.split([place.stop - place.start for place in places], dim=1), strict=True):
                kept[:, place] = part
        return kernel(q, *self.blocks[block], mask)


@dataclass(frozen=True)
class Line:
    """The stages of a model, of which this process is one; without a group it is all of them. As `model.predict` it is exact."""

    group: dist.ProcessGroup | None = None

    def __call__(
        self, model: HunyuanVideoTransformer, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context
    ) -> Float[Tensor, "B N out"]:
        return self.run(model, [Patch(img, txt, ctx)])

    def run(self, model: HunyuanVideoTransformer, patches: Sequence[Patch]) -> Float[Tensor, "B N out"]:
        """One step: patches come from the stage before, each while this stage works at another, and go to the stage after. The last stage's
        velocity, which is narrow, goes to all."""
        if self.group is None:
            return torch.cat(
                [_unembed(model, patch, stack(model, patch.img, patch.txt, patch.ctx, patch.call)) for patch in patches], dim=1
            )
        stage, last = self.group.rank(), self.group.size() - 1
        out: list[Tensor] = []
        coming = None if stage == 0 else _Arrival(patches[0], self.group)
        leaving: tuple[Tensor, Any] | None = None  # what is sent must stay until it is
        for number, patch in enumerate(patches):
            img, txt = (patch.img, patch.txt) if coming is None else coming.wait()
            if coming is not None and number + 1 < len(patches):
                coming = _Arrival(patches[number + 1], self.group)
            x = stack(model, img, txt, patch.ctx, patch.call)
            if stage == last:
                out.append(_unembed(model, patch, x))
                continue
            if leaving is not None:
                leaving[1].wait()
            leaving = x, dist.isend(x, group=self.group, group_dst=stage + 1)
        if leaving is not None:
            leaving[1].wait()
        first, width = patches[0].img, model.final_layer.linear.out_features
        whole = torch.cat(out, dim=1) if out else first.new_empty(len(first), sum(patch.img.shape[1] for patch in patches), width)
        dist.broadcast(whole, group=self.group, group_src=last)
        return whole


class _Arrival:
    """A patch on its way from the stage before."""

    def __init__(self, patch: Patch, group: dist.ProcessGroup):
        self._sizes = [patch.img.shape[1], patch.txt.shape[1]]
        self._x = patch.img.new_empty(len(patch.img), sum(self._sizes), patch.img.shape[2])
        self._work = dist.irecv(self._x, group=group, group_src=group.rank() - 1)
        assert self._work is not None

    def wait(self) -> tuple[Tensor, ...]:
        assert self._work is not None
        self._work.wait()
        return self._x.split(self._sizes, dim=1)


def _unembed(model: HunyuanVideoTransformer, patch: Patch, x: Float[Tensor, "B s D"]) -> Float[Tensor, "B n out"]:
    return model.final_layer(x[:, : patch.img.shape[1]], patch.ctx)


class Elsewhere(nn.Module):
    """A block that another stage has. Tokens go through as they are."""

    def forward(self, *inputs: Any) -> Any:
        *tokens, _ctx = inputs
        return tokens[0] if len(tokens) == 1 else tuple(tokens)


def spread_blocks(model: HunyuanVideoTransformer, group: dist.ProcessGroup) -> None:
    """Leave this rank of `group` its blocks of a finished model. All ranks must make each call, with the same inputs, and get the whole
    output. For inference.

    Raises:
        ValueError: there are more ranks than blocks.
    """
    keep_blocks(model, group.rank(), group.size())
    model.predict = Line(group)


def keep_blocks(model: HunyuanVideoTransformer, stage: int, stages: int) -> None:
    """Of a model's blocks only those of one stage, as many as the others have or one more: blocks of both kinds take the same time. What
    embeds and unembeds is on every rank.

    Raises:
        ValueError: there are more stages than blocks.
    """
    sizes = shares(len(model.blocks), stages)
    if sizes[-1] == 0:
        raise ValueError(f"{stages} stages cannot share {len(model.blocks)} blocks, of which each needs one; use fewer.")
    own = range(sum(sizes[:stage]), sum(sizes[: stage + 1]))
    for number in range(len(model.blocks)):
        if number not in own:
            blocks, place = model.double_blocks, number
            if number >= len(blocks):
                blocks, place = model.single_blocks, number - len(blocks)
            blocks[place] = Elsewhere()


def remembered_bytes(config: TransformerConfig, num_tokens: int, itemsize: int, stages: int = 1, branches: int = 1) -> int:
    """What the fullest stage remembers of a video of `num_tokens`, image and text: keys and values in each of its blocks."""
    blocks = shares(config.num_double_blocks + config.num_single_blocks, stages)[0]
    return 2 * branches * blocks * num_tokens * config.hidden_size * itemsize


def sent_bytes(config: TransformerConfig, num_tokens: int, itemsize: int) -> int:
    """What a stage sends the next one in a step. The velocity, 48 times narrower in the released model, comes on top."""
    return num_tokens * config.hidden_size * itemsize


def stage_steps(stages: int, patches: int, warmup_steps: int, num_steps: int) -> float:
    """How long a video takes beside one stage's work of one step. An exact step goes through the stages one by one; of others, each stage
    waits for the first patch to come and the last one to go."""
    exact = min(warmup_steps, num_steps)
    return exact * stages + (num_steps - exact) * (patches + stages - 1) / patches
