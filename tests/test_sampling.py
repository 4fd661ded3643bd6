"""Schedules, the Euler loop and guidance, against the reference and against formulas."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import golden_config
from hypothesis import given
from hypothesis import strategies as st

from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.sampling import (
    classifier_free_guidance,
    euler,
    initial_noise,
    linear_quadratic_sigmas,
    shifted_sigmas,
)


@pytest.mark.parametrize(("steps", "shift"), [(50, 7.0), (5, 7.0), (30, 5.0), (6, 17.0), (4, 1.0), (1, 7.0)])
def test_sigmas_and_timesteps_equal_the_reference(golden, steps, shift):
    reference = golden("scheduler")
    sigmas = shifted_sigmas(steps, shift)
    reference.check(sigmas, f"out.sigmas_s{steps}_f{shift:g}_r1")
    reference.check(sigmas[:-1] * 1000, f"out.timesteps_s{steps}_f{shift:g}_r1")


@pytest.mark.parametrize("prefix", ["", "h_"])
def test_euler_trajectory_equals_the_reference_also_from_half_precision(golden, prefix):
    reference = golden("scheduler")
    velocities = iter([reference[f"in.{prefix}v{i}"] for i in range(5)])
    x0 = reference["in.h_x0" if prefix else "in.x0"]
    for i, x in enumerate(euler(lambda _x, _sigma: next(velocities), x0, shifted_sigmas(5, 7.0).tolist()), start=1):
        assert x.dtype == torch.float32
        reference.check(x, f"out.{prefix}x{i}")
    assert i == 5


@torch.no_grad()
def test_denoise_loop_with_both_guidances_equals_the_reference(golden):
    """Two unpadded passes here, one padded batch of two there."""
    reference = golden("denoise_loop")
    config = reference.info["config"]
    model = HunyuanVideoTransformer(golden_config(config)).eval()
    model.load_state_dict(reference.state_dict(), strict=True)
    guidance = torch.tensor([config["embedded_cfg_scale"] * 1000])

    def branch(row: int):
        rows = slice(row, row + 1)
        condition = model.condition(
            reference["in.text_states"][rows], reference["in.text_mask"][rows].bool(), reference["in.text_states_2"][rows], guidance
        )
        return lambda x, sigma: model(x, torch.tensor([sigma]) * 1000, condition)

    velocity = classifier_free_guidance(positive=branch(1), negative=branch(0), scale=config["cfg_scale"])
    sigmas = shifted_sigmas(config["steps"], config["flow_shift"])
    reference.check(sigmas, "out.sigmas")
    for i, x in enumerate(euler(velocity, reference["in.latents0"], sigmas.tolist()), start=1):
        reference.check(x, f"out.latents{i}")
    assert i == 5


def test_euler_is_exact_for_a_straight_flow():
    data, noise = torch.randn(2, 3), torch.randn(2, 3)
    *_, last = euler(lambda _x, _sigma: noise - data, noise, shifted_sigmas(7, 3.0).tolist())
    torch.testing.assert_close(last, data, atol=1e-6, rtol=0)


@given(steps=st.integers(1, 100), shift=st.floats(0.1, 50))
def test_sigmas_fall_from_one_to_zero(steps, shift):
    sigmas = shifted_sigmas(steps, shift)
    assert abs(sigmas[0] - 1) < 1e-6 and sigmas[-1] == 0 and (sigmas.diff() < 0).all()


@given(steps=st.integers(2, 100), data=st.data())
def test_linear_quadratic_falls_from_one_to_zero_with_small_equal_first_steps(steps, data):
    linear = data.draw(st.integers(math.ceil(steps / 40), steps - 1))
    sigmas = linear_quadratic_sigmas(steps, linear).double()
    assert sigmas[0] == 1 and sigmas[-1].abs() < 1e-6 and (sigmas.diff() < 0).all()
    torch.testing.assert_close(sigmas[linear], torch.tensor(0.975, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(sigmas[: linear + 1].diff(), torch.full((linear,), -0.025 / linear, dtype=torch.float64), atol=1e-6, rtol=0)


def test_guidance_of_one_is_the_positive_branch():
    velocity = classifier_free_guidance(lambda x, _s: 3 * x, lambda x, _s: -x, 1.0)
    torch.testing.assert_close(velocity(torch.ones(2), 0.5), torch.full((2,), 3.0))


def test_noise_is_a_function_of_the_seed_alone():
    assert torch.equal(initial_noise((1, 2, 3), 5), initial_noise((1, 2, 3), 5))
    assert not torch.equal(initial_noise((1, 2, 3), 5), initial_noise((1, 2, 3), 6))
