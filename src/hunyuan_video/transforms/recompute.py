"""Activations that are computed twice instead of kept: far less memory in training, for a third more work. Never changes a value."""

from __future__ import annotations

from functools import partial

from torch.utils.checkpoint import checkpoint

from hunyuan_video.models.transformer import HunyuanVideoTransformer, trunk


def recompute_blocks(model: HunyuanVideoTransformer) -> None:
    """From now on a model keeps only what goes into each block, and computes the block again in the backward pass. Comes before whatever
    wraps the trunk.

    Raises:
        ValueError: something has wrapped it already.
    """
    if model.trunk is not trunk:
        raise ValueError("The trunk is wrapped already; activation checkpointing, which says how it calls its blocks, comes before that.")
    # Nothing in a block is random.
    model.trunk = partial(trunk, call=partial(checkpoint, use_reentrant=False, preserve_rng_state=False))
