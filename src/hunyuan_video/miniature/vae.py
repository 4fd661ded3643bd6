"""Trains the embedded model's VAE: an encoder that is constructed (see `pca`), and a decoder that learns to undo it, first its trunk (the
convolutions after each enlargement), a fifth of the work, then the whole.

It sees rendered scenes whole: statistics of GroupNorm and the borders are different in crops, and cost it 1 dB when the decoder had only
seen those.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from hunyuan_video.config import require
from hunyuan_video.miniature import drawing, nature, pca, world
from hunyuan_video.models.vae import Block, CausalVAE, Decoder, ResBlock, VAEConfig
from hunyuan_video.training import train_vae
from hunyuan_video.training.run import random_generator
from hunyuan_video.training.train_vae import Stage, VAETraining
from hunyuan_video.training.vae_clips import Clip, MediaFiles, pick, to_pixels

# Narrow, one ResBlock a level, few GroupNorm groups. Its latents have RMS 1 by construction, so nothing is left to scale.
MINIATURE = VAEConfig(block_out_channels=(16, 32, 64, 64), layers_per_block=1, norm_num_groups=4, scaling_factor=1.0)


@dataclass(frozen=True)
class MiniatureTraining(VAETraining):
    """How to train a VAE. The defaults train the embedded miniature's; docs/train-vae.md has the settings of a real one."""

    # The engine asks only whether a part is "full".
    part: Literal["full", "decoder", "miniature"] = "miniature"  # pyright: ignore[reportIncompatibleVariableOverride]
    """what learns: encoder and decoder, the decoder of WEIGHTS, or the miniature's decoder behind a constructed encoder"""
    data: Path | None = None
    """a folder, .jsonl or .csv of videos and images (default: the rendered world)"""
    pca_clips: int = 2400
    """miniature: rendered clips whose principal components the encoder is made of"""
    trunk_steps: int = 400
    """miniature: first steps, of the decoder's trunk alone"""
    trunk_learning_rate: float = 3e-3
    nature: float = 0.0
    """share of the rendered clips that are not of the drawn world but have the statistics of photographs and films"""
    anchor: Path | None = None
    """full: weights, or a folder with a VAE, near whose latents the drawn world's stay, so that a transformer still knows them"""
    anchor_weight: float = 1.0
    """of the squared distance between the two"""

    def __post_init__(self) -> None:
        require(
            self.part != "miniature" or (self.weights is None and self.architecture is None),
            "The miniature has its own architecture and encoder; leave out --weights and --architecture, or give --part full or decoder.",
        )
        super().__post_init__()
        require(self.pca_clips >= 1, f"pca_clips is {self.pca_clips}; it must be 1 or more.")
        require(self.trunk_steps >= 0, f"trunk_steps is {self.trunk_steps}; it must be 0 or more.")
        require(0 <= self.nature <= 1, f"nature is {self.nature}; it must be a share between 0 and 1.")
        require(not self.nature or self.data is None, "nature is a share of rendered clips; give it or --data.")
        require(self.anchor_weight > 0, f"anchor_weight is {self.anchor_weight}; it must be above 0.")
        require(self.anchor is None or self.part == "full", f"--anchor holds an encoder, but --part {self.part} trains none; leave it out.")

    @property
    def changes_latents(self) -> bool:
        return super().changes_latents and self.anchor is None


def train(config: MiniatureTraining, folder: str | Path) -> float:
    """Train, or continue, in `folder`: see `train_vae.train`. Returns the PSNR of held-out clips in dB.

    Of a miniature, `pca.safetensors`, all that the transformer's training needs, is there within a minute (one that is there already is
    used).
    """
    with closing(train_vae.open_run(config, folder)) as run:
        source = open_source(config)
        if config.part != "miniature":
            also = None if config.anchor is None else anchored(config, train_vae.load(config.anchor).bfloat16())
            return train_vae.train(config, run, train_vae.start(config), source, also=also)
        basis = fit_basis(run.folder / "pca.safetensors", config.pca_clips, config.size, config.num_frames)
        return train_vae.train(
            config, run, start(basis, config.seed), source, latents_of=partial(pca.encode, basis), stages_before=[trunk_stage(config)]
        )


def anchored(config: MiniatureTraining, anchor: CausalVAE) -> train_vae.Also:
    """How far the latents of a scene of the drawn world, in each step another one, are from those of `anchor`."""
    source = RenderedWorld(config.num_frames, config.size, config.max_stride)

    def distance(worker: CausalVAE, step: int) -> dict[str, Tensor]:
        clip = to_pixels(torch.from_numpy(source.video(random_generator(config.seed, "anchor", step)))[None])
        clip = clip.to(worker.quant_conv.weight)
        with torch.no_grad():
            expected = anchor.to(clip.device).encode(clip).mean.float()
        off = (worker.encode(clip).mean.float() - expected).square().mean()
        return {"anchor": config.anchor_weight * off}

    return distance


def open_source(config: MiniatureTraining) -> RenderedWorld | MediaFiles:
    if config.data is None:
        return RenderedWorld(config.num_frames, config.size, config.max_stride, config.nature)
    return MediaFiles(config.data, config.num_frames, config.size, config.max_stride, config.eval_clips)


def start(basis: pca.PcaBasis, seed: int) -> CausalVAE:
    """The miniature before its first step."""
    vae = train_vae.from_nothing(MINIATURE, seed)
    pca.build_encoder(vae, basis)
    return vae


def trunk_stage(config: MiniatureTraining) -> Stage:
    """The decoder's trunk alone computes. It warms up and stays level."""

    def worker_of(vae: CausalVAE) -> CausalVAE:
        worker = train_vae.in_bfloat16(vae)
        keep_trunk(worker.decoder)
        return worker

    return Stage(config.trunk_steps, worker_of, lambda step: config.trunk_learning_rate * min(1.0, (step + 1) / config.warmup_steps))


class RenderedWorld:
    """Scenes of the miniature's world, none seen twice. A stride of `max_stride` shows the whole of a motion, a smaller one a part. A share
    of them is of `nature` instead, but for those held out."""

    def __init__(self, num_frames: int, size: int, max_stride: int, of_nature: float = 0.0):
        self.num_frames, self.size, self.max_stride, self.of_nature = num_frames, size, max_stride, of_nature

    def render(self, seed: int, split: world.Split, num_frames: int) -> Clip:
        return drawing.render(world.sample_scene(seed, split), self.size, self.size, num_frames)

    def video(self, draw: torch.Generator) -> Clip:
        seed, stride = pick(2**31, draw), 1 + pick(self.max_stride, draw)
        if self._is_of_nature(draw):
            return nature.render(seed, self.size, self.num_frames)
        span = self.num_frames - 1
        start = pick(span * (self.max_stride - stride) + 1, draw)
        frames = self.render(seed, "train", span * self.max_stride + 1)
        return frames[start : start + span * stride + 1 : stride]

    def image(self, draw: torch.Generator) -> Clip:
        seed = pick(2**31, draw)
        return nature.render(seed, self.size, 1) if self._is_of_nature(draw) else self.render(seed, "train", 1)

    def _is_of_nature(self, draw: torch.Generator) -> bool:
        return self.of_nature > 0 and torch.rand((), generator=draw).item() < self.of_nature

    def held_out(self, number: int) -> Clip:
        """Scenes of words that were never rendered together in training."""
        return self.render(number, "held_out", self.num_frames)


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
