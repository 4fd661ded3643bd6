"""How far videos are from the exact ones whose queries, values and outputs go from rank to rank in 8 bits, on the embedded model.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/wire.py

Of each of pipefusion.py's prompts (33x128x128, 20 steps) the final latents are compared with the exact ones that the same ranks make (norm
of the difference over norm), and so are the decoded pixels (PSNR); the table has means over the prompts.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pipefusion import PROMPTS, RUNTIME, Apart, apart, mean

from hunyuan_video import HunyuanVideo
from hunyuan_video.config import Runtime
from hunyuan_video.distributed.started import is_main_process, world_size
from hunyuan_video.distributed.world import process_group
from hunyuan_video.pipeline import Video


def videos(runtime: Runtime) -> list[Video]:
    pipe = HunyuanVideo.load(runtime=runtime)
    return [pipe(prompt, seed=0) for prompt in PROMPTS]


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, Apart] = {}
    with process_group("cpu"):
        exact = videos(RUNTIME)
        for name, degree in (("Ulysses", "ulysses_degree"), ("ring", "ring_degree")):
            near = videos(replace(RUNTIME, wire="fp8", **{degree: world_size()}))
            found[name] = mean([apart(one, other) for one, other in zip(near, exact, strict=True)])
    if is_main_process():
        print(f"| {world_size()} ranks | latents, pixels |\n|---|---|")
        print("\n".join(f"| {name} | {distance} |" for name, distance in found.items()))


if __name__ == "__main__":
    main()
