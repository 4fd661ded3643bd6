"""How near the exact video of the embedded model's the inexact settings come: PSNR of the same prompts and seeds.

OMP_NUM_THREADS=1 python benchmarks/near_exact.py --clips 6
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hunyuan_video import HunyuanVideo
from hunyuan_video.config import Runtime
from hunyuan_video.evaluation.metrics import psnr
from hunyuan_video.miniature.questions import questions

SETTINGS: dict[str, dict[str, Any]] = {
    "time, until 0.6": {"progressive": "time"},
    "time, until 0.3": {"progressive": "time", "progressive_until": 0.3},
    "space": {"progressive": "space"},
    "space-time": {"progressive": "space-time"},
    "dynamic, density 0.5": {"attention_density": 0.5},
    "dynamic, density 0.3": {"attention_density": 0.3},
    "tiles, density 0.5": {"attention_density": 0.5, "sparse_pattern": "tiles"},
    "tiles, density 0.3": {"attention_density": 0.3, "sparse_pattern": "tiles"},
    "radial, density 0.5": {"attention_density": 0.5, "sparse_pattern": "radial"},
    "radial, density 0.3": {"attention_density": 0.3, "sparse_pattern": "radial"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6, help="half of combinations that were trained on, half of others")
    clips = parser.parse_args().clips
    torch.set_num_threads(1)
    scenes = [*questions(clips - clips // 2, "train"), *questions(clips // 2, "held_out")]
    plain = Runtime(device="cpu", dtype="bfloat16", vae_dtype="bfloat16", attention="sdpa")
    pipe = HunyuanVideo.load(runtime=plain)
    exact = [pipe(scene.caption, seed=scene.seed).frames for scene in scenes]
    for name, setting in SETTINGS.items():
        pipe.runtime = replace(plain, **setting)
        apart = [psnr(pipe(scene.caption, seed=scene.seed).frames, frames) for scene, frames in zip(scenes, exact, strict=True)]
        print(f"{name:22} mean {np.mean(apart):.1f} dB, least {min(apart):.1f} dB", flush=True)


if __name__ == "__main__":
    main()
