"""Train the miniature's VAE: the encoder is constructed (see `pca`), so only the decoder learns, to undo it.

First only the trunk (the convolutions after each enlargement) is trained, a fifth of the work, then the whole decoder. Both see full
clips: statistics of GroupNorm and the borders are different in crops, and cost 1 dB when the decoder has only seen those.

Everything random follows from (seed, step), so a run that was killed continues as if nothing had happened.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn

from hunyuan_video.models.vae import Block, CausalVAE, Chunks, Decoder, ResBlock, VAEConfig
from hunyuan_video.training import pca, world
from hunyuan_video.training.master import MasterWeights
from hunyuan_video.training.run import Every, Run, random_generator

log = logging.getLogger(__name__)

# Narrow, one ResBlock a level, few GroupNorm groups. Its latents have RMS 1 by construction, so nothing is left to scale.
MINIATURE = VAEConfig(block_out_channels=(16, 32, 64, 64), layers_per_block=1, norm_num_groups=4, scaling_factor=1.0)


@dataclass(frozen=True)
class VAETraining:
    """How to train the miniature VAE's decoder on rendered clips."""

    pca_clips: int = 2400
    """rendered clips whose principal components the encoder is made of"""
    trunk_steps: int = 400
    trunk_batch: int = 1
    trunk_learning_rate: float = 3e-3
    num_steps: int = 7000
    """steps of the whole decoder, one full clip each"""
    learning_rate: float = 2e-3
    """kept for the first half of the steps, then falling linearly to zero"""
    warmup_steps: int = 100
    ema_decay: float = 0.998
    num_frames: int = 17
    size: int = 64
    seed: int = 0
    eval_clips: int = 16
    eval_every: int = 1000
    checkpoint_seconds: float = 90.0

    def __post_init__(self) -> None:
        for name in ("num_steps", "trunk_batch", "pca_clips", "warmup_steps", "eval_clips", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.trunk_steps < 0 or not 0 <= self.ema_decay < 1:
            raise ValueError(f"trunk_steps must be 0 or more and ema_decay in [0, 1); got {self.trunk_steps} and {self.ema_decay}.")


def train(config: VAETraining, folder: str | Path) -> float:
    """Train, or continue, in `folder`. Returns the PSNR of held-out scenes in dB.

    `pca.safetensors`, all that the transformer's training needs, is there within a minute (one that is there already is used);
    `vae/config.json` and `vae/pytorch_model.safetensors` are there after the first evaluation and final at the end.
    """
    run, checkpoint_due = Run(folder, config), Every(config.checkpoint_seconds)
    basis = fit_basis(config, Path(folder) / "pca.safetensors")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        vae = CausalVAE(MINIATURE)
    pca.build_encoder(vae, basis)
    weights = MasterWeights(vae.decoder, betas=(0.9, 0.98), weight_decay=0.0, clip_norm=1.0, ema_decay=config.ema_decay)
    done = run.load(weights.state_dict())
    total = config.trunk_steps + config.num_steps
    worker: Decoder | None = None
    for step in run.steps(done, total):
        in_trunk = step < config.trunk_steps
        if worker is None or step == config.trunk_steps:
            worker = copy.deepcopy(vae.decoder).bfloat16()
            if in_trunk:
                keep_trunk(worker)
            weights.load_into(worker)
        clips = render_batch(config, step, config.trunk_batch if in_trunk else 1)
        latents = pca.encode(basis, clips)
        # post_quant_conv is the identity and stays so: the decoder's first convolution can do what it could.
        loss = reconstruction_loss(worker(latents.bfloat16()).float(), pca.to_pixels(clips))
        loss.backward()
        norm = weights.step(worker, step, learning_rate(config, step))

        completed = step + 1
        if completed % 20 == 0:
            run.log(completed, loss=loss.item(), gradient_norm=norm, learning_rate=learning_rate(config, step))
        if checkpoint_due() or completed == total:
            run.save(completed, weights.state_dict())
        if completed % config.eval_every == 0 and completed < total:
            run.log(completed, psnr=evaluate(with_decoder(vae, weights.ema), config, config.eval_clips))
            save_vae(with_decoder(vae, weights.ema), Path(folder) / "vae")
    finished = with_decoder(vae, weights.ema).half().float()  # judge what is stored
    save_vae(finished, Path(folder) / "vae")
    psnr = evaluate(finished, config, 4 * config.eval_clips)
    run.log(total, psnr=psnr)
    run.close()
    log.info("held-out PSNR %.2f dB", psnr)
    return psnr


def fit_basis(config: VAETraining, path: Path) -> pca.PcaBasis:
    """The basis at `path`; fitted and written first if it is not there."""
    if not path.exists():
        clips = render_clips(config, range(config.pca_clips), "train")
        temporary = path.with_suffix(".tmp")
        pca.fit(clips).save(temporary)
        temporary.replace(path)
    return pca.PcaBasis.load(path)


class Shortcut(nn.Module):
    """What is left of a ResBlock without its residual branch."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        self.conv_shortcut = block.conv_shortcut

    def forward(self, x: Chunks) -> Chunks:
        return x if self.conv_shortcut is None else list(self.conv_shortcut(x))


def keep_trunk(decoder: Decoder) -> None:
    """Remove a decoder's residual branches and attention in place. What stays keeps its name."""
    decoder.mid_block = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    for block in decoder.modules():
        if isinstance(block, Block):
            block.resnets = nn.ModuleList([Shortcut(resnet) for resnet in block.resnets if isinstance(resnet, ResBlock)])


def learning_rate(config: VAETraining, step: int) -> float:
    """Each stage warms up by itself; the second one stays level for half of its steps and then falls to zero."""
    if step < config.trunk_steps:
        return config.trunk_learning_rate * min(1.0, (step + 1) / config.warmup_steps)
    step -= config.trunk_steps
    return config.learning_rate * min(1.0, (step + 1) / config.warmup_steps, 2 * (1 - step / config.num_steps))


def reconstruction_loss(x: Float[Tensor, "B C F H W"], target: Float[Tensor, "B C F H W"]) -> Float[Tensor, ""]:
    """L1 + 2 MSE, and half the L1 of the spatial gradient so that edges are worth more than their few pixels."""
    error = x - target
    gradient = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * gradient


def render_clips(config: VAETraining, seeds: Sequence[int], split: world.Split) -> UInt8[Tensor, "B F H W 3"]:
    scenes = [world.sample_scene(seed, split) for seed in seeds]
    return torch.stack([torch.from_numpy(world.render(scene, config.size, config.size, config.num_frames)) for scene in scenes])


def render_batch(config: VAETraining, step: int, batch: int) -> UInt8[Tensor, "B F H W 3"]:
    """The training clips of one step, rendered now: a thousandth of the step's time, so none is ever seen twice."""
    seeds = torch.randint(2**31, (batch,), generator=random_generator(config.seed, "scene", step))
    return render_clips(config, seeds.tolist(), "train")


def with_decoder(vae: CausalVAE, decoder: dict[str, Tensor]) -> CausalVAE:
    """A copy of `vae` with other weights in its decoder."""
    result = copy.deepcopy(vae)
    result.decoder.load_state_dict(decoder)
    return result


@torch.no_grad()
def evaluate(vae: CausalVAE, config: VAETraining, num_clips: int) -> float:
    """Mean PSNR per clip, in dB, of encoding and decoding scenes whose words were never rendered in training."""
    values = []
    for seed in range(num_clips):
        x = pca.to_pixels(render_clips(config, [seed], "held_out"))
        error = vae.decode(vae.encode(x).mode()).clamp(-1, 1) - x
        values.append(-10 * F.mse_loss(error / 2, torch.zeros_like(error)).log10())
    return torch.stack(values).mean().item()


def save_vae(vae: CausalVAE, folder: Path) -> None:
    """Write the official folder layout, in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"_class_name": "AutoencoderKLCausal3D", "act_fn": "silu", "mid_block_add_attention": True, **asdict(vae.config)}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    save_file({name: tensor.half().contiguous() for name, tensor in vae.state_dict().items()}, folder / "pytorch_model.safetensors")
