"""Flow-matching sampling: noise levels, solvers, classifier-free guidance. Plain functions of any `velocity(x, sigma)`.

`sigma` is the noise level: x_sigma = (1 - sigma) * data + sigma * noise, so 1 is pure noise and 0 is data, and the velocity is
noise - data. Sampling runs from 1 to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.config import FullSampling

Velocity = Callable[[Tensor, float], Tensor]
Solver = Callable[[Velocity, Float[Tensor, "*shape"], list[float]], Iterator[Float[Tensor, "*shape"]]]


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


def rest_of(sigmas: list[float], share: float) -> list[float]:
    """The noise levels of the last `share` of the steps. Where that is no whole number, the first step begins between two levels."""
    steps = len(sigmas) - 1
    done = steps - round(share * steps, 9)
    whole = min(int(done), steps - 1)
    begin = sigmas[whole] + (done - whole) * (sigmas[whole + 1] - sigmas[whole])
    return [begin, *sigmas[whole + 1 :]]


def euler(velocity: Velocity, x: Float[Tensor, "*shape"], sigmas: list[float]) -> Iterator[Float[Tensor, "*shape"]]:
    """Yields x after every step. x stays float32, whatever the dtype of the velocity."""
    x = x.float()
    for sigma, next_sigma in pairwise(sigmas):
        x = x + velocity(x, sigma).float() * (next_sigma - sigma)
        yield x


def heun(velocity: Velocity, x: Float[Tensor, "*shape"], sigmas: list[float]) -> Iterator[Float[Tensor, "*shape"]]:
    """As `euler`, by the mean of the velocities at both ends of a step (Heun's rule): of second order, and two evaluations a step. The last
    one, to noise level 0, at which no model was trained, is Euler's."""
    x = x.float()
    for sigma, next_sigma in pairwise(sigmas):
        step, v = next_sigma - sigma, velocity(x, sigma).float()
        if next_sigma > 0:
            v = (v + velocity(x + v * step, next_sigma).float()) / 2
        x = x + v * step
        yield x


def dpmpp_2m(velocity: Velocity, x: Float[Tensor, "*shape"], sigmas: list[float]) -> Iterator[Float[Tensor, "*shape"]]:
    """As `euler`, by DPM-Solver++(2M) (arXiv 2211.01095): what the data will be is extrapolated from the last two steps, over the logarithm
    of the signal-to-noise ratio. Of second order, with one evaluation a step."""
    x, past = x.float(), list[tuple[float, Tensor]]()
    for sigma, next_sigma in pairwise(sigmas):
        past = [*past[-1:], (sigma, x - sigma * velocity(x, sigma).float())]
        x = _towards(_ahead(past, next_sigma), x, next_sigma / sigma)
        yield x


def unipc(velocity: Velocity, x: Float[Tensor, "*shape"], sigmas: list[float]) -> Iterator[Float[Tensor, "*shape"]]:
    """As `dpmpp_2m`, and each step is taken again once the next evaluation has shown what the data is at its end (UniPC-2 with B2, arXiv
    2302.04867): of third order, still with one evaluation a step. What is yielded is before that correction."""
    x, past = x.float(), list[tuple[float, Tensor]]()
    start = x  # of the step that led to x
    for sigma, next_sigma in pairwise(sigmas):
        data = x - sigma * velocity(x, sigma).float()
        if past:
            x = _towards(_between(past, sigma, data), start, sigma / past[-1][0])
        start, past = x, [*past[-1:], (sigma, data)]
        x = _towards(_ahead(past, next_sigma), x, next_sigma / sigma)
        yield x


def _towards(data: Tensor, x: Tensor, ratio: float) -> Tensor:
    """Where a step ends that goes towards the same data all the way, and leaves that `ratio` of the noise."""
    return data + (x - data) * ratio


def _log_snr(sigma: float) -> float:
    return math.log((1 - sigma) / sigma)


def _is_long(past: list[tuple[float, Tensor]]) -> bool:
    """Whether two evaluations are known of which the first was not of pure noise, from which any step is infinitely long."""
    return len(past) == 2 and past[0][0] < 1


def _ahead(past: list[tuple[float, Tensor]], next_sigma: float) -> Tensor:
    """The data in the middle of the next step, as the last two evaluations let one expect; the last one alone for a step to 0, which is
    infinitely long."""
    sigma, data = past[-1]
    if next_sigma == 0 or not _is_long(past):
        return data
    before, data_before = past[0]
    ratio = (_log_snr(next_sigma) - _log_snr(sigma)) / (_log_snr(sigma) - _log_snr(before))
    return data + (data - data_before) * (ratio / 2)


def _between(past: list[tuple[float, Tensor]], next_sigma: float, data_there: Tensor) -> Tensor:
    """The same of the last step, when the data at its end is known."""
    sigma, data = past[-1]
    if not _is_long(past):
        return (data + data_there) / 2
    before, data_before = past[0]
    h = _log_snr(next_sigma) - _log_snr(sigma)
    back = (_log_snr(before) - _log_snr(sigma)) / h
    # Weights with which a parabola through the three points is integrated exactly (the paper's equation for B2(h) = e^h - 1, at -h).
    decay = math.expm1(-h)
    first = -1 / h - 1 / decay
    second = 2 * (first / -h - 0.5 / decay)
    of_before = (first - second) / (1 - back)
    return data + (data_before - data) * (of_before / back) + (data_there - data) * (first - of_before)


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun, "dpm++2m": dpmpp_2m, "unipc": unipc}


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
