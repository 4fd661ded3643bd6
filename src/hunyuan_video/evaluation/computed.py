"""What a transformer computes while it makes a video, counted where it happens. The arithmetic is that of `distributed/cost.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hunyuan_video.models.transformer import HunyuanVideoTransformer


@dataclass
class Computed:
    """Work of the blocks, which is nearly all; two operations for each multiplication."""

    passes: float = 0.0
    """through all blocks, of whatever number of tokens; parts of one count as such"""
    operations: float = 0.0
    pairs: float = 0.0
    """of queries and keys that attention looked at"""
    all_pairs: float = 0.0
    """and that there were"""

    @property
    def density(self) -> float:
        """The share of the pairs of queries and keys that attention looked at, where it worked at all."""
        return self.pairs / self.all_pairs if self.all_pairs else 1.0


@contextmanager
def counting(model: HunyuanVideoTransformer) -> Iterator[Computed]:
    """Counts, in the block, all that the blocks of the model do, whatever skips them or gives them fewer tokens. An attention kernel that
    leaves pairs out says which share its last call looked at in an attribute `density`."""
    done, tokens = Computed(), 0
    blocks, size = model.blocks, model.config.hidden_size
    weights = 4 * size**2 + 2 * size * int(size * model.config.mlp_ratio)  # of a token in either kind of block

    def begin(_: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal tokens
        latents, _, condition = args[:3]
        tokens = math.prod(model.config.grid(latents.shape)) + condition.txt.shape[1]

    def work(block: nn.Module, args: tuple[Any, ...], _: object) -> None:  # afterwards: only then a kernel knows what it looked at
        queries = sum(each.shape[1] for each in args if isinstance(each, Tensor))
        pairs = queries * tokens
        density = getattr(block.attention, "density", 1.0)
        done.passes += queries / tokens / len(blocks)
        done.operations += 2 * weights * queries + 4 * size * pairs * density
        done.pairs += pairs * density
        done.all_pairs += pairs

    handles = [model.register_forward_pre_hook(begin), *(block.register_forward_hook(work) for block in blocks)]
    try:
        yield done
    finally:
        for handle in handles:
            handle.remove()
