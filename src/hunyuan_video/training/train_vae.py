"""Trains a VAE.

    full         encoder and decoder, from nothing or from weights; the published loss is L1 + 0.1 LPIPS + 0.05 adversarial + 1e-6 KL
    decoder      of weights whose latents must stay what they are, because a transformer knows them

What it starts from and where its clips are from is the caller's, who may also say what the latents of some clips are, and give other stages
before the last one. Official decoding is made of tiles, so a last fine-tune may do some of its steps in them.

Everything random follows from (seed, step), so a run that was killed continues as if nothing had happened.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from math import floor, isfinite
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn

from hunyuan_video.checkpoint import load_vae, read_json
from hunyuan_video.checkpoint.convert import official_vae_json
from hunyuan_video.config import ComputingDType, require
from hunyuan_video.distributed.world import resolve_device
from hunyuan_video.files import replacing
from hunyuan_video.models.vae import CausalVAE, Posterior, VAEConfig
from hunyuan_video.signals import Waiting
from hunyuan_video.training.discriminator import Adversary
from hunyuan_video.training.master import MasterWeights, dtype_of_worker
from hunyuan_video.training.perceptual import PerceptualDistance, load_perceptual
from hunyuan_video.training.prefetch import prefetched
from hunyuan_video.training.run import Run, count_skipped, random_generator
from hunyuan_video.training.vae_clips import Source, to_pixels
from hunyuan_video.training.vae_losses import adaptive_weight, kl_divergence, reconstruction_loss
from hunyuan_video.transforms.chunk import in_chunks
from hunyuan_video.transforms.tiling import tiled_decode, tiled_encode
from hunyuan_video.weights import locate

log = logging.getLogger(__name__)

MAY_CHANGE = ("checkpoint_seconds", "save_every", "max_skipped")  # when a run is continued

# What the latents of a step's clips are to be; None for those of the encoder, whatever they are.
LatentsOf = Callable[[UInt8[Tensor, "B F H W 3"], int], Float[Tensor, "B L T2 H2 W2"] | None]


@dataclass(frozen=True)
class VAETraining:
    """How to train a VAE. The defaults suit a very small one; docs/train-vae.md has the settings of a real one."""

    part: Literal["full", "decoder"] = "full"
    """what learns: encoder and decoder, or the decoder of WEIGHTS"""
    weights: Path | None = None
    """start from these: a root of weights, or a folder with a VAE in it, such as OUT/vae of an earlier stage (default: from nothing)"""
    architecture: Path | None = None
    """config.json of a VAE to train from nothing (default: the official 884-16c)"""

    num_frames: int = 17
    """of a clip, 4n + 1"""
    size: int = 64
    """pixels a side of a clip, a multiple of 8"""
    max_stride: int = 1
    """a clip shows every s-th frame, s random from 1 to this"""
    batch_size: int = 1
    image_ratio: float = 0.0
    """share of steps that see images (one frame)"""
    image_batch_size: int = 1

    num_steps: int = 7000
    learning_rate: float = 2e-3
    """kept for the first half of the steps, then falling linearly to zero"""
    warmup_steps: int = 100
    ema_decay: float = 0.998

    mse_weight: float = 2.0
    """of the squared error, beside L1, whose weight is 1"""
    log_mse_weight: float = 0.0
    """of the logarithm of each clip's squared error, which is what PSNR measures"""
    gradient_weight: float = 0.5
    """of the L1 of the spatial gradient"""
    kl_weight: float = 0.0
    """of the KL divergence of the latents from a normal distribution"""
    anchor_weight: float = 2.5
    """of the squared distance between an encoder's latents and those that are given"""
    latent_noise: float = 0.0
    """standard deviation, at most, of the noise on given latents: those of a transformer are not exact"""
    perceptual_weight: float = 0.0
    """of LPIPS"""
    perceptual_weights: tuple[Path, ...] = ()
    """torchvision's vgg16-397923af.pth (or .safetensors), and for LPIPS proper also its vgg.pth"""
    adversarial_weight: float = 0.0
    """of a discriminator's verdict, relative to the pull of all other losses"""
    adversarial_start: int = 0
    """step at which the discriminator begins"""
    adversarial_learning_rate: float = 1e-4
    tiling_probability: float = 0.0
    """share of steps that encode and decode in the tiles of the architecture, so that seams are learned away"""

    dtype: ComputingDType = "auto"
    """what computes (auto: bfloat16, but float32 on a CPU that does not multiply that); the weights that are trained are float32"""
    seed: int = 0
    eval_clips: int = 32
    """held-out clips whose PSNR is reported; media files that are kept for that"""
    eval_every: int = 1000
    checkpoint_seconds: float = 60.0
    """between checkpoints; more where saving one would take more than a tenth of that"""
    save_every: int | None = None
    """steps between checkpoints, instead of a time"""
    max_skipped: int = 10
    """steps in a row whose losses or gradient may be not finite, and which then change nothing, before the run stops"""

    def __post_init__(self) -> None:
        save_every = () if self.save_every is None else ("save_every",)
        counts = ("num_steps", "batch_size", "image_batch_size", "max_stride", "warmup_steps", "eval_clips", "eval_every", *save_every)
        for name in counts:
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be 1 or more.")
        weighted = ("mse_weight", "log_mse_weight", "gradient_weight", "kl_weight", "perceptual_weight", "adversarial_weight")
        for name in ("adversarial_start", "checkpoint_seconds", "max_skipped", "latent_noise", *weighted):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be 0 or more.")
        for name in ("image_ratio", "tiling_probability"):
            require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}; it must be from 0 to 1.")
        require(0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}; it must be in [0, 1).")
        require(self.num_frames % 4 == 1, f"num_frames is {self.num_frames}; it must be 4n + 1, such as 17.")
        require(self.anchor_weight > 0, f"anchor_weight is {self.anchor_weight}; it must be above 0.")
        require(self.size > 0 and self.size % 8 == 0, f"size is {self.size}; it must be a multiple of 8.")
        require(self.weights is None or self.architecture is None, "weights bring their own architecture; leave out --architecture.")
        require(self.part != "decoder" or self.weights is not None, "--part decoder needs --weights, whose encoder is kept.")
        require(self.part == "full" or not self.kl_weight, f"kl_weight is {self.kl_weight}, but --part {self.part} trains no encoder.")
        require(
            bool(self.perceptual_weight) == bool(self.perceptual_weights),
            "perceptual_weight and perceptual_weights (its files; docs/train-vae.md says which) belong together; give both or neither.",
        )

    @property
    def changes_latents(self) -> bool:
        """Whether transformers have to learn the latents anew."""
        return self.part == "full"


class Stage(NamedTuple):
    """Some steps of a training: what computes in them for the VAE, and the learning rate of each."""

    num_steps: int
    worker_of: Callable[[CausalVAE, torch.dtype], CausalVAE]
    learning_rate: Callable[[int], float]


def last_stage(config: VAETraining) -> Stage:
    """The whole VAE computes. It warms up, stays level for half of its steps and then falls to zero."""

    def learning_rate(step: int) -> float:
        return config.learning_rate * min(1.0, (step + 1) / config.warmup_steps, 2 * (1 - step / config.num_steps))

    return Stage(config.num_steps, copy_in, learning_rate)


def copy_in(vae: CausalVAE, dtype: torch.dtype) -> CausalVAE:
    """What computes; the VAE's own parameters are the masters."""
    return copy.deepcopy(vae).to(dtype)


def stage_at(stages: Sequence[Stage], step: int) -> tuple[Stage, int]:
    """The stage that a step of the training belongs to, and which of its steps it is."""
    *earlier, last = stages
    for stage in earlier:
        if step < stage.num_steps:
            return stage, step
        step -= stage.num_steps
    return last, step


def train(
    config: VAETraining,
    run: Run,
    vae: CausalVAE,
    source: Source,
    *,
    latents_of: LatentsOf | None = None,
    stages_before: Sequence[Stage] = (),
) -> float:
    """Train, or continue, in the folder of `run`. Returns the PSNR of held-out clips in dB.

    `vae`, float32 on the CPU, is what it is before the first step; those of its parameters learn that require gradients. The decoder learns
    from the latents of its encoder, or from what `latents_of` gives instead, which then an encoder that learns is drawn to.
    `vae/config.json` and `vae/pytorch_model.safetensors` are there after the first evaluation and final at the end.

    Raises:
        ValueError: no step of the tiled ones would have a seam.
    """
    tile = (vae.config.sample_size, vae.config.sample_tsize)
    require(
        not config.tiling_probability or config.size > tile[0] or config.num_frames > tile[1],
        f"A clip of {config.size} pixels and {config.num_frames} frames is one tile of this VAE ({tile[0]} pixels, {tile[1]} frames) and "
        "has no seams; raise size or num_frames, or set tiling_probability to 0.",
    )
    device = resolve_device("auto")
    dtype = dtype_of_worker(config.dtype, device)
    held_out = [to_batch([source.held_out(number)]) for number in range(config.eval_clips)]
    vae = vae.to(device)
    in_chunks(vae)  # where no gradients are recorded: in an encoder that is kept, and in evaluation
    perceptual = load_perceptual(config.perceptual_weights, device) if config.perceptual_weight else None
    adversary = Adversary(config.seed, config.adversarial_learning_rate, device, dtype) if config.adversarial_weight else None
    weights = MasterWeights(learner(config, vae), betas=(0.9, 0.98), weight_decay=0.0, clip_norm=1.0, ema_decay=config.ema_decay)
    state = weights.state_dict() | ({} if adversary is None else adversary.state_dict())
    stages = [*stages_before, last_stage(config)]
    done, total = run.load(state), sum(stage.num_steps for stage in stages)
    if adversary is not None:
        adversary.weights.load_into(adversary.worker)
    worker: CausalVAE | None = None
    skipped = torch.zeros(2, dtype=torch.int64)
    with closing(prefetched(partial(clips_of, config, source), range(done, total))) as upcoming, Waiting() as stopping:
        for step, clips in zip(run.steps(done, total), upcoming, strict=True):
            stage, number = stage_at(stages, step)
            if worker is None or number == 0:
                worker = stage.worker_of(vae, dtype)

            target = to_pixels(clips).to(device)
            given = None if latents_of is None else latents_of(clips, step)
            pixels, posterior = reconstruct(config, worker, given, target, step)
            opponent = adversary if step >= config.adversarial_start else None
            losses = backward(config, pixels, target, posterior, worker.decoder.conv_out.conv.weight, perceptual, opponent)
            if given is not None and config.part == "full":
                losses["anchor"] = draw_near(worker, target, given, config.anchor_weight)
            norm = weights.step(learner(config, worker), step, stage.learning_rate(number))
            if opponent is not None:
                losses["discriminator"] = opponent.step(target, pixels, step)

            completed = step + 1
            are_finite = bool(torch.stack(list(losses.values())).isfinite().all())
            count_skipped(skipped, are_finite and isfinite(norm), completed, config.max_skipped)
            if completed % 20 == 0:
                scalars = {name: loss.item() for name, loss in losses.items()}
                run.log(completed, **scalars, gradient_norm=norm, learning_rate=stage.learning_rate(number))
            if stopping.asked:
                run.stop(completed, state)
            if run.is_due(completed) or completed == total:
                run.save(completed, state)
            if completed % config.eval_every == 0 and completed < total:
                run.log(completed, psnr=keep(config, vae, weights.ema, held_out, run.folder / "vae"))
    psnr = keep(config, vae, weights.ema, held_out, run.folder / "vae")
    run.log(total, psnr=psnr)
    log.info("held-out PSNR %.2f dB", psnr)
    return psnr


def open_run(config: VAETraining, folder: str | Path) -> Run:
    """The run of a training in `folder`. To be closed."""
    return Run(folder, config, may_change=MAY_CHANGE, checkpoint_seconds=config.checkpoint_seconds, save_every=config.save_every)


def start(config: VAETraining) -> CausalVAE:
    """The VAE before its first step, float32 on the CPU."""
    if config.weights is not None:
        vae = load(config.weights)
    else:
        architecture = VAEConfig() if config.architecture is None else VAEConfig.from_json(read_json(config.architecture))
        vae = from_nothing(architecture, config.seed)
    learner(config, vae.requires_grad_(False)).requires_grad_(True)
    return vae


def load(weights: Path) -> CausalVAE:
    """Of a root of weights, or a folder with a VAE alone."""
    alone = (weights / "config.json").is_file()
    return load_vae(weights if alone else locate(weights).vae, torch.float32, torch.device("cpu"))


def from_nothing(architecture: VAEConfig, seed: int) -> CausalVAE:
    """A VAE of random weights, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CausalVAE(architecture)


def learner(config: VAETraining, vae: CausalVAE) -> nn.Module:
    """The part of a VAE in which something learns."""
    return vae if config.part == "full" else vae.decoder


def reconstruct(
    config: VAETraining,
    worker: CausalVAE,
    given: Float[Tensor, "B L T2 H2 W2"] | None,
    target: Float[Tensor, "B C F H W"],
    step: int,
) -> tuple[Float[Tensor, "B C F H W"], Posterior | None]:
    """Clips, in [-1, 1], decoded from `given` latents or from their own; and the posterior that these were drawn from, if from one."""
    tiled = torch.rand((), generator=random_generator(config.seed, "tiling", step)).item() < config.tiling_probability
    if given is not None:
        draw = random_generator(config.seed, "latents", step)
        noise = config.latent_noise * torch.rand((), generator=draw) * torch.randn(given.shape, generator=draw)
        posterior, latents = None, (given + noise).to(target.device)
    else:
        with torch.set_grad_enabled(config.part == "full"):
            posterior = (tiled_encode if tiled else CausalVAE.encode)(worker, target.to(dtype_of(worker)))
        posterior = Posterior(posterior.mean.float(), posterior.logvar.float())
        latents = posterior.sample(random_generator(config.seed, "posterior", step))
    return (tiled_decode if tiled else CausalVAE.decode)(worker, latents.to(dtype_of(worker))).float(), posterior


def backward(
    config: VAETraining,
    pixels: Float[Tensor, "B C F H W"],
    target: Float[Tensor, "B C F H W"],
    posterior: Posterior | None,
    last_layer: Float[Tensor, "C *kernel"],
    perceptual: PerceptualDistance | None,
    adversary: Adversary | None,
) -> dict[str, Float[Tensor, ""]]:
    """Add the gradient of the weighted losses to the VAE's parameters. Returns the losses before their weights.

    It goes down to the pixels first, where the adversarial one can be scaled to the others, and then once through the VAE.
    """
    losses = {"reconstruction": reconstruction_loss(pixels, target, config.mse_weight, config.gradient_weight, config.log_mse_weight)}
    loss = losses["reconstruction"]
    if perceptual is not None:
        losses["perceptual"] = perceptual(pixels, target)
        loss = loss + config.perceptual_weight * losses["perceptual"]
    (gradient,) = torch.autograd.grad(loss, pixels)
    if adversary is not None:
        losses["adversarial"] = adversary.loss(pixels)
        (pull,) = torch.autograd.grad(losses["adversarial"], pixels)
        losses["adaptive_weight"] = adaptive_weight(pixels, gradient, pull, last_layer)
        gradient = gradient + config.adversarial_weight * losses["adaptive_weight"] * pull
    roots, gradients = [pixels], [gradient]
    if posterior is not None and config.kl_weight:
        losses["kl"] = kl_divergence(posterior, pixels.numel())
        roots.append(losses["kl"])
        gradients.append(torch.full_like(losses["kl"], config.kl_weight))
    torch.autograd.backward(roots, gradients)
    return {name: loss.detach() for name, loss in losses.items()}


def draw_near(
    worker: CausalVAE, target: Float[Tensor, "B C F H W"], given: Float[Tensor, "B L T2 H2 W2"], weight: float
) -> Float[Tensor, ""]:
    """Add the gradient by which the encoder's latents of `target` come nearer to the given ones. Returns how far off they are, squared."""
    off = (worker.encode(target.to(dtype_of(worker))).mean.float() - given.to(target.device)).square().mean()
    (weight * off).backward()
    return off.detach()


def dtype_of(vae: CausalVAE) -> torch.dtype:
    return vae.quant_conv.weight.dtype


def clips_of(config: VAETraining, source: Source, step: int) -> UInt8[Tensor, "B F H W 3"]:
    """What a step sees. Of every n steps, floor(n * image_ratio) see images."""
    draw = random_generator(config.seed, "clips", step)
    if floor((step + 1) * config.image_ratio) > floor(step * config.image_ratio):
        return to_batch([source.image(draw) for _ in range(config.image_batch_size)])
    return to_batch([source.video(draw) for _ in range(config.batch_size)])


def to_batch(clips: Sequence[UInt8[np.ndarray, "F H W 3"]]) -> UInt8[Tensor, "B F H W 3"]:
    return torch.from_numpy(np.stack(clips))


def keep(
    config: VAETraining, vae: CausalVAE, ema: dict[str, Tensor], held_out: Sequence[UInt8[Tensor, "1 F H W 3"]], folder: Path
) -> float:
    """Write the VAE with the averaged weights to `folder`, in the official layout in float16, and return its PSNR."""
    vae = copy.deepcopy(vae)
    learner(config, vae).load_state_dict(ema, strict=False)  # what does not learn has no average
    vae = vae.half().float()  # judge what is stored
    psnr, deviation = evaluate(vae, held_out)
    if config.changes_latents:  # a transformer wants latents of variance 1
        vae.config = replace(vae.config, scaling_factor=1 / deviation)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "config.json") as (temporary, _):
        temporary.write_text(json.dumps(official_vae_json(vae.config), indent=2) + "\n", encoding="utf-8")
    with replacing(folder / "pytorch_model.safetensors") as (temporary, _):
        save_file({name: tensor.half().contiguous() for name, tensor in vae.state_dict().items()}, temporary)
    return psnr


@torch.no_grad()
def evaluate(vae: CausalVAE, clips: Sequence[UInt8[Tensor, "1 F H W 3"]]) -> tuple[float, float]:
    """Mean PSNR per clip, in dB, of encoding and decoding; and the standard deviation of the latents."""
    values, latents = [], []
    for clip in clips:
        x = to_pixels(clip).to(vae.quant_conv.weight.device)
        latents.append(vae.encode(x).mode())
        error = vae.decode(latents[-1]).clamp(-1, 1) - x
        values.append(-10 * F.mse_loss(error / 2, torch.zeros_like(error)).log10())
    return torch.stack(values).mean().item(), torch.cat(latents).std().item()
