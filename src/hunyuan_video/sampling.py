"""Flow-matching sampling: noise levels, solvers, classifier-free guidance. Plain functions of any `velocity(x, sigma)`.

`sigma` is the noise level: x_sigma = (1 - sigma) * data + sigma * noise, so 1 is pure noise and 0 is data, and the velocity is
noise - data. Sampling runs from 1 to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.config import FullSampling

Velocity = Callable[[Tensor, float], Tensor]


def shifted_sigmas(num_steps: int, shift: float) -> Float[Tensor, " steps_plus_1"]:
    """Evenly spaced noise levels pushed towards noise by the flow shift s: s * sigma / (1 + (s - 1) * sigma), in float32."""
    sigmas = torch.linspace(1, 0, num_steps + 1)
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def linear_quadratic_sigmas(num_steps: int, linear_steps: int | None = None, threshold: float = 0.025) -> Float[Tensor, " steps_plus_1"]:
    """The linear-quadratic schedule of Movie Gen (arXiv 2410.13720, 3.4.2): the first `linear_steps` (default: half) are as small as those
    of a 1000-step schedule and take sigma from 1 to 1 - threshold; the rest follow the parabola that continues with the same slope. With
    fewer than one linear step in 40 that parabola would fall below zero on its way."""
    linear = num_steps // 2 if linear_steps is None else linear_steps
    step = torch.arange(num_steps + 1, dtype=torch.float64)
    slope, rest = threshold / linear, num_steps - linear
    curvature = (1 - threshold - slope * rest) / rest**2
    sigmas = 1 - slope * step - curvature * (step - linear).clamp(min=0) ** 2
    sigmas[-1] = 0
    return sigmas.float()


def sigmas_of(sampling: FullSampling) -> list[float]:
    """A video's noise levels from 1 to 0, one more than there are steps."""
    if sampling.schedule == "linear-quadratic":
        return linear_quadratic_sigmas(sampling.num_steps, sampling.linear_steps).tolist()
    return shifted_sigmas(sampling.num_steps, sampling.shift).tolist()


def euler(velocity: Velocity, x: Float[Tensor, "*shape"], sigmas: list[float]) -> Iterator[Float[Tensor, "*shape"]]:
    """Yields x after every step. x stays float32, whatever the dtype of the velocity."""
    x = x.float()
    for sigma, next_sigma in pairwise(sigmas):
        x = x + velocity(x, sigma).float() * (next_sigma - sigma)
        yield x


def estimate(before: Float[Tensor, "*shape"], after: Float[Tensor, "*shape"], sigma: float, next_sigma: float) -> Float[Tensor, "*shape"]:
    """The data that a step from `sigma` to `next_sigma` was on its way to: where x would be if it went straight on to 0."""
    return after + (after - before) * (next_sigma / (sigma - next_sigma))


def classifier_free_guidance(positive: Velocity, negative: Velocity, scale: float) -> Velocity:
    """v = v_neg + scale * (v_pos - v_neg), as two passes: neither prompt is padded to the length of the other."""

    def velocity(x: Tensor, sigma: float) -> Tensor:
        v_neg = negative(x, sigma)
        return v_neg + scale * (positive(x, sigma) - v_neg)

    return velocity


def initial_noise(shape: tuple[int, ...], seed: int) -> Float[Tensor, ...]:
    """Gaussian noise drawn on the CPU in float32, so that a seed means the same video on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def official_noise(shape: tuple[int, ...], seed: int, device: torch.device) -> Float[Tensor, ...]:
    """Noise as the official code draws it: on the compute device, in float16 (the dtype of its text encoder)."""
    generator = torch.Generator(device=device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float16).float()
