"""How near each solver's videos are to where the flow really goes, on the embedded model.

    OMP_NUM_THREADS=1 python benchmarks/solvers.py

Three prompts, 17x96x96. Latents are compared by the norm of the difference over the norm, decoded pixels by PSNR. That is nearness to a
video, not quality: another video may be as good.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from measure import deviation

from hunyuan_video import HunyuanVideo
from hunyuan_video.config import Runtime, Sampling, Solver
from hunyuan_video.pipeline import Step

PROMPTS = ("A rocket flies up at night", "A boat moves right on the sea", "A dog runs in the snow")
RUNTIME = Runtime(device="cpu", attention="sdpa")
SAMPLING = Sampling(height=96, width=96, num_frames=17, seed=0)
EVALUATIONS, FINE = (10, 20), 60


@dataclass(frozen=True)
class Bench:
    pipe: HunyuanVideo

    def last(self, prompt: str, num_steps: int, solver: Solver) -> Step:
        """Of denoising."""
        sampling = replace(SAMPLING, num_steps=num_steps, solver=solver)
        return next(step for step in self.pipe.steps(prompt, sampling) if step.stage == "denoise" and step.step == step.total)

    def row(self, name: str, made: Iterable[Step], right: list[Step]) -> None:
        computed, apart, psnr = [], [], []
        for step, other in zip(made, right, strict=True):
            assert step.latents is not None and other.latents is not None
            frames, others = (self.pipe.decode(latents).astype(float) for latents in (step.latents, other.latents))
            computed.append(step.computed)
            apart.append(deviation(step.latents, other.latents))
            psnr.append(10 * np.log10(255**2 / np.square(frames - others).mean()))
        each = " / ".join(map(str, computed))
        print(f"| {name} | {each} | {statistics.mean(apart):.4f} | {' / '.join(f'{db:.1f}' for db in psnr)} |", flush=True)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    bench = Bench(HunyuanVideo.load(runtime=RUNTIME))
    fine = [bench.last(prompt, FINE, "heun") for prompt in PROMPTS]
    print(f"| solver, steps | evaluations | latents apart from {FINE} steps of heun | PSNR, dB |\n|---|---|---|---|")
    for number in EVALUATIONS:
        for solver in get_args(Solver):
            steps = number // 2 if solver == "heun" else number
            bench.row(f"{solver}, {steps}", (bench.last(prompt, steps, solver) for prompt in PROMPTS), fine)


if __name__ == "__main__":
    main()
