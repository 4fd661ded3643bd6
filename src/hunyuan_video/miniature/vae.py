"""Trains the embedded model's VAE: an encoder that is constructed (see `pca`), and a decoder that learns to undo it, first its trunk (the
convolutions after each enlargement), a fifth of the work, then the whole.

It sees rendered scenes whole: statistics of GroupNorm and the borders are different in crops, and cost it 1 dB when the decoder had only
seen those.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from hunyuan_video.config import require
from hunyuan_video.miniature import drawing, nature, pca, world
from hunyuan_video.models.vae import Block, CausalAttention, CausalVAE, Decoder, Encoder, ResBlock, VAEConfig
from hunyuan_video.training import train_vae
from hunyuan_video.training.run import random_generator
from hunyuan_video.training.train_vae import Stage, VAETraining
from hunyuan_video.training.vae_clips import Clip, MediaFiles, pick

# Narrow, one ResBlock a level, few GroupNorm groups. Its latents have RMS 1 by construction, so nothing is left to scale.
MINIATURE = VAEConfig(block_out_channels=(16, 32, 64, 64), layers_per_block=1, norm_num_groups=4, scaling_factor=1.0)
FIRST_LEARNING = 2  # level of an encoder beside whose trunk something learns


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
    """full, decoder: the projection (pca.safetensors) from which the drawn world has its latents, so that a transformer still knows them"""

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
        require(self.anchor is None or self.data is None, "--anchor holds latents of the drawn world, of which --data has none; give one.")
        require(
            self.anchor is None or self.batch_size == self.image_batch_size == 1,
            f"--anchor knows of one clip a step, not of {max(self.batch_size, self.image_batch_size)}; leave out the batch sizes.",
        )
        require(
            not self.latent_noise or self.anchor is not None or self.part == "miniature",
            f"latent_noise is {self.latent_noise}, but it is of given latents; give --anchor, too.",
        )
        require(self.anchor is None or self.part != "miniature", "--part miniature has its own projection; leave out --anchor.")

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
            vae, latents_of = train_vae.start(config), None
            if config.anchor is not None:
                if config.part == "full":
                    keep_encoders_trunk(vae.encoder)
                latents_of = latents_of_the_world(config, pca.PcaBasis.load(config.anchor))
            return train_vae.train(config, run, vae, source, latents_of=latents_of)
        basis = fit_basis(run.folder / "pca.safetensors", config.pca_clips, config.size, config.num_frames)

        def projected(clips: UInt8[Tensor, "B F H W 3"], _step: int) -> Tensor:
            return pca.encode(basis, clips)

        return train_vae.train(config, run, start(basis, config.seed), source, latents_of=projected, stages_before=[trunk_stage(config)])


def latents_of_the_world(config: MiniatureTraining, basis: pca.PcaBasis) -> train_vae.LatentsOf:
    """Those that a projection gives clips of the drawn world; clips of nature may have any."""
    world_and_nature = RenderedWorld(config.num_frames, config.size, config.max_stride, config.nature)

    def latents_of(clips: UInt8[Tensor, "B F H W 3"], step: int) -> Tensor | None:
        of_nature = world_and_nature.is_of_nature(random_generator(config.seed, "clips", step))
        return None if of_nature else pca.encode(basis, clips)

    return latents_of


def keep_encoders_trunk(encoder: Encoder) -> None:
    """What leads from pixels to latents by itself learns nothing. The ResBlocks and the attention beside it do, but for the levels where
    there is most work and least to know."""
    encoder.requires_grad_(False)
    parts = [part for block in (*encoder.down_blocks[FIRST_LEARNING:], encoder.mid_block) for part in block.modules()]
    blocks = [part for part in parts if isinstance(part, ResBlock)]
    for part in (*blocks, *(part for part in parts if isinstance(part, CausalAttention))):
        part.requires_grad_(True)
    for block in blocks:
        if block.conv_shortcut is not None:
            block.conv_shortcut.requires_grad_(False)
    # Where its input needs no gradient, and its channels are last, a GroupNorm that learns ends the process (PyTorch 2.13 on a CPU).
    blocks[0].norm1.requires_grad_(False)


def open_source(config: MiniatureTraining) -> RenderedWorld | MediaFiles:
    if config.data is None:
        return RenderedWorld(config.num_frames, config.size, config.max_stride, config.nature)
    return MediaFiles(config.data, config.num_frames, config.size, config.max_stride, config.eval_clips)


def start(basis: pca.PcaBasis, seed: int) -> CausalVAE:
    """The miniature before its first step."""
    vae = train_vae.from_nothing(MINIATURE, seed)
    pca.build_encoder(vae, basis)
    vae.requires_grad_(False).decoder.requires_grad_(True)
    return vae


def trunk_stage(config: MiniatureTraining) -> Stage:
    """The decoder's trunk alone computes. It warms up and stays level."""

    def worker_of(vae: CausalVAE, dtype: torch.dtype) -> CausalVAE:
        worker = train_vae.copy_in(vae, dtype)
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
        of_nature, seed, stride = self.is_of_nature(draw), pick(2**31, draw), 1 + pick(self.max_stride, draw)
        if of_nature:
            return nature.render(seed, self.size, self.num_frames)
        span = self.num_frames - 1
        start = pick(span * (self.max_stride - stride) + 1, draw)
        frames = self.render(seed, "train", span * self.max_stride + 1)
        return frames[start : start + span * stride + 1 : stride]

    def image(self, draw: torch.Generator) -> Clip:
        of_nature, seed = self.is_of_nature(draw), pick(2**31, draw)
        return nature.render(seed, self.size, 1) if of_nature else self.render(seed, "train", 1)

    def is_of_nature(self, draw: torch.Generator) -> bool:
        """The first that is drawn for a step: so whoever has the step can know."""
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
