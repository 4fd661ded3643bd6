"""Weights distilled to few steps, in the layouts in which they are published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from hunyuan_video import weights
from hunyuan_video.config import FullSampling, Runtime, Sampling
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.sampling import shifted_sigmas

SMALL = Sampling(height=32, width=48, num_frames=5, seed=7)
RUNTIME = Runtime(device="cpu", attention="sdpa")


def denoising_steps(found: weights.Weights, sampling: Sampling) -> list[int]:
    return [step.step for step in HunyuanVideo.load(found, RUNTIME).steps("A cat.", sampling) if step.stage == "denoise"]


def test_fasthunyuan_is_an_official_tree_whose_settings_a_file_may_state(official_tree: Path, tmp_path: Path):
    root = shutil.copytree(official_tree, tmp_path / "FastHunyuan")
    (root / "generation_config.json").write_text(json.dumps({"num_steps": 6, "shift": 17}), encoding="utf-8")
    found = weights.find(root)
    assert found.sampling() == FullSampling(num_steps=6, shift=17)
    assert denoising_steps(found, SMALL) == [1, 2, 3, 4, 5, 6]


def test_accvideo_is_a_bare_transformer_beside_official_parts(official_tree: Path, tmp_path: Path):
    path = tmp_path / "accvideo-t2v-5-steps" / "diffusion_pytorch_model.pt"
    path.parent.mkdir()
    state = torch.load(weights.locate(official_tree).transformer, weights_only=True)
    torch.save(state.get("module", state), path)
    found = weights.find_or_embedded(official_tree, path)
    assert found.transformer == path
    assert denoising_steps(found, Sampling(**{**vars(SMALL), "num_steps": 5})) == [1, 2, 3, 4, 5]


def test_accvideos_noise_levels_are_those_of_five_steps():
    """It takes every tenth of fifty."""
    torch.testing.assert_close(shifted_sigmas(50, 7.0)[::10], shifted_sigmas(5, 7.0), atol=1e-7, rtol=0)
