"""What block-sparse attention gains of what it leaves out: its time beside dense attention's by the same kernel, with the choice of blocks.

OMP_NUM_THREADS=1 python benchmarks/sparse_attention.py --dtype float32 --kernel sdpa
"""

from __future__ import annotations

import argparse
import math

import torch
from measure import take_turns

from hunyuan_video.kernels import choice, table
from hunyuan_video.kernels.sparse import seen_pairs
from hunyuan_video.transforms.sparse import Video

GRID, TEXT, HEADS, HEAD_DIM = (9, 32, 32), 64, 2, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--kernel", help="as for --attention (default: the fastest here)")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokens = math.prod(GRID) + TEXT
    dtype = getattr(torch, arguments.dtype)
    name = arguments.kernel or choice.fastest(HEADS, HEAD_DIM, tokens, dtype, torch.device("cpu"))
    kernel = table.load(name)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, tokens, HEADS, HEAD_DIM, generator=draw).to(dtype) for _ in range(3))
    videos = {}
    for pattern in ("tiles", "dynamic"):
        for density in (0.3, 0.5):
            video = videos[f"{pattern} {density}"] = Video(GRID, density, pattern, lambda image, text: [(image, text)])
            video.is_sparse = True
    calls = {name: (lambda video=video: video.attend(kernel, q, k, v, None)) for name, video in videos.items()}
    seconds = take_turns({"dense": lambda: kernel(q, k, v, None)} | calls, torch.device("cpu"), arguments.repeats)
    dense = f"dense {1000 * seconds['dense'].median:.0f} ms"
    print(f"{tokens} tokens, {HEADS} heads of {HEAD_DIM}, {arguments.dtype}, 1 thread, {name}; {dense}")
    for name, video in videos.items():
        seen, taken = seen_pairs(video.lists(q, k), tokens), seconds[name].median / seconds["dense"].median
        print(f"{name:12} computes {seen:.3f} of the pairs in {taken:.3f} of the time: {(1 - taken) / (1 - seen):.0%} of what it saves")


if __name__ == "__main__":
    main()
