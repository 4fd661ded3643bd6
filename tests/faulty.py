"""`hunyuan-video`, whose second rank has the fault that $FAULT names."""

from __future__ import annotations

import os

from hunyuan_video.signals import enter


def main() -> int:
    from hunyuan_video import cli

    if os.environ["RANK"] == "1" and os.environ["FAULT"] == "weights":
        os.environ["MODEL_BASE"] = "nowhere"
    if os.environ["RANK"] == "1" and os.environ["FAULT"] == "memory":
        import torch

        from hunyuan_video import pipeline

        def full(_latents: object, _step: int, _total: int) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

        pipeline._check_finite = full
    return cli.main()


if __name__ == "__main__":
    enter(main)
