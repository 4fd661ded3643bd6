"""Trains the diffusion transformer by rectified flow on a latent cache.

x_sigma = (1 - sigma) * data + sigma * noise; the model learns the velocity, noise - data, at a random sigma. Everything random is a
function of (seed, step): a run that was killed and started again is the run that never stopped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.files import replacing
from hunyuan_video.models.attention import matmul
from hunyuan_video.models.text import TextFeatures
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig, split_head, use_attention
from hunyuan_video.training.dataset import LatentCache
from hunyuan_video.training.master import MasterWeights
from hunyuan_video.training.run import Every, Run, random_generator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransformerTraining:
    """Settings of one training from scratch. The sizes are the embedded miniature's."""

    cache: Path
    """the latent cache"""
    text: Path
    """folder with text_encoder/ and text_encoder_2/; encodes the empty caption"""
    num_steps: int = 10_000
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    decay_fraction: float = 0.35
    """the last part of the run, in which the learning rate falls linearly to 1 % of its value"""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    caption_dropout: float = 0.1
    sigma_mean: float = 0.5
    """sigma = sigmoid(normal(sigma_mean, 1)): above 0, more of the training is spent where layout and motion are decided"""
    ema_decay: float = 0.999
    seed: int = 0
    checkpoint_seconds: float = 90.0
    hidden_size: int = 192
    num_heads: int = 3
    num_double_blocks: int = 2
    num_single_blocks: int = 4

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "warmup_steps", "learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if not 0 <= self.caption_dropout < 1:
            raise ValueError(f"caption_dropout is {self.caption_dropout}; it must be in [0, 1).")

    def learning_rate_at(self, step: int) -> float:
        decay_steps = max(1, round(self.num_steps * self.decay_fraction))
        remaining = min(1.0, (self.num_steps - step) / decay_steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * max(0.01, remaining)


def velocity_loss(model: HunyuanVideoTransformer, latents: Tensor, features: TextFeatures, sigma: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted velocity; 1 is what a model that predicts nothing gets, roughly."""
    dtype = model.img_in.proj.weight.dtype
    level = sigma.view(-1, 1, 1, 1, 1)
    x = (1 - level) * latents + level * noise
    features = features.to(latents.device, dtype)
    condition = model.condition(features.states, features.mask, features.pooled)
    predicted = model(x, sigma * 1000, condition)
    return (predicted.float() - (noise - latents)).square().mean()


def build_model(config: TransformerTraining, latent_channels: int, text_dim: int, pooled_dim: int) -> HunyuanVideoTransformer:
    """A transformer of the configured size, initialized for training."""
    model = HunyuanVideoTransformer(
        TransformerConfig(
            in_channels=latent_channels,
            out_channels=latent_channels,
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            num_double_blocks=config.num_double_blocks,
            num_single_blocks=config.num_single_blocks,
            rope_dims=split_head(config.hidden_size // config.num_heads),
            text_dim=text_dim,
            pooled_dim=pooled_dim,
            guidance_embed=False,
        )
    )
    initialize(model, random_generator(config.seed, "initialization"))
    return model


@torch.no_grad()
def initialize(model: HunyuanVideoTransformer, generator: torch.Generator) -> None:
    """Xavier weights and zero biases; every modulation and the final layer start at zero, so that each block starts as identity."""
    for name, parameter in model.named_parameters():
        if (
            name.endswith(("mod.linear.weight", "modulation.linear.weight", "adaLN_modulation.1.weight"))
            or name == "final_layer.linear.weight"
        ):
            parameter.zero_()
        elif parameter.ndim >= 2:
            fan_in, fan_out = parameter[0].numel(), parameter.shape[0]
            parameter.normal_(0, (2 / (fan_in + fan_out)) ** 0.5, generator=generator)
        elif not name.endswith("norm.weight") and not name.endswith(("norm1.weight", "norm2.weight")):
            parameter.zero_()


def train(config: TransformerTraining, folder: str | Path) -> Path:
    """Train, or go on training, in `folder`; returns the file with the averaged (EMA) weights in float16."""
    cache = LatentCache(config.cache)
    text = load_text_encoder(config.text / "text_encoder", config.text / "text_encoder_2", dtype=torch.float32)
    empty = text.encode([""])
    model = build_model(config, cache.latents.shape[1], empty.states.shape[-1], empty.pooled.shape[-1])
    weights = MasterWeights(
        model, betas=(0.9, 0.97), weight_decay=config.weight_decay, clip_norm=config.clip_norm, ema_decay=config.ema_decay
    )
    run, start = Run(folder, config), 0
    if (state := run.load()) is not None:
        weights.load_state_dict(state["weights"])
        start = state["step"]
    model.bfloat16()
    weights.load_into(model)
    use_attention(model, matmul)
    due, average = Every(config.checkpoint_seconds), None
    for step in run.steps(start, config.num_steps):
        draw = random_generator(config.seed, "batch", step)
        indices = torch.randint(len(cache), (config.batch_size,), generator=draw).tolist()
        dropped = torch.rand(config.batch_size, generator=draw) < config.caption_dropout
        latents, features = cache.batch(indices, dropped, empty)
        sigma = torch.sigmoid(config.sigma_mean + torch.randn(config.batch_size, generator=draw))
        loss = velocity_loss(model, latents, features, sigma, torch.randn(latents.shape, generator=draw))
        loss.backward()
        norm = weights.step(model, step, config.learning_rate_at(step))
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        if (step + 1) % 20 == 0:
            run.log(step + 1, loss=average, gradient_norm=norm, learning_rate=config.learning_rate_at(step))
        if due() or step + 1 == config.num_steps:
            run.save(step + 1, {"weights": weights.state_dict()})
    run.close()
    path = Path(folder) / "transformer.safetensors"
    with replacing(path) as (temporary, _):
        save_file({name: value.half() for name, value in weights.ema.items()}, temporary)
    return path
