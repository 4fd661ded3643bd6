"""PipeFusion: what is one step old is what is said, on one rank and, on gloo, on several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pipefusion_ranks import CASES, RANKS, SEVEN, STAGES, STEPS, WARMUP_STEPS, apart, by_hand, seven, steps, video, work
from spawn import on_ranks

from hunyuan_video.apps.generate import runtime_here
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.distributed.pipefusion import Elsewhere, Remembered, keep_blocks, one_step_old, remembered_bytes, sent_bytes, stage_steps
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig, predict
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.request import Provenance

TOKENS = {name: 45 + max(lengths) for name, (_, _, lengths) in CASES.items()}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the ranks found, run once for all claims."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    return on_ranks(work, RANKS, folder)


@pytest.mark.parametrize("patches", [2, 7, 45])
@pytest.mark.parametrize("case", CASES)
def test_a_patch_sees_this_step_up_to_itself_and_the_last_one_after(case: str, patches: int):
    model = seven()
    with one_step_old(model, patches, WARMUP_STEPS):
        found = steps(model, case)
    assert apart(found, steps(by_hand(model, patches, max(CASES[case][2])), case)) < 1e-5


def test_after_the_warmup_keys_are_really_old_and_before_not():
    model = seven()
    with one_step_old(model, 3, warmup_steps=2):
        found = steps(model, "video")
    exact = steps(model, "video")
    assert apart(found[:2], exact[:2]) < 1e-6
    assert apart(found[2:3], exact[2:3]) > 1e-3


@pytest.mark.parametrize(("patches", "warmup_steps"), [(5, STEPS), (1, 1)])
def test_only_warmup_steps_and_one_patch_are_exact(patches: int, warmup_steps: int):
    model = seven()
    with one_step_old(model, patches, warmup_steps):
        found = steps(model, "clean_masked")
    assert apart(found, steps(model, "clean_masked")) < 1e-6


def test_nothing_goes_from_one_video_into_the_next():
    model = seven()
    with one_step_old(model, 3, WARMUP_STEPS):
        expected = steps(model, "video")
    with one_step_old(model, 3, WARMUP_STEPS):
        steps(model, "video", seed=2)
    assert model.predict is predict
    with one_step_old(model, 3, WARMUP_STEPS):
        found = steps(model, "video")
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_branches_of_guidance_remember_apart():
    model = seven()
    with one_step_old(model, 3, WARMUP_STEPS):
        found = steps(model, "video", branches=2)
    # Each branch by hand, with a model of its own.
    hands = [by_hand(model, 3, 5) for _ in range(2)]
    forward = iter([hand for _ in range(STEPS) for hand in hands])

    class Turns:
        condition = model.condition

        def __call__(self, *inputs: Any) -> torch.Tensor:
            return next(forward)(*inputs)

    turns: Any = Turns()
    assert apart(found, steps(turns, "video", branches=2)) < 1e-5


def test_what_is_remembered_is_counted(monkeypatch: pytest.MonkeyPatch):
    made: list[Remembered] = []
    original = Remembered.__init__
    monkeypatch.setattr(Remembered, "__init__", lambda self: made.append(self) or original(self))
    model = seven()
    with one_step_old(model, 3, WARMUP_STEPS):
        steps(model, "video", branches=2)
    kept = sum(x.nbytes for remembered in made for pair in remembered.blocks.values() for x in pair)
    assert kept == remembered_bytes(SEVEN, TOKENS["video"], 4, branches=2)


@pytest.mark.parametrize(("stages", "patches"), STAGES)
@pytest.mark.parametrize("case", CASES)
def test_stages_compute_what_one_process_does(results: list[dict[str, Any]], case: str, stages: int, patches: int):
    assert max(found[f"{case} {stages}"] for found in results[:stages]) < 1e-6


def test_two_stages_for_each_branch_of_guidance_make_the_video_of_one_process(results: list[dict[str, Any]]):
    expected = video(stages=1)
    assert max(apart([found["latents"]], [expected]) for found in results) < 1e-5


@pytest.mark.parametrize("stages", [stages for stages, _ in STAGES])
def test_stages_without_patches_are_exact(results: list[dict[str, Any]], stages: int):
    assert max(found[f"exact {stages}"] for found in results[:stages]) < 1e-6


@pytest.mark.parametrize("stages", [stages for stages, _ in STAGES])
def test_each_block_is_on_one_rank_and_blocks_are_shared_evenly(results: list[dict[str, Any]], stages: int):
    held = torch.tensor([found[f"blocks {stages}"] for found in results[:stages]])
    assert held.sum(0).tolist() == [1] * 7
    assert held.sum(1).max() - held.sum(1).min() <= 1
    whole = sum(parameter.nbytes for block in seven().blocks for parameter in block.parameters())
    assert sum(found[f"bytes {stages}"] for found in results[:stages]) == whole


@pytest.mark.parametrize("stages", [stages for stages, _ in STAGES])
@pytest.mark.parametrize("case", CASES)
def test_a_stage_sends_each_tokens_hidden_state_once_a_step(results: list[dict[str, Any]], case: str, stages: int):
    batch, branches = CASES[case][0][0], 2
    expected = STEPS * branches * batch * sent_bytes(SEVEN, TOKENS[case], 4)
    assert [found[f"sent {case} {stages}"] for found in results[:stages]] == [expected] * (stages - 1) + [0]


def test_the_released_model_in_eight_stages_remembers_and_sends_what_the_docs_say():
    config, tokens = TransformerConfig(), 33 * 45 * 80 + 256
    assert remembered_bytes(config, tokens, 2) / 1e9 == pytest.approx(87.8, abs=0.05)
    assert remembered_bytes(config, tokens, 2, stages=8) / 1e9 == pytest.approx(11.7, abs=0.05)
    assert sent_bytes(config, tokens, 2) / 1e9 == pytest.approx(0.73, abs=0.005)
    assert 60 / 8 * 50 / stage_steps(8, 32, 1, 50) == pytest.approx(5.54, abs=0.005)  # the fullest stage has 8 of 60 blocks


def test_both_ends_of_stages_are_named_as_in_the_checkpoint():
    model = HunyuanVideoTransformer(SEVEN)
    keep_blocks(model, 1, 3)  # of 3 + 2 + 2 blocks
    assert [isinstance(block, Elsewhere) for block in model.blocks] == [True] * 3 + [False] * 2 + [True] * 2
    assert {name.split(".")[1] for name in model.state_dict() if name.startswith("single_blocks")} == {"0", "1"}


def test_more_stages_than_blocks_are_refused():
    with pytest.raises(ValueError, match="8 stages cannot share 7 blocks, of which each needs one"):
        keep_blocks(seven(), 0, 8)


def test_stages_without_their_processes_are_refused():
    with pytest.raises(ValueError, match="pipefusion_stages is 2, but of 1 ranks 1 share one pass"):
        video(stages=2)


def test_one_process_replays_what_stages_made():
    stages = Runtime(device="cpu", pipefusion_stages=4, pipefusion_patches=5)
    made = Provenance("A cat.", None, FullSampling(), stages, "", "", "module", "cpu", "1", "2")
    assert runtime_here(made) == replace(stages, pipefusion_stages=1)


def test_one_process_replays_what_sharded_ranks_made():
    runtime = Runtime(device="cpu", shard=True, wire="fp8")
    made = Provenance("A cat.", None, FullSampling(), runtime, "", "", "module", "cpu", "1", "2")
    assert runtime_here(made) == Runtime(device="cpu")


def test_a_run_in_patches_is_not_continued():
    pipe = HunyuanVideo.load(runtime=Runtime(device="cpu", pipefusion_patches=2))
    latents = torch.zeros(pipe.vae.config.latent_shape(5, 64, 64))
    with pytest.raises(ValueError, match="This run cannot be continued: with pipefusion_patches it needs"):
        next(pipe.steps("A cat.", height=64, width=64, num_frames=5, resume=(1, latents)))


def test_more_patches_than_tokens_are_refused():
    model = seven()
    with pytest.raises(ValueError, match="A video of 45 tokens cannot be cut into 46 patches"):
        with one_step_old(model, 46, 1):
            steps(model, "video")


def test_a_model_whose_calls_are_wrapped_is_refused():
    model = seven()
    model.trunk = lambda *inputs: predict(*inputs)
    with pytest.raises(ValueError, match="wrapped already"):
        with one_step_old(model, 2, 1):
            pass
