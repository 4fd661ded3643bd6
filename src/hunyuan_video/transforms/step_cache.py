"""Step caches: near steps ask a transformer for nearly the same, so some are answered from what it said before. They make another video
than the exact one, near it.

* `Drift` (as EasyCache, arXiv 2507.02860) repeats the last velocity while, by how it changed with the latents before, it changes little.
* `Taylor` (as TaylorSeer, arXiv 2503.06923) extrapolates the last velocities over the noise level while that errs little.
* `first_block` (as ParaAttention's) runs the first block, and leaves out the others while that one adds nearly what it added before.

The former two wrap the velocity of a branch of guidance and not the model: latents and velocities are small, whole on every rank, and the
same whatever was done to the model, which is not called at all when a step is left out. Only the last one has to look inside.

The first steps are computed, and so is the last one, whose error no later step can make up for. Which first ones is a rule in steps and not
in noise levels, for those follow from the schedule, which has its steps where they are needed. What is remembered is one branch's and one
video's. On many ranks, all of which must make each call, what decides is summed over them by `total`, and so the same on each, even if
what they computed differs in a last bit.

Letters: N image tokens, L text tokens, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video import config
from hunyuan_video.models.transformer import Context, HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.sampling import Velocity

WARMUP, FEWEST = 0.1, 3  # of the steps; three velocities tell what a line through two of them misses

Total = Callable[[Tensor], Tensor]


def alone(x: Tensor) -> Tensor:
    """The sum over one process."""
    return x


def dense_steps(num_steps: int) -> int:
    """How many of the first steps are computed in any case."""
    return max(FEWEST, math.ceil(WARMUP * num_steps))


@dataclass
class Turns:
    """Of one branch, the steps of a video: whether the next one may be left out, which is so while it is expected to err by less than
    `threshold`, relative to what it should be."""

    num_steps: int
    threshold: float
    total: Total = alone
    step: int = 0

    def leaves_out(self, expected: Callable[[], float]) -> bool:
        """To be asked once a step. What is `expected` must be the same on all ranks, as `share` is."""
        self.step += 1
        return dense_steps(self.num_steps) < self.step < self.num_steps and expected() < self.threshold

    def share(self, part: Tensor, whole: Tensor) -> float:
        """The norm of a part over that of the whole, of all ranks together."""
        precise = torch.promote_types(part.dtype, torch.float32)
        squares = torch.stack([torch.linalg.vector_norm(x, dtype=precise).square() for x in (part, whole)])
        of_part, of_whole = self.total(squares).tolist()
        return math.sqrt(of_part / of_whole) if of_whole > 0 else math.inf


class Drift:
    """A velocity that is repeated. Expected is the change since it was computed: of the latents, times how it changed with them last."""

    def __init__(self, velocity: Velocity, turns: Turns):
        self._velocity, self._turns = velocity, turns
        self._computed: tuple[Tensor, Tensor] | None = None  # latents and their velocity
        self._before: Tensor | None = None  # the latents of the last step, computed or not
        self._rate, self._gathered = math.inf, 0.0

    def __call__(self, x: Float[Tensor, "*shape"], sigma: float) -> Float[Tensor, "*shape"]:
        left_out = self._turns.leaves_out(lambda: self._expected(x))
        self._before = x
        if left_out:
            assert self._computed is not None
            return self._computed[1]
        velocity = self._velocity(x, sigma)
        if self._computed is not None:
            then, old = self._computed
            moved = self._turns.share(x - then, velocity)
            self._rate = self._turns.share(velocity - old, velocity) / moved if moved > 0 else math.inf
        self._computed, self._gathered = (x, velocity), 0.0
        return velocity

    def _expected(self, x: Tensor) -> float:
        assert self._computed is not None and self._before is not None
        self._gathered += self._rate * self._turns.share(x - self._before, self._computed[1])
        return self._gathered


class Taylor:
    """A velocity on the line through the last two that were computed, over the noise level. Expected is what such a line missed last, which
    grows with the distance from either."""

    def __init__(self, velocity: Velocity, turns: Turns):
        self._velocity, self._turns = velocity, turns
        self._points: list[tuple[float, Tensor]] = []  # noise levels and velocities, the newest last
        self._miss = math.inf

    def __call__(self, x: Float[Tensor, "*shape"], sigma: float) -> Float[Tensor, "*shape"]:
        if self._turns.leaves_out(lambda: self._miss * self._distance(sigma)):
            return self._foretold(sigma)
        velocity = self._velocity(x, sigma)
        if len(self._points) == 2:
            self._miss = self._turns.share(velocity - self._foretold(sigma), velocity) / self._distance(sigma)
        self._points = [*self._points[-1:], (sigma, velocity)]
        return velocity

    def _foretold(self, sigma: float) -> Tensor:
        (first, old), (second, new) = self._points
        return torch.lerp(old, new, (sigma - first) / (second - first))

    def _distance(self, sigma: float) -> float:
        return math.prod(abs(sigma - level) for level, _ in self._points)


@dataclass
class _Blocks:
    """What the first block of a branch added to the image tokens, and all others after it, when these were last computed."""

    turns: Turns
    by_first: Tensor | None = None
    by_others: Tensor | None = None

    def leave_out(self, by_first: Tensor) -> bool:
        """Whether the others can be. If not, what they added before is no more needed, and that memory is theirs to work with."""
        left_out = self.turns.leaves_out(lambda: self._change(by_first))
        if not left_out:
            self.by_first, self.by_others = by_first, None
        return left_out

    def _change(self, by_first: Tensor) -> float:
        assert self.by_first is not None
        return self.turns.share(by_first - self.by_first, self.by_first)


@contextmanager
def first_block(model: HunyuanVideoTransformer, turns: Callable[[], Turns], computed: Callable[[], None]) -> Iterator[None]:
    """Inside, the calls of a model are the steps of one video; each branch of guidance has `turns()` of its own. `computed` is called
    whenever all blocks are. For inference; what is remembered is forgotten at the end."""
    given, branches = model.trunk, dict[int, _Blocks]()

    def cached_trunk(
        model: HunyuanVideoTransformer, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context
    ) -> Float[Tensor, "B N D"]:
        known = branches.setdefault(ctx.branch, _Blocks(turns()))
        after_first, left_out, first = img[:, :0], False, model.blocks[0]

        def call(block: nn.Module, *inputs: Any) -> Any:
            nonlocal after_first, left_out
            *tokens, _ctx = inputs
            if left_out:
                return tokens[0] if len(tokens) == 1 else tuple(tokens)
            if block is not first:
                return block(*inputs)
            before = tokens[0].clone()  # blocks may work in place
            out = block(*inputs)
            after_first = out[0].clone()
            left_out = known.leave_out(after_first - before)
            return out

        out = given(model, img, txt, ctx, call)  # pyright: ignore[reportCallIssue] (as `trunk` of the model itself)
        if left_out:
            assert known.by_others is not None
            return out + known.by_others
        known.by_others = out - after_first
        computed()
        return out

    model.trunk = cached_trunk
    try:
        yield
    finally:
        model.trunk = given


class CachedSteps:
    """Of one video: what is put around the velocity of each branch of guidance, and into the model. Counts what was asked of it and what
    was computed; "off" only counts."""

    def __init__(self, kind: config.StepCache, threshold: float, num_steps: int, total: Total = alone):
        self._kind, self._turns = kind, partial(Turns, num_steps, threshold, total)
        self.asked = self.computed = 0

    def of_branch(self, velocity: Velocity) -> Velocity:
        """The velocity of a branch that is to be used; the model is called by `velocity`."""
        if self._kind == "drift":
            velocity = Drift(self._counting(velocity), self._turns())
        elif self._kind == "taylor":
            velocity = Taylor(self._counting(velocity), self._turns())
        elif self._kind == "off":
            velocity = self._counting(velocity)

        def asked(x: Tensor, sigma: float) -> Tensor:
            self.asked += 1
            return velocity(x, sigma)

        return asked

    def inside(self, model: HunyuanVideoTransformer) -> AbstractContextManager[None]:
        """A block in which that model is called."""
        return first_block(model, self._turns, self._count) if self._kind == "first-block" else nullcontext()

    def _counting(self, velocity: Velocity) -> Velocity:
        def counted(x: Tensor, sigma: float) -> Tensor:
            self._count()
            return velocity(x, sigma)

        return counted

    def _count(self) -> None:
        self.computed += 1


def remembered_bytes(sizes: TransformerConfig, num_tokens: int, itemsize: int, branches: int = 1) -> int:
    """What `first_block` remembers of a video of `num_tokens` image tokens, from step to step and within one."""
    return (2 * branches + 1) * num_tokens * sizes.hidden_size * itemsize
