"""`hunyuan-video`, whose second rank has the fault that $FAULT names."""

from __future__ import annotations

import os

from hunyuan_video.signals import enter


def main() -> int:
    from hunyuan_video import cli

    if os.environ["RANK"] == "1" and os.environ["FAULT"] == "weights":
        os.environ["MODEL_BASE"] = "nowhere"
    elif os.environ["RANK"] == "1":
        import time

        import torch

        from hunyuan_video import denoising

        def fail(_latents: object, _step: int, _total: int) -> None:
            if os.environ["FAULT"] == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            time.sleep(1000)

        denoising.check_finite = fail
    return cli.main()


if __name__ == "__main__":
    enter(main)
