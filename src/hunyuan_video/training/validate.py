"""Videos of the same prompts and seeds while a training goes on, made by the pipeline that users get, with the averaged weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hunyuan_video import checkpoint, weights
from hunyuan_video.assembly import Models, assemble, dtype_of
from hunyuan_video.beginning import how_told
from hunyuan_video.checkpoint.seeing import load_encoders
from hunyuan_video.config import FullSampling, Runtime, check_types
from hunyuan_video.distributed.world import CPU, World
from hunyuan_video.files import read_prompts, safe_name
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.pictures import read_picture
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.video import save_video


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What to show of a training, and how often. Changes nothing in it."""

    validation_prompts: Path | None = None
    """a text file with one prompt a line: their videos are made at intervals"""
    validation_image: Path | None = None
    """a picture that all of them begin with, for weights that need one"""
    validation_every: int | None = None
    """training steps between these videos, between the losses of validation_cache, and with or without either between the files of a LoRA
    in loras/ (default: a tenth of the run's steps); all are made at the end, too"""
    validation_cache: Path | None = None
    """a latent cache of samples that are not trained on: its loss is logged at intervals, for each kind of beginning that is learned"""
    validation_weights: Path | None = None
    """weights root whose text encoders, VAE and sampling settings make them (default: the one training starts from)"""
    validation_seed: int = 0
    validation_frames: int | None = None
    """frames, height and width: as the weights' settings say, unless given"""
    validation_height: int | None = None
    validation_width: int | None = None
    validation_num_steps: int | None = None
    """denoising steps, likewise"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.validation_every is not None and self.validation_every < 1:
            raise ValueError(f"validation_every is {self.validation_every}; it must be 1 or more.")


class Validator:
    """The prompts and the pipeline around a model in training. Ranks share the prompts."""

    def __init__(
        self,
        config: Validation,
        root: Path | None,
        highest_guidance: float,
        model: HunyuanVideoTransformer,
        attention: str,
        dtype: torch.dtype,
        world: World,
        folder: Path,
        streamed: Sequence[Tensor] = (),
    ):
        """Wrong settings and files are found here, and not after a thousand steps. `highest_guidance` is the largest that the model is
        taught, for weights whose own settings say none. `attention` names the kernel of `model`, which it keeps, and `streamed` are those
        of its tensors that come and go by themselves.

        Raises:
            ValueError, FileNotFoundError: there is no prompt, no weights to show it with, or no picture for weights that need one.
        """
        assert config.validation_prompts is not None
        self.prompts = read_prompts(config.validation_prompts)
        root = config.validation_weights or root
        if root is None or not root.is_dir():
            raise ValueError("Validation needs text encoders and a VAE; name their weights root with --validation-weights.")
        found = weights.locate(root)
        self.picture = None if config.validation_image is None else read_picture(config.validation_image)
        if found.sees and self.picture is None:
            raise ValueError(f"The weights in {root} begin every video with a picture; name one with --validation-image.")
        runtime = Runtime(attention=attention)  # pyright: ignore[reportArgumentType] (checked there)
        vae_dtype = dtype_of("vae", runtime, world.device, large=weights.is_large(found.vae))
        text_dtype = dtype_of("text", runtime, world.device, large=weights.is_large(found.text_encoder))
        text_encoder = load_encoders(found, how_told(model.config), text_dtype, CPU)
        vae = checkpoint.load_vae(found.vae, vae_dtype, CPU)
        assemble(Models(text=text_encoder, vae=vae), replace(runtime, offload="models"), world)  # on the device only while they work
        self.pipe = HunyuanVideo(text_encoder, model, vae, device=world.device, dtype=dtype, runtime=runtime, streamed=streamed)
        self.sampling = _sampling(config, found.sampling(), min(6.0, highest_guidance) if model.config.guidance_embed else None)
        self.world, self.folder = world, folder

    def __call__(self, step: int) -> None:
        """Make all videos with the weights that the model has now. Every rank of the world must come: they hold the weights together."""
        rounds = -(-len(self.prompts) // self.world.data_size)
        for number in range(self.world.data_rank, rounds * self.world.data_size, self.world.data_size):
            prompt = self.prompts[number % len(self.prompts)]  # a rank too many makes one again: all must call the model equally often
            video = self.pipe(prompt, self.sampling, image=self.picture)
            if number < len(self.prompts) and self.world.leads_sequence:
                name = f"{number:02d}_{safe_name(prompt, self.sampling.seed)}.mp4"
                save_video(video.frames, self.folder / f"step-{step:08d}" / name, metadata=video.provenance.to_json())


def _sampling(config: Validation, defaults: FullSampling, guidance: float | None) -> FullSampling:
    """The settings of the weights, made to fit a model with guidance embedding (`guidance`, unless they say which) or without."""
    return replace(
        defaults,
        num_frames=config.validation_frames or defaults.num_frames,
        height=config.validation_height or defaults.height,
        width=config.validation_width or defaults.width,
        num_steps=config.validation_num_steps or defaults.num_steps,
        guidance=None if guidance is None else defaults.guidance or guidance,
        cfg_scale=defaults.cfg_scale if guidance is None else 1.0,
        seed=config.validation_seed,
    )
