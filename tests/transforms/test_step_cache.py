"""Step caches: what they leave out, what they say in its place, and for whom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from measure import randomize
from spawn import on_ranks
from step_cache_ranks import GUIDED, KINDS, SMALL, STEPS, THRESHOLDS, denoised, with_cache, work
from torch import Tensor

from hunyuan_video import plan
from hunyuan_video.apps.worker import Studio
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.request import Request
from hunyuan_video.sampling import shifted_sigmas
from hunyuan_video.transforms import step_cache
from hunyuan_video.transforms.step_cache import Drift, Taylor, Turns, dense_steps, first_block
from hunyuan_video.weights import locate

EVERYTHING = 1e9  # a threshold at which whatever may be is left out


@pytest.fixture(scope="module")
def pipe(official_tree: Path) -> HunyuanVideo:
    return HunyuanVideo.load(official_tree, Runtime(device="cpu", attention="sdpa"))


def computed_at(kind: Callable[..., Any], velocity: Callable[[Tensor, float], Tensor], threshold: float, num_steps: int = 12) -> list[int]:
    """The steps at which a velocity is computed, whose latents fall from 112 by 1 in each."""
    at: list[int] = []
    step = 0

    def counted(x: Tensor, sigma: float) -> Tensor:
        at.append(step)
        return velocity(x, sigma)

    answers = kind(counted, Turns(num_steps, threshold))
    for step in range(1, num_steps + 1):
        answers(torch.tensor([112.0 - (step - 1)]), 1 - (step - 1) / num_steps)
    return at


# --- Which steps ---


@pytest.mark.parametrize("kind", [Drift, Taylor])
def test_all_but_the_first_steps_and_the_last_may_be_left_out(kind):
    assert computed_at(kind, lambda x, sigma: x * sigma, EVERYTHING) == [1, 2, 3, 12]


def test_a_tenth_of_the_steps_and_at_least_three_are_computed_in_any_case():
    assert [dense_steps(steps) for steps in (1, 6, 30, 31, 50)] == [3, 3, 3, 4, 5]


def test_changes_gather_until_they_reach_the_threshold():
    """Of a velocity that changes as its latents do, by about a hundredth a step: two are left out, and the third is computed."""
    assert computed_at(Drift, lambda x, _sigma: x, 0.025) == [1, 2, 3, 6, 9, 12]


def test_what_a_line_misses_decides_how_far_it_is_trusted():
    """Of a velocity that bends for the first half and is straight in the second."""
    at = computed_at(Taylor, lambda _x, sigma: torch.tensor([1 + 4 * max(sigma - 0.5, 0.0) ** 2]), 0.005, num_steps=40)
    first, second = (sum(start < step <= start + 20 for step in at) for start in (0, 20))
    assert 20 > first > 2 * second


@pytest.mark.parametrize("kind", KINDS)
def test_a_forced_schedule_calls_blocks_exactly_as_often_as_it_says(kind, pipe):
    forced, calls = with_cache(pipe, kind, EVERYTHING), {}
    blocks = pipe.transformer.blocks
    hooks = [block.register_forward_hook(lambda block, *_: calls.update({block: calls.get(block, 0) + 1})) for block in blocks]
    *_, last = (step for step in forced.steps("A cat.", SMALL) if step.stage == "denoise")
    for hook in hooks:
        hook.remove()
    assert last.computed == 4
    assert [calls[block] for block in blocks] == [STEPS if kind == "first-block" else 4] + [4] * (len(blocks) - 1)


# --- What is said in its place ---


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_of_0_is_off_bit_for_bit(kind, cfg_scale, pipe):
    sampling = replace(SMALL, cfg_scale=cfg_scale)
    assert torch.equal(with_cache(pipe, kind, 0.0)("A cat.", sampling).latents, pipe("A cat.", sampling).latents)


def test_a_velocity_that_is_linear_in_the_noise_level_is_foretold_exactly():
    offset, slope = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calls = []
    answers = Taylor(lambda _x, sigma: calls.append(sigma) or offset + slope * sigma, Turns(30, 1e-4))
    for sigma in shifted_sigmas(30, 7.0)[:-1].tolist():
        torch.testing.assert_close(answers(torch.zeros(5), sigma), offset + slope * sigma, atol=1e-5, rtol=0)
    assert len(calls) == dense_steps(30) + 1


def test_a_velocity_that_stays_is_repeated_to_the_end():
    assert computed_at(Drift, lambda _x, _sigma: torch.ones(1), 1e-6, num_steps=30) == [1, 2, 3, 30]


# --- For whom ---


def inputs(seed: int, branch: int) -> tuple[Any, ...]:
    draw = torch.Generator().manual_seed(seed)
    model = tiny()
    states, pooled = torch.randn(1, 5, 24, generator=draw), torch.randn(1, 20, generator=draw)
    condition = model.condition(states, torch.ones(1, 5, dtype=torch.bool), pooled, torch.full((1,), 4000.0))
    return torch.randn(1, 4, 3, 6, 4, generator=draw), torch.full((1,), 500.0), replace(condition, branch=branch)


def tiny() -> HunyuanVideoTransformer:
    return randomize(HunyuanVideoTransformer(TINY), std=0.15)


@torch.no_grad()
def test_branches_of_guidance_decide_apart():
    """One sees the same at each step, the other one something else."""
    model, computed = tiny(), []
    with first_block(model, partial(Turns, 7, 0.01), lambda: computed.append(branch)):
        for step in range(7):
            for branch in (0, 1):
                model(*inputs(seed=0 if branch == 0 else step, branch=branch))
    assert computed.count(0) == 4 and computed.count(1) == 7


def test_each_branch_of_a_video_has_a_cache_of_its_own(pipe):
    """With one between them, which saw both in turn, a forced schedule would compute others."""
    *_, last = (step for step in with_cache(pipe, "drift", EVERYTHING).steps("A cat.", GUIDED) if step.stage == "denoise")
    assert last.computed == 2 * 4


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_goes_from_one_video_into_the_next(kind, pipe):
    again = with_cache(pipe, kind, THRESHOLDS[kind])
    expected, trunk = again("A cat.", SMALL).latents, pipe.transformer.trunk
    for step in again.steps("A dog.", SMALL):  # and of one that is given up
        if step.stage == "denoise" and step.step == 5:
            break
    assert pipe.transformer.trunk is trunk
    assert torch.equal(again("A cat.", SMALL).latents, expected)


@pytest.fixture(scope="module")
def found_by_ranks(official_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(work, 2, tmp_path_factory.mktemp("ranks"), official_tree)


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_leave_out_what_one_process_does(kind, pipe, found_by_ranks):
    expected = denoised(pipe, kind)
    assert 4 < expected.computed < STEPS, "some steps must be left out, and not all that may be"
    for found in found_by_ranks:
        computed, latents = found[kind]
        assert computed == expected.computed
        torch.testing.assert_close(latents, expected.latents, atol=1e-4, rtol=1e-4)


def test_ranks_that_gather_each_others_blocks_leave_out_the_same(pipe, found_by_ranks):
    expected = denoised(pipe, "first-block").latents
    for found in found_by_ranks:
        torch.testing.assert_close(found["sharded"], expected, atol=1e-4, rtol=1e-4)


def test_ranks_that_saw_different_numbers_decide_alike(found_by_ranks):
    assert [found["decision"] for found in found_by_ranks] == [False, False]


def test_branches_on_halves_of_the_ranks_decide_as_in_one_process(pipe, found_by_ranks):
    for number, kind in enumerate(KINDS):
        expected = denoised(pipe, kind, GUIDED).latents
        for found in found_by_ranks:
            torch.testing.assert_close(found["halves"][number], expected, atol=1e-4, rtol=1e-4)


# --- What is told, and refused ---


def test_evaluations_are_counted_without_a_cache_too(pipe):
    counts = [step.computed for step in pipe.steps("A cat.", replace(SMALL, num_steps=3, cfg_scale=3.0)) if step.stage == "denoise"]
    assert counts == [2, 4, 6]


def test_what_was_computed_is_said_and_in_the_files_name(pipe, caplog):
    caplog.set_level(logging.INFO)
    video = with_cache(pipe, "taylor", EVERYTHING)("A cat.", SMALL)
    assert f"Of {STEPS} evaluations of the transformer 4 were computed." in caplog.text
    assert (video.provenance.runtime.step_cache, video.provenance.runtime.cache_threshold) == ("taylor", EVERYTHING)


@pytest.mark.parametrize(("runtime", "solver"), [({"step_cache": kind}, "euler") for kind in KINDS] + [({}, "dpm++2m"), ({}, "unipc")])
def test_what_needs_more_than_latents_is_not_continued(runtime, solver, pipe):
    again = with_cache(pipe, runtime.get("step_cache", "off"))
    latents = torch.zeros(pipe.vae.config.latent_shape(5, 32, 48))
    with pytest.raises(ValueError, match=r"This run cannot be continued: with .* it needs what earlier steps computed"):
        next(again.steps("A cat.", replace(SMALL, solver=solver), resume=(1, latents)))


@pytest.mark.parametrize("runtime", [{"step_cache": "drift"}, {"pipefusion_patches": 2}])
def test_heun_is_refused_for_what_takes_evaluations_for_steps(runtime, pipe):
    again = HunyuanVideo(pipe.text_encoder, pipe.transformer, pipe.vae, runtime=replace(pipe.runtime, **runtime), origin=pipe.origin)
    with pytest.raises(ValueError, match="takes each evaluation for a step"):
        next(again.steps("A cat.", replace(SMALL, solver="heun")))


@torch.no_grad()
def test_what_the_first_block_remembers_is_planned(official_tree):
    parts = plan.Parts.of(locate(official_tree))
    sampling = replace(FullSampling(), height=64, width=64, num_frames=9, cfg_scale=3.0)
    off, on = (
        plan.on_cpu(parts, sampling, Runtime(device="cpu", dtype="float32", step_cache=kind)).stages["denoise"]
        for kind in ("off", "first-block")
    )
    tokens, hidden_size = 3 * 4 * 4, parts.transformer.hidden_size
    assert on - off == step_cache.remembered_bytes(parts.transformer, tokens, 4, branches=2) == (2 * 2 + 1) * tokens * 4 * hidden_size


def test_a_worker_begins_a_video_anew_that_latents_alone_do_not_continue(official_tree, pipe, caplog):
    studio = Studio(locate(official_tree), Runtime(device="cpu", attention="sdpa", step_cache="taylor", cache_threshold=EVERYTHING))
    latents = torch.zeros(pipe.vae.config.latent_shape(5, 32, 48))
    with closing(studio.make(Request("A cat.", SMALL), (2, latents))) as steps:
        assert [(step.stage, step.step) for step in islice(steps, 3)] == [("encode", 1), ("denoise", 1), ("denoise", 2)]
    assert "The video begins anew: with step_cache 'taylor'" in caplog.text
