"""What a user sees while a video is made."""

from __future__ import annotations

import io
import re

import pytest
import torch

from hunyuan_video import cli
from hunyuan_video.apps import generate
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.pipeline import Step
from hunyuan_video.request import Provenance

MADE = Provenance("A cat.", None, FullSampling(), Runtime(), "", "", "module", "cpu", "", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_bar_moves_in_every_stage(monkeypatch: pytest.MonkeyPatch):
    stages = [("encode", 1, 1), *(("denoise", n, 3) for n in (1, 2, 3)), *(("decode", n, 4) for n in (1, 2, 3, 4))]
    steps = [Step(stage, step, total, MADE, torch.zeros(1, 1, 1, 1, 1)) for stage, step, total in stages]
    terminal, tqdm = Terminal(), generate.tqdm
    monkeypatch.setattr(generate, "tqdm", lambda **options: tqdm(**options, file=terminal, mininterval=0))
    shown = [(step.stage, terminal.getvalue().split("\r")[-1]) for step in generate.with_progress(iter(steps))]
    seen = [(stage, *re.findall(r"(\w+):.*?(\d+(?:/\d+)?)(?:step)? \[", line)[0]) for stage, line in shown]
    assert seen == [
        ("encode", "denoising", "0"),
        ("denoise", "denoising", "1/3"),
        ("denoise", "denoising", "2/3"),
        ("denoise", "decoding", "0"),
        *(("decode", "decoding", f"{n}/4") for n in (1, 2, 3, 4)),
    ]


def test_decoding_alone_moves_too(monkeypatch: pytest.MonkeyPatch, tmp_path, official_tree):
    size = ["--num-frames", "1", "--height", "512", "--width", "48", "--num-steps", "1"]  # several tiles high
    arguments = ["generate", "A cat.", "--weights", str(official_tree), *size]
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--format", "latents"]) == 0
    (latents,) = (tmp_path / "results").iterdir()
    terminal, tqdm = Terminal(), generate.tqdm
    monkeypatch.setattr(generate, "tqdm", lambda **options: tqdm(**options, file=terminal, mininterval=0))
    assert cli.main(["decode", str(latents), "--weights", str(official_tree)]) == 0
    seen = re.findall(r"([a-z ]+): .*?(\d+)/(\d+) \[", terminal.getvalue())
    assert {stage for stage, *_ in seen} == {"decoding"} and seen[-1][1] == seen[-1][2] and len({n for _, n, _ in seen}) > 1
