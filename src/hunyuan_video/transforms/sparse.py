"""Block-sparse attention: in most steps and blocks of a model, queries see the keys of some blocks of tokens only. Changes the video.

Image tokens are put in an order in which neighbours in space and time stand together, once around each call of the model, so that a block
of 64 or 128 of them is a small box of the video. Which boxes a box sees, so many that they hold the asked share of all pairs, is

* `tiles`: the nearest ones, as sliding tile attention has it (arXiv 2502.04507),
* `radial`: near ones of its own time, and the fewer the farther in time, half as many at twice the distance (arXiv 2506.19852),
* `dynamic`: chosen in each head and step, by the product of the boxes' mean query and key (arXiv 2505.16864, 2502.13189); a quarter of them
  are the nearest.

Text sees all and is seen by all. What errors cost most is exact: the first steps, the last one, and the first block.

Letters: N image tokens, L text tokens, S = N + L, H heads, D head or hidden size, h of lists, q blocks of queries, b of image keys.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.sparse import attend_to_blocks, seen_pairs
from hunyuan_video.memory import let_go
from hunyuan_video.models.attention import AttentionFn
from hunyuan_video.models.rope import Rope
from hunyuan_video.models.transformer import Context, HunyuanVideoTransformer, Stretches, TrunkFn, stretches
from hunyuan_video.sampling import Velocity

log = logging.getLogger(__name__)

Pattern = Literal["tiles", "radial", "dynamic"]
DENSE_STEPS, DENSE_BLOCKS = 0.2, 1  # the share of a video's steps that comes first, and the blocks of the model that do
LOCAL = 4  # of the boxes that `dynamic` chooses, one in so many is there because it is near
MANY = 8192  # image tokens from which on blocks hold 128, and 1,024 queries share a list, without which kernels on a CPU are slow


def block_sizes(num_image: int) -> tuple[int, int]:
    """Tokens of a block, and queries that share a list."""
    return (128, 1024) if num_image >= MANY else (64, 64)


def sparse_between(sigmas: Sequence[float]) -> tuple[float, float]:
    """The noise levels of a video between which its steps are sparse: above the first, at most the second."""
    steps = len(sigmas) - 1
    return sigmas[-2], sigmas[min(math.ceil(DENSE_STEPS * steps), steps - 1)]


def mean_density(density: float, num_steps: int, num_blocks: int) -> float:
    """What a video computes of all its pairs where its sparse steps compute `density`."""
    steps = max(0, num_steps - 1 - math.ceil(DENSE_STEPS * num_steps)) / num_steps
    blocks = max(0, num_blocks - DENSE_BLOCKS) / num_blocks
    return 1 - steps * blocks * (1 - density)


@contextmanager
def sparse_attention(
    model: HunyuanVideoTransformer,
    grid: tuple[int, int, int],
    density: float,
    pattern: Pattern,
    between: tuple[float, float],
    parts: Callable[[int, int], list[tuple[int, int]]] = lambda image, text: [(image, text)],
    clean_frames: Collection[int] = (),
) -> Iterator[Callable[[Velocity], Velocity]]:
    """Inside, a model's calls are of videos of a token `grid`. Yields what makes a velocity tell its noise level, `between` which calls are
    sparse. Where many ranks share the tokens, those of a kernel's call lie in `parts`, each some image tokens and then some text.
    Frames that the calls are given clean stand together, if they are said to be: the output is the same, and sooner there.
    """
    video = Video(grid, density, pattern, parts, clean_frames)
    given, kernels = model.predict, [block.attention for block in model.blocks]
    model.predict = in_boxes(given, video.order)
    for block in model.blocks[DENSE_BLOCKS:]:
        block.attention = Thinned(video, block.attention)  # pyright: ignore[reportArgumentType] (a function)
    low, high = between

    def telling(velocity: Velocity) -> Velocity:
        def told(x: Tensor, sigma: float) -> Tensor:
            video.is_sparse = low < sigma <= high
            return velocity(x, sigma)

        return told

    try:
        yield telling
    finally:
        model.predict = given
        for block, kernel in zip(model.blocks, kernels, strict=True):
            block.attention = kernel
    if video.seen:
        seen = 100 * statistics.mean(video.seen.values())
        log.info("Attention computed %.1f %% of its pairs in sparse steps and blocks of %d image tokens.", seen, len(video.order))
    else:
        log.warning(
            "Attention left out nothing in steps of %d image tokens, %d to a block: of so few tokens and steps there is nothing to choose.",
            *(len(video.order), video.block),
        )


def in_boxes(predict: TrunkFn, order: Int[Tensor, " N"]) -> TrunkFn:
    """Predict with the image tokens in another order, and bring what comes out back."""

    def predict_in_boxes(
        model: HunyuanVideoTransformer, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context
    ) -> Float[Tensor, "B N out"]:
        there = order.to(img.device)
        back = there.argsort()
        ctx = ctx._replace(rope=Rope(*(table[there] for table in ctx.rope)), clean=moved(ctx.clean, order))
        boxed = img[:, there]
        let_go(img)
        return predict(model, boxed, txt, ctx)[:, back]

    return predict_in_boxes


def moved(clean: Stretches, order: Int[Tensor, " N"]) -> Stretches:
    """Where tokens are that another order has in these stretches."""
    if not clean:
        return clean
    marks = torch.zeros(len(order), dtype=torch.bool)
    for start, stop in clean:
        marks[start:stop] = True
    return stretches(marks[order].tolist())


def boxes_order(grid: tuple[int, int, int], clean_frames: Collection[int] = ()) -> Int[Tensor, " N"]:
    """Tokens of a row-major grid along a Z-order curve, of which each stretch of 64 or 512 is a box of 4 or 8 each way, edges apart. Frames
    that are given clean come before the others, and so does the first one, which is a frame of the video and not four."""
    time, row, column = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    is_clean = torch.isin(time, torch.tensor([*clean_frames], dtype=torch.long))
    axes = (time - 1).clamp(min=0), row, column
    key = torch.where(is_clean, 0, torch.where(time == 0, 1, 2)) << 60
    for bit in range(19):
        for place, axis in enumerate(reversed(axes)):
            key |= (axis >> bit & 1) << (3 * bit + place)
    return key.flatten().argsort(stable=True)


class Video:
    """What a video's calls share: where its tokens are, which pairs are computed, and whether the call at hand is sparse."""

    def __init__(
        self,
        grid: tuple[int, int, int],
        density: float,
        pattern: Pattern,
        parts: Callable[[int, int], list[tuple[int, int]]],
        clean_frames: Collection[int] = (),
    ) -> None:
        self.density, self.pattern, self.parts = density, pattern, parts
        self.order = boxes_order(grid, clean_frames)
        self.is_sparse = False
        self.seen: dict[int, float] = {}  # by the number of tokens: of all pairs, the share that sparse calls compute
        self.last_density = 1.0  # of the last call, whatever it was
        self.block, self._sharing = block_sizes(len(self.order))
        frame = grid[1] * grid[2]
        places = torch.stack([self.order // frame, self.order % frame // grid[2], self.order % grid[2]], dim=1).float()
        self._keys = _means(places, self.block)  # where the boxes are: frame, row, column
        self._queries = _grouped(self._keys, self._sharing // self.block)
        self._extent = torch.tensor(grid)
        self._known: dict[tuple[int, torch.device], BlockLists] = {}  # of patterns that do not look at what tokens hold

    def attend(
        self,
        kernel: AttentionFn,
        q: Float[Tensor, "B S H D"],
        k: Float[Tensor, "B S H D"],
        v: Float[Tensor, "B S H D"],
        mask: Bool[Tensor, "B 1 S"] | None,
    ) -> Float[Tensor, "B S H D"]:
        """As the kernel, or sparse. A mask is for prompts of several lengths in one batch, which no video has."""
        if not self.is_sparse or mask is not None or len(self._keys) == 0:
            self.last_density = 1.0
            return kernel(q, k, v, mask)
        parts = self.parts(len(self.order), q.shape[1] - len(self.order))
        q, k, v = (_image_first(x, parts) for x in (q, k, v))
        each = zip(q.split(1), k.split(1), v.split(1), strict=True)
        out = torch.cat([attend_to_blocks(kernel, q, k, v, self.lists(q, k)) for q, k, v in each])
        self.last_density = self.seen[q.shape[1]]
        return _as_parts(out, parts)

    def lists(self, q: Float[Tensor, "1 S H D"], k: Float[Tensor, "1 S H D"]) -> BlockLists:
        """What each block of queries sees of image, then text. Blocks with text in them see, and are seen by, all."""
        key, device = (q.shape[1], q.device), q.device
        if key in self._known:
            return self._known[key]
        boxes, blocks = len(self._keys), -(-q.shape[1] // self.block)
        wanted = min(boxes, max(1, round(self.density * blocks) - (blocks - boxes)))
        chosen = self._scores(q, k, wanted).topk(wanted, dim=-1).indices.sort(dim=-1).values
        own = chosen.int().repeat_interleave(self._sharing // self.block, dim=1)[:, :boxes]
        every = torch.arange(blocks, dtype=torch.int32, device=device)
        indices = every.repeat(len(own), blocks, 1)
        indices[:, :boxes, :wanted] = own
        indices[:, :boxes, wanted : wanted + blocks - boxes] = every[boxes:]
        counts = torch.full((len(own), blocks), blocks, dtype=torch.int32, device=device)
        counts[:, :boxes] = wanted + blocks - boxes
        lists = BlockLists(indices, counts, self.block, self.block)
        if q.shape[1] not in self.seen:  # whichever boxes they are, all calls choose as many, and each box is whole
            self.seen[q.shape[1]] = seen_pairs(lists, q.shape[1])
        if self.pattern != "dynamic":
            self._known[key] = lists
        return lists

    def _scores(self, q: Float[Tensor, "1 S H D"], k: Float[Tensor, "1 S H D"], wanted: int) -> Float[Tensor, "h g b"]:
        """How much each group of queries is to see each box; of several that are alike, none in particular."""
        queries, keys = self._queries, self._keys
        apart = (queries[:, None] - keys).abs()
        distance = (apart / self._extent).amax(-1)  # the share of the video that is between them, in the direction where it is most
        if self.pattern == "tiles":
            return -distance[None].to(q.device)
        if self.pattern == "radial":
            in_space = (apart[..., 1:] / self._extent[1:]).square().sum(-1)
            return -(in_space * 2 ** apart[..., 0].clamp(min=1).log2().floor())[None].to(q.device)
        of_keys, of_blocks = (_means(x[0, : len(keys) * self.block], self.block) for x in (k, q))
        scores = torch.einsum("ghd,bhd->hgb", _grouped(of_blocks, self._sharing // self.block), of_keys)
        near = distance.topk(max(1, wanted // LOCAL), dim=-1, largest=False).indices.to(q.device)
        return scores.scatter(-1, near.expand(len(scores), -1, -1), float("inf"))


class Thinned:
    """A block's kernel while a video is made, which looks at some pairs in some calls."""

    def __init__(self, video: Video, kernel: AttentionFn) -> None:
        self.video, self.kernel = video, kernel

    def __call__(
        self, q: Float[Tensor, "B S H D"], k: Float[Tensor, "B S H D"], v: Float[Tensor, "B S H D"], mask: Bool[Tensor, "B 1 S"] | None
    ) -> Float[Tensor, "B S H D"]:
        return self.video.attend(self.kernel, q, k, v, mask)

    @property
    def density(self) -> float:
        """The share of all pairs that the last call looked at."""
        return self.video.last_density


def _means(x: Tensor, size: int) -> Tensor:
    """Of each whole block of rows."""
    whole = len(x) // size
    return x[: whole * size].unflatten(0, (whole, size)).mean(dim=1, dtype=torch.float32)


def _grouped(blocks: Tensor, count: int) -> Tensor:
    """The mean of so many blocks at a time; the last ones may be fewer."""
    return blocks if count == 1 else torch.stack([part.mean(dim=0) for part in blocks.split(count)])


def _image_first(x: Float[Tensor, "B S H D"], parts: list[tuple[int, int]]) -> Float[Tensor, "B S H D"]:
    if len(parts) == 1:
        return x
    pieces = x.split([size for part in parts for size in part], dim=1)
    return torch.cat([*pieces[0::2], *pieces[1::2]], dim=1)


def _as_parts(x: Float[Tensor, "B S H D"], parts: list[tuple[int, int]]) -> Float[Tensor, "B S H D"]:
    """The way back."""
    if len(parts) == 1:
        return x
    images, texts = zip(*parts, strict=True)
    pieces = x.split([*images, *texts], dim=1)
    return torch.cat([piece for pair in zip(pieces[: len(parts)], pieces[len(parts) :], strict=True) for piece in pair], dim=1)
