"""What a plan says beside what the real pipeline takes. The device is the CPU under another name: models are really copied there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from hunyuan_video import plan
from hunyuan_video.config import Runtime, Sampling, parse_bytes
from hunyuan_video.memory import LiveBytes
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.plan import Parts, Prediction, Work
from hunyuan_video.weights import locate

GB = 10**9
VIDEO = Sampling(height=64, width=96, num_frames=33, num_steps=2, seed=0)
IN_FLOAT32 = Runtime(device="cpu", dtype="float32", vae_dtype="float32", text_dtype="float32", attention="sdpa")


def measured(pipe: HunyuanVideo, sampling: Sampling) -> dict[str, int]:
    """Bytes of every tensor on the device, at the fullest moment of each stage."""
    models = [pipe.text_encoder, pipe.transformer, pipe.vae]
    resident = sum(tensor.nbytes for model in models for tensor in (*model.parameters(), *model.buffers()))
    stages = {}
    with LiveBytes(nn.ModuleList(models)) as seen:
        for step in pipe.steps("A cat. " * 60, sampling):
            if step.step == step.total:
                stages[step.stage] = seen.most + (resident if pipe.runtime.offload == "none" else 0)
                seen.most = seen.live
    return stages


@pytest.mark.parametrize("offload", ["none", "models", "blocks"])
@pytest.mark.parametrize("in_8_bits", [False, True])
def test_each_stage_takes_what_was_planned(official_tree, monkeypatch, offload, in_8_bits):
    found = locate(official_tree)
    runtime = replace(IN_FLOAT32, offload=offload, fp8=in_8_bits, text_fp8=in_8_bits)
    (predicted,) = plan.predict(Parts.of(found), VIDEO, [runtime])
    pipe = HunyuanVideo.load(found, runtime)
    if offload != "none":
        pipe.device = torch.device("cpu:0")
    stages = measured(pipe, VIDEO)
    for name in ("denoise", "decode"):
        assert predicted.stages[name] == pytest.approx(stages[name], rel=0.1)
    assert predicted.stages["encode"] == pytest.approx(stages["encode"], rel=0.25)  # of a miniature, CLIP is not a hundredth
