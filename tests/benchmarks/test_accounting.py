"""What is off changes no bit of the model and the formula of a step."""

from __future__ import annotations

from dataclasses import replace

import accounting
import pytest
import torch
from conftest import TINY

from hunyuan_video.config import FullSampling, Runtime

OFF = Runtime(
    speed="exact", attention_density=1.0, sparse_pattern="dynamic", fp8=False, fp8_matmul=False, text_fp8=False, wire="exact",
    pipefusion_patches=None, pipefusion_stages=1, step_cache="off", cache_threshold=None, progressive="off", progressive_until=None,
)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_all_that_is_not_exact_off_it_is_the_model_and_the_formula_of_a_step(monkeypatch, dtype):
    sampling = FullSampling(height=64, width=64, num_frames=9, num_steps=4, seed=1)
    monkeypatch.setattr(accounting, "MID", replace(TINY, in_channels=16, out_channels=16))
    monkeypatch.setattr(accounting, "SAMPLING", sampling)
    pipe = accounting.pipelines(dtype, torch.device("cpu"))["exact"]
    default = pipe("given", sampling).latents
    monkeypatch.setattr(pipe, "runtime", OFF)
    assert torch.equal(pipe("given", sampling).latents, default) and torch.equal(accounting.by_hand(pipe), default)
