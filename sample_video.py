"""`python3 sample_video.py`: text to video with the official flags. `hunyuan-video generate` is the same in our own words."""

from __future__ import annotations

import logging
import os
import sys

try:
    from hunyuan_video.signals import enter
except ModuleNotFoundError as error:
    sys.exit(f"sample_video.py: {error}; install this repository first (pip install .) and use the Python it was installed for.")


def main() -> int:
    from hunyuan_video.cli import run_guarded

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("hunyuan_video").setLevel(logging.INFO)
    return run_guarded(make_videos)


def make_videos() -> None:
    from hunyuan_video.apps import official
    from hunyuan_video.files import check_output

    args = official.build_parser().parse_args()
    command = official.translate(args)
    official.check_model(command, args.model)
    command.found.check(command.requests[0])
    check_output(command.output)

    if command.reproduce:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which PyTorch asks for, and reads when it starts

    import torch

    from hunyuan_video.apps.generate import make_video
    from hunyuan_video.pipeline import HunyuanVideo

    if command.reproduce:
        torch.use_deterministic_algorithms(True)
    pipe = HunyuanVideo.load(command.found, command.runtime)
    for request in command.requests:
        print(make_video(pipe, request, command.output))


if __name__ == "__main__":
    enter(main)
