"""How far PipeFusion's videos are from the exact ones, on the embedded model.

    OMP_NUM_THREADS=1 python benchmarks/pipefusion.py --pictures docs/images/pipefusion.jpg

How many ranks share the blocks changes nothing, so one process measures what any number of them makes. Of each prompt (33x128x128, 20
steps) the final latents are compared with the exact ones (norm of the difference over norm), and so are the decoded pixels (PSNR); the
table has means over the prompts. What fewer exact steps make of the same noise is the yardstick.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measure import deviation
from PIL import Image

from hunyuan_video import HunyuanVideo
from hunyuan_video.config import Runtime
from hunyuan_video.pipeline import Video

PROMPTS = (
    "A rocket flies up at night",
    "A boat moves right on the sea",
    "A dog runs in the snow",
    "A flower grows in a grassy field",
)
PATCHES, WARMUP, FEWER = (1, 2, 4, 8, 32), (1, 2, 4, 8), (16, 10)
RUNTIME = Runtime(device="cpu", attention="sdpa")
SHOWN = ((2, 1), (8, 1), (32, 1), (32, 8))  # patches and warm-up steps
FRAMES = (0, 11, 22, 32)


class Apart(NamedTuple):
    latents: float
    psnr: float  # dB

    def __str__(self) -> str:
        return f"{self.latents:.4f}, {self.psnr:.1f} dB" if self.latents else "identical"


def apart(video: Video, exact: Video) -> Apart:
    error = np.square(video.frames.astype(float) - exact.frames).mean()
    return Apart(deviation(video.latents, exact.latents), float(10 * np.log10(255**2 / max(error, 1e-3))))


def in_patches(pipe: HunyuanVideo, patches: int, warmup_steps: int) -> HunyuanVideo:
    """The same models with another runtime."""
    runtime = replace(RUNTIME, pipefusion_patches=patches, warmup_steps=warmup_steps)
    return HunyuanVideo(pipe.text_encoder, pipe.transformer, pipe.vae, runtime=runtime, origin=pipe.origin)


def mean(found: Sequence[Apart]) -> Apart:
    return Apart(*(statistics.mean(values) for values in zip(*found, strict=True)))


def strip(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([frames[number] for number in FRAMES], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="so many of them")
    parser.add_argument("--pictures", type=Path, help="where to put frames of the first two")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = HunyuanVideo.load(runtime=RUNTIME)
    found: dict[object, list[Apart]] = {}
    pictures: list[list[np.ndarray]] = []
    for prompt in PROMPTS[: args.prompts]:
        exact = pipe(prompt, seed=0)
        rows = [strip(exact.frames)]
        for steps in FEWER:
            found.setdefault(steps, []).append(apart(pipe(prompt, seed=0, num_steps=steps), exact))
        for patches in PATCHES:
            for warmup_steps in WARMUP if patches > 1 else WARMUP[:1]:
                video = in_patches(pipe, patches, warmup_steps)(prompt, seed=0)
                found.setdefault((patches, warmup_steps), []).append(apart(video, exact))
                if (patches, warmup_steps) in SHOWN:
                    rows.append(strip(video.frames))
                print(prompt, patches, warmup_steps, found[patches, warmup_steps][-1], flush=True)
        pictures.append(rows)
    print("| patches |" + "".join(f" {steps} warm-up |" for steps in WARMUP))
    print("|---|" + "---|" * len(WARMUP))
    for patches in PATCHES:
        cells = [mean(found[key]) if (key := (patches, steps)) in found else "" for steps in WARMUP]
        print(f"| {patches} |" + "".join(f" {cell} |" for cell in cells))
    for steps in FEWER:
        print(f"{steps} exact steps: {mean(found[steps])}")
    if args.pictures is not None:
        sheet = np.concatenate([np.concatenate(rows, axis=0) for rows in pictures[:2]], axis=1)
        Image.fromarray(sheet).save(args.pictures, quality=85)


if __name__ == "__main__":
    main()
