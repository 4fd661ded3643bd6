"""The loss of a training on samples that it never sees, for each kind of beginning that it learns.

Noise levels, noise and which frames are given are the same whenever it is asked: two numbers differ by the weights alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from hunyuan_video.distributed.world import CPU, World
from hunyuan_video.models.text import TextFeatures
from hunyuan_video.training.dataset import LatentCache
from hunyuan_video.training.master import dtype_of_worker
from hunyuan_video.training.objectives import GIVEN, Noisy, add_noise
from hunyuan_video.training.run import random_generator
from hunyuan_video.training.settings import Training

LossAt = Callable[[Noisy, Tensor, TextFeatures], Tensor]  # of a noisy micro-batch, the velocity there, and the empty caption


class HeldOut:
    """All samples of a cache, in micro-batches that the data ranks share. Captions are always given."""

    def __init__(self, config: Training, cache: LatentCache, like: LatentCache, loss_at: LossAt, world: World):
        """`like` is the cache that is trained on.

        Raises:
            ValueError: the caches were not made by the same encoders, as far as sizes tell.
        """
        facts = [(each.latent_channels, each.text_dim, each.pooled_dim, each.told if each.sees else "none") for each in (cache, like)]
        if facts[0] != facts[1]:
            raise ValueError(
                f"validation_cache has {facts[0]} latent channels, features of text and of pooled text, and pictures, and the cache "
                f"{facts[1]}; make both with the same encoders."
            )
        images, videos = list[list[int]](), list[list[int]]()
        for bucket, numbers in sorted(cache.buckets.items()):
            size = max(1, config.token_budget // bucket.tokens)
            batches = images if bucket.num_frames == 1 else videos
            batches += [numbers[start : start + size] for start in range(0, len(numbers), size)]
        nothing = dict.fromkeys(GIVEN, 0.0)
        self.kinds = {"text": (replace(config, **nothing), images + videos)} if not cache.sees else {}
        if videos:
            self.kinds |= {name: (replace(config, **nothing | {name: 1.0}), videos) for name in GIVEN if getattr(config, name) > 0}
        self.cache, self.loss_at, self.world = cache, loss_at, world
        self.dtype = dtype_of_worker(config.dtype, world.device)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """By `held_out_` and the kind. Every rank must come: they may hold the weights together."""
        found, size = {}, self.world.data_size
        for kind, (config, batches) in self.kinds.items():
            total = count = 0.0
            for number in range(self.world.data_rank, -(-len(batches) // size) * size, size):
                batch = batches[number % len(batches)]  # a rank too many looks at one again, and does not count it
                latents, captions, empty, openings = self.cache.batch(batch)
                draw = random_generator(0, "held out", *batch)
                noisy, velocity = add_noise(config, latents, captions.to(CPU, self.dtype), draw, self.cache.told, openings)
                loss = self.loss_at(noisy, velocity, empty.to(CPU, self.dtype)).item()
                if number < len(batches):
                    total, count = total + loss * len(batch), count + len(batch)
            total, count = self.world.sum(total, count)
            found[f"held_out_{kind}"] = total / count
        return found
