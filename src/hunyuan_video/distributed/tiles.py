"""The tiles of one video computed by many ranks. All get all results, in order, and each blends them as one process does, so every bit is
the same: blending costs nothing beside computing, and a rank that blended for all would receive just as much.

A round has as many tiles as there are ranks, and its largest goes to the rank that has had the least. While a rank computes its tile, those
of the round before travel, and it may be one round ahead of the slowest; so it holds two rounds of results at most, however long the video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hunyuan_video.distributed.once import sendable

Item = TypeVar("Item")
DIMENSIONS = 5  # of a tile
FAILED = -1


def over_ranks(function: Callable[[Tensor], Tensor], tiles: Sequence[Tensor]) -> Iterator[Tensor]:
    """`map(function, tiles)` on all ranks of the default process group, which must all go through it with the same tiles, and without
    gradients; each computes a share. Results are of a tile's dtype and device.

    Raises:
        Exception: on all ranks, what `function` raises on any of them.
    """
    ranks = dist.get_world_size()
    owners = share_out([tile.numel() for tile in tiles], ranks)
    rounds = (_Round(function, tiles[start : start + ranks], owners[start : start + ranks]) for start in range(0, len(tiles), ranks))
    for done in _one_ahead(map(_Round.exchange, _one_ahead(rounds))):
        yield from done.take()


def share_out(sizes: Sequence[int], ranks: int) -> list[int]:
    """Which rank computes each tile: of as many in a row as there are ranks one each, the largest by who has had the least."""
    owners, load = [0] * len(sizes), [0] * ranks
    for start in range(0, len(sizes), ranks):
        largest_first = sorted(range(len(sizes))[start : start + ranks], key=lambda tile: -sizes[tile])
        for tile, rank in zip(largest_first, sorted(range(ranks), key=load.__getitem__), strict=False):
            owners[tile] = rank
            load[rank] += sizes[tile]
    return owners


class _Round:
    """One tile of each rank: computed and announced, then exchanged, then taken."""

    def __init__(self, function: Callable[[Tensor], Tensor], tiles: Sequence[Tensor], owners: Sequence[int]):
        self.owners, self.rank = owners, dist.get_rank()
        self.empty = tiles[0].new_empty
        self.own: Tensor | None = None
        self.error: Exception | None = None
        shape = torch.zeros(DIMENSIONS, dtype=torch.int64)
        try:
            if self.rank in owners:
                self.own = function(tiles[owners.index(self.rank)]).contiguous()
                shape = torch.tensor(self.own.shape)
        except Exception as error:  # whatever it is, the others must not wait for what will never come
            self.error = error
            shape.fill_(FAILED)
        self.shapes = [torch.empty_like(shape) for _ in range(dist.get_world_size())]
        self.announced = dist.all_gather(self.shapes, shape, async_op=True)

    def exchange(self) -> _Round:
        """Send all results on their way, once all ranks have theirs."""
        assert self.announced is not None
        self.announced.wait()
        shapes = [tuple(shape.tolist()) for shape in self.shapes]
        for rank, shape in enumerate(shapes):
            if FAILED in shape:
                raise _same_everywhere(self.error, rank)
        mine = {} if self.own is None else {self.rank: self.own}
        self.own = None
        self.results = [mine[owner] if owner in mine else self.empty(shapes[owner]) for owner in self.owners]
        # As bytes, for not every backend knows all dtypes.
        self.travels = [
            dist.broadcast(result.view(-1).view(torch.uint8), src=owner, async_op=True)
            for result, owner in zip(self.results, self.owners, strict=True)
        ]
        return self

    def take(self) -> Iterator[Tensor]:
        """The results, which are not kept."""
        while self.results:
            travel = self.travels.pop(0)
            assert travel is not None
            travel.wait()
            yield self.results.pop(0)


def _same_everywhere(error: Exception | None, rank: int) -> Exception:
    outcome = [None if error is None else sendable(error)]
    dist.broadcast_object_list(outcome, src=rank)
    assert outcome[0] is not None
    return outcome[0]


def _one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Each once the next one has begun."""
    for item, _ in pairwise(chain(items, [None])):
        assert item is not None
        yield item
