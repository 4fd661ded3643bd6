"""`python3 sample_video.py`: text to video with the official flags. `hunyuan-video generate` is the same in our own words."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace

try:
    from hunyuan_video.apps import official
except ModuleNotFoundError as error:
    sys.exit(f"sample_video.py: {error}; install this repository first (pip install .) and use the Python it was installed for.")
from hunyuan_video.cli import run_guarded
from hunyuan_video.files import check_writable


def main() -> None:
    args = official.build_parser().parse_args()
    request = official.translate(args)

    official.check_guidance(request)
    request.found.check(request.sampling)
    check_writable(request.output.out / f"check{request.output.suffix}")

    if request.reproduce:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which PyTorch asks for, and reads when it starts

    import torch

    from hunyuan_video.apps.generate import make_video
    from hunyuan_video.pipeline import HunyuanVideo

    if request.reproduce:
        torch.use_deterministic_algorithms(True)
    pipe = HunyuanVideo.load(request.found, request.runtime)
    for number in range(request.num_videos):
        seed = None if request.sampling.seed is None else request.sampling.seed + number
        print(make_video(pipe, request.prompt, replace(request.sampling, seed=seed), request.output))


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("hunyuan_video").setLevel(logging.INFO)
    sys.exit(run_guarded(main))
