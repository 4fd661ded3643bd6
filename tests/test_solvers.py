"""Solvers, against a flow that is known in closed form and, where it has them, Diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hunyuan_video.config import FullSampling
from hunyuan_video.sampling import SOLVERS, Velocity, linear_quadratic_sigmas, shifted_sigmas

MEAN, STD = 0.7, 0.4
NOISE = torch.linspace(-2, 2, 9)
ORDERS = {"euler": 1, "heun": 2, "dpm++2m": 2, "unipc": 3}


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """The exact velocity for data that is Gaussian."""
    variance = ((1 - sigma) * STD) ** 2 + sigma**2
    return (sigma - (1 - sigma) * STD**2) / variance * (x - (1 - sigma) * MEAN) - MEAN


def last(solver: str, velocity: Velocity, sigmas: list[float], noise: Tensor = NOISE) -> Tensor:
    *_, x = SOLVERS[solver](velocity, noise, sigmas)
    return x


def exact(sigma: float) -> Tensor:
    """Where the flow from the noise is then."""
    return (1 - sigma) * MEAN + math.sqrt(((1 - sigma) * STD) ** 2 + sigma**2) * NOISE


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_error_falls_with_the_order_that_is_said(solver):
    """Between noise levels that are both far from 0 and 1, where steps over the signal-to-noise ratio are infinitely long."""
    few, many = (
        (last(solver, gaussian, torch.linspace(0.9, 0.1, steps + 1).tolist(), exact(0.9)) - exact(0.1)).abs().max() for steps in (32, 128)
    )
    assert math.log(few / many, 4) == pytest.approx(ORDERS[solver], abs=0.15)


@pytest.mark.parametrize("solver", ["heun", "dpm++2m", "unipc"])
def test_from_noise_to_data_they_err_less_than_euler_with_as_many_evaluations(solver):
    steps = 10 if solver == "heun" else 20
    of_euler, of_this = (
        (last(name, gaussian, shifted_sigmas(n, 1.0).tolist()) - exact(0)).abs().max() for name, n in (("euler", 20), (solver, steps))
    )
    assert of_this < of_euler / 2


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sigmas", [[1.0, 0.0], shifted_sigmas(7, 3.0).tolist(), linear_quadratic_sigmas(6).tolist(), [0.9, 0.3, 0.0]])
def test_a_straight_flow_is_followed_exactly(solver, sigmas):
    data, noise = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(1))
    x = (1 - sigmas[0]) * data + sigmas[0] * noise
    torch.testing.assert_close(last(solver, lambda _x, _sigma: noise - data, sigmas, x), data, atol=2e-6, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_step_is_eulers(solver):
    torch.testing.assert_close(last(solver, gaussian, [1.0, 0.0]), NOISE - gaussian(NOISE, 1.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_model_is_evaluated_as_often_as_is_said_and_never_without_noise(solver, steps):
    seen = []
    yields = list(SOLVERS[solver](lambda x, sigma: seen.append(sigma) or gaussian(x, sigma), NOISE, shifted_sigmas(steps, 7.0).tolist()))
    assert len(yields) == steps and len(seen) == FullSampling(num_steps=steps, solver=solver).evaluations
    assert min(seen) > 0 and all(x.isfinite().all() for x in yields)


@pytest.mark.parametrize("solver", SOLVERS)
def test_latents_stay_float32_for_a_velocity_in_bfloat16(solver):
    assert last(solver, lambda x, sigma: gaussian(x, sigma).bfloat16(), shifted_sigmas(4, 3.0).tolist()).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Diffusers', of torch's tensors in NumPy 2
@pytest.mark.parametrize("solver", ["dpm++2m", "unipc"])
def test_a_trajectory_equals_diffusers(solver):
    """Which cannot begin at pure noise: 0.98, by the logarithm there."""
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    kind = DPMSolverMultistepScheduler if solver == "dpm++2m" else UniPCMultistepScheduler
    scheduler = kind(prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=2)
    sigmas = [0.98, 0.9, 0.75, 0.6, 0.3, 0.1, 0.0]
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas = torch.tensor(sigmas)
    x = NOISE[None]
    for ours, sigma, t in zip(SOLVERS[solver](gaussian, x, sigmas), sigmas, scheduler.timesteps, strict=False):
        x = scheduler.step(gaussian(x, sigma), t, x).prev_sample
        torch.testing.assert_close(ours, x, atol=2e-6, rtol=0)
