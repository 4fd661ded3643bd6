"""What only the miniature's VAE has: an encoder made of principal components, and a decoder that first learns without its branches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hunyuan_video.models.vae import Block, Decoder, ResBlock, VAEConfig
from hunyuan_video.training import drawing, pca, world

# Narrow, one ResBlock a level, few GroupNorm groups. Its latents have RMS 1 by construction, so nothing is left to scale.
MINIATURE = VAEConfig(block_out_channels=(16, 32, 64, 64), layers_per_block=1, norm_num_groups=4, scaling_factor=1.0)


def fit_basis(path: Path, num_clips: int, size: int, num_frames: int) -> pca.PcaBasis:
    """The basis at `path`; fitted to rendered clips and written first if it is not there."""
    if not path.exists():
        scenes = [world.sample_scene(seed, "train") for seed in range(num_clips)]
        clips = torch.from_numpy(np.stack([drawing.render(scene, size, size, num_frames) for scene in scenes]))
        temporary = path.with_suffix(".tmp")
        pca.fit(clips).save(temporary)
        temporary.replace(path)
    return pca.PcaBasis.load(path)


class Shortcut(nn.Module):
    """What is left of a ResBlock without its residual branch."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        self.conv_shortcut = block.conv_shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x if self.conv_shortcut is None else self.conv_shortcut(x)


def keep_trunk(decoder: Decoder) -> None:
    """Remove a decoder's residual branches and attention in place. What stays keeps its name."""
    decoder.mid_block = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    for block in decoder.modules():
        if isinstance(block, Block):
            block.resnets = nn.ModuleList([Shortcut(resnet) for resnet in block.resnets if isinstance(resnet, ResBlock)])
