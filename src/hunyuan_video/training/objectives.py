"""What a training step asks of the model: plain functions of latents, text, and what was drawn at random.

Rectified flow: x_sigma = (1 - sigma) * data + sigma * noise, and the model learns the velocity, noise - data. Image to video ("token
replace"): the first latent frame of x is the data itself, and only the other frames count. So it is with first and last frames, and with
the first ones of a clip that is to be continued. Where the first is told on channels beside x ("latent concat"), all are noisy and count.

Guidance distillation (arXiv 2210.03142): a student that is told the guidance scale learns the velocity that its teacher reaches with two
passes.

Letters: B samples, C channels, T latent frames, H W latent height and width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.beginning import Beginning
from hunyuan_video.config import Conditioning, check_types
from hunyuan_video.models.text import TextFeatures
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.progressive import Stage
from hunyuan_video.training.run import random_generator

GIVEN = ("image_to_video", "first_and_last", "continuation")  # shares of the videos of which some frames are given


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Which noise levels, conditions and targets a model learns."""

    sigma_mean: float = 0.0
    """noise levels are sigmoid(normal(sigma_mean, sigma_std)); above 0, more of the training is spent on layout and motion"""
    sigma_std: float = 1.0
    shift: float = 1.0
    """flow shift of the noise levels, as in sampling: s * sigma / (1 + (s - 1) * sigma)"""
    shift_tokens: int | None = None
    """the shift is for samples of this many transformer tokens and grows with the root of their number (SD3, arXiv 2403.03206, 5.3.2)"""
    image_to_video: float = 0.0
    """share of the micro-batches of videos whose first latent frame is given, without noise"""
    first_and_last: float = 0.0
    """share of those whose first and last latent frames are"""
    continuation: float = 0.0
    """share of those whose first latent frames are: two or more, each number as often"""
    caption_dropout: float = 0.1
    """share of the micro-batches whose captions are replaced by the empty one, for classifier-free guidance"""
    guidance: float = 1.0
    """what a model with embedded guidance is told. 1 means unguided, which is what data shows; official weights sample at 6"""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("sigma_std", "shift", "shift_tokens"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; it must be above 0.")
        for name, highest in (*dict.fromkeys(GIVEN, 1.0).items(), ("caption_dropout", 0.99)):
            if not 0 <= getattr(self, name) <= highest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a share between 0 and {highest:g}.")
        if (together := sum(getattr(self, name) for name in GIVEN)) > 1 + 1e-9:
            raise ValueError(f"{', '.join(GIVEN)} are {together:g} together; as shares of the same videos they must be 1 at most.")

    @property
    def guidance_range(self) -> tuple[float, float]:
        """What the guidance scale is drawn between."""
        return self.guidance, self.guidance


class Noisy(NamedTuple):
    """A micro-batch as the model sees it; one without guidance embedding is not told the scale."""

    x: Float[Tensor, "B C T H W"]
    sigma: Float[Tensor, " B"]
    features: TextFeatures
    scale: Float[Tensor, " B"]
    clean_frames: tuple[int, ...]
    beside: Float[Tensor, "B more T H W"] | None = None
    """on channels of its own"""

    def to(self, device: torch.device) -> Noisy:
        features = self.features.to(device, self.features.states.dtype)
        beside = None if self.beside is None else self.beside.to(device)
        return Noisy(self.x.to(device), self.sigma.to(device), features, self.scale.to(device), self.clean_frames, beside)


def shift_for(config: Objective, tokens: int) -> float:
    """The flow shift for samples of so many transformer tokens: more tokens need more noise to hide as much."""
    return config.shift * (1.0 if config.shift_tokens is None else sqrt(tokens / config.shift_tokens))


def draw_sigma(config: Objective, batch: int, tokens: int, generator: torch.Generator) -> Float[Tensor, " B"]:
    """Noise levels, logit-normal and then shifted."""
    sigma = torch.sigmoid(config.sigma_mean + config.sigma_std * torch.randn(batch, generator=generator))
    shift = shift_for(config, tokens)
    return shift * sigma / (1 + (shift - 1) * sigma)


def draw_dropped(config: Objective, generator: torch.Generator) -> bool:
    """Whether a micro-batch does without its captions: all or none, for the empty one among others would need a mask."""
    return torch.rand((), generator=generator).item() < config.caption_dropout


def given_frames(config: Objective, num_frames: int, share: float) -> tuple[int, ...]:
    """Which of a video's latent frames are given, by a number drawn evenly from 0 to 1. Never all."""
    frames = range(0)
    if share < config.image_to_video:
        frames = range(1)
    elif (share := share - config.image_to_video) < config.first_and_last:
        frames = range(0, num_frames, max(1, num_frames - 1))
    elif (share := share - config.first_and_last) < config.continuation:
        frames = range(2 + int(share / config.continuation * (num_frames - 2)))
    return tuple(frames) if len(frames) < num_frames else ()


def add_noise(
    config: Objective,
    latents: Float[Tensor, "B C T H W"],
    features: TextFeatures,
    generator: torch.Generator,
    told: Conditioning = "first_frame",
    openings: Float[Tensor, "B C 1 H W"] | None = None,
) -> tuple[Noisy, Float[Tensor, "B C T H W"]]:
    """A micro-batch at random noise levels, and the velocity there. Everything is drawn on the CPU: a seed means the same anywhere. The
    model is `told` of given frames so; what is given as the first is of `openings`, where a picture is encoded alone."""
    batch, num_frames, height, width = len(latents), *latents.shape[2:]
    sigma = draw_sigma(config, batch, num_frames * height * width // 4, generator).to(latents.device)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    share, where = torch.rand((), generator=generator).item(), torch.rand(batch, generator=generator)
    begins = beginning(given_frames(config, num_frames, share), latents, told, openings).on(Stage.whole(tuple(latents.shape)), noise)
    level = sigma.view(-1, 1, 1, 1, 1)
    x = begins.held((1 - level) * latents + level * noise, 0.0)  # clean at every level
    lowest, highest = config.guidance_range
    scale = (lowest + (highest - lowest) * where).to(latents.device, features.states.dtype)
    return Noisy(x, sigma, features, scale, begins.clean, begins.beside), noise - latents


def beginning(
    frames: tuple[int, ...], latents: Float[Tensor, "B C T H W"], told: Conditioning, openings: Float[Tensor, "B C 1 H W"] | None
) -> Beginning:
    """What samples begin with, of which these frames are given; the first is always among them."""
    if not frames:
        return Beginning()
    given = latents[:, :, list(frames)]
    first = given if openings is None else torch.cat([openings, given[:, :, 1:]], dim=2)
    return Beginning(told, frames, first, frames if told == "first_frame" else ())


def velocity(model: HunyuanVideoTransformer, noisy: Noisy) -> Float[Tensor, "B C T H W"]:
    """What the model predicts."""
    features = noisy.features
    # The scale was rounded to the model's dtype before it is multiplied, as in sampling.
    guidance = noisy.scale * 1000 if model.config.guidance_embed else None
    condition = model.condition(features.states, features.mask, features.pooled, guidance)
    x = noisy.x if noisy.beside is None else torch.cat([noisy.x, noisy.beside], dim=1)
    return model(x, noisy.sigma * 1000, condition, noisy.clean_frames).float()


def loss_of(model: HunyuanVideoTransformer, noisy: Noisy, target: Float[Tensor, "B C T H W"]) -> Float[Tensor, ""]:
    """Mean squared error of the predicted velocity where frames are noisy; 1 is what a model that predicts nothing gets, roughly."""
    error = velocity(model, noisy) - target
    counted = [frame for frame in range(error.shape[2]) if frame not in noisy.clean_frames]
    return error[:, :, counted].square().mean()


@torch.no_grad()
def guided_velocity(teacher: HunyuanVideoTransformer, noisy: Noisy, empty: TextFeatures) -> Float[Tensor, "B C T H W"]:
    """Classifier-free guidance: where the empty caption leads, plus `scale` times what the caption adds."""
    without = velocity(teacher, noisy._replace(features=empty))
    return without + noisy.scale.float().view(-1, 1, 1, 1, 1) * (velocity(teacher, noisy) - without)


def student_of(teacher: HunyuanVideoTransformer, seed: int) -> HunyuanVideoTransformer:
    """A float32 copy of a model with a guidance embedding that says nothing yet.

    Raises:
        ValueError: the model has one already.
    """
    if teacher.config.guidance_embed:
        raise ValueError("Guidance is to be distilled, but these weights have it already; start from weights without guidance embedding.")
    with torch.device("meta"):
        student = HunyuanVideoTransformer(replace(teacher.config, guidance_embed=True))
    assert student.guidance_in is not None
    state = {name: torch.zeros(parameter.shape) for name, parameter in student.guidance_in.named_parameters(prefix="guidance_in")}
    state["guidance_in.mlp.0.weight"].normal_(0, 0.02, generator=random_generator(seed, "guidance"))  # the second linear stays zero
    state |= {name: tensor.float().clone() for name, tensor in teacher.state_dict().items()}
    student.load_state_dict(state, strict=True, assign=True)
    return student
