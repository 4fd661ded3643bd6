"""`python with_latents.py sample_video.py …`: an official command that leaves its latents beside the video."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import torch

from hunyuan_video.apps import generate

write = generate.write


def write_both(step: generate.Step, output: generate.Output, *others: Any) -> Path:
    torch.save(step.latents, output.out / "latents.pt")
    return write(step, output, *others)


if __name__ == "__main__":
    generate.write = write_both
    sys.argv.pop(0)
    root = Path(__file__).parents[1]
    sys.path.insert(0, str(root))
    runpy.run_path(str(root / sys.argv[0]), run_name="__main__")
