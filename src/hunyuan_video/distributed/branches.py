"""Classifier-free guidance on two halves of the ranks, each of which computes one branch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from hunyuan_video.sampling import Velocity, classifier_free_guidance


def guidance_on_halves(branch: Callable[[int], Velocity], scale: float, group: dist.ProcessGroup) -> Velocity:
    """`classifier_free_guidance` of the branches 0 (the prompt) and 1 (the negative one), of which this rank computes that of its rank in
    `group`, its counterpart the other."""
    mine = branch(group.rank())

    def velocity(x: Tensor, sigma: float) -> Tensor:
        own = mine(x, sigma).contiguous()
        both = [torch.empty_like(own) for _ in range(2)]
        dist.all_gather(both, own, group=group)
        return classifier_free_guidance(lambda *_: both[0], lambda *_: both[1], scale)(x, sigma)

    return velocity
