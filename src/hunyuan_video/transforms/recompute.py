"""Activations that are computed twice instead of kept: far less memory in training, for a third more work. Never changes a value."""

from __future__ import annotations

from functools import partial

from torch.utils.checkpoint import checkpoint

from hunyuan_video.models.transformer import HunyuanVideoTransformer, trunk


def recompute_blocks(model: HunyuanVideoTransformer) -> None:
    """From now on a model keeps only what goes into each block, and computes the block again in the backward pass. Comes before whatever
    wraps the trunk."""
    assert model.trunk is trunk
    # Nothing in a block is random.
    model.trunk = partial(trunk, call=partial(checkpoint, use_reentrant=False, preserve_rng_state=False))
