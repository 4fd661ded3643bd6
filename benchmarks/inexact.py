"""What each inexact setting saves and costs: `hunyuan-video bench quality` of many of them at once, so that all share the exact videos.

    OMP_NUM_THREADS=1 python benchmarks/inexact.py

Rows are added to benchmarks/results/quality/rows.jsonl as they come, and an interrupted run goes on; quality.md beside it is the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from rows import ROOT

from hunyuan_video import weights
from hunyuan_video.apps import bench
from hunyuan_video.commands.flags import flags_of
from hunyuan_video.config import SPEEDS, Progressive, Runtime, Sampling, SparsePattern, StepCache

EXACT = Runtime(device="cpu", dtype="float32")
CACHES: dict[StepCache, tuple[float, ...]] = {"drift": (0.05, 0.1), "taylor": (0.02, 0.05, 0.1), "first-block": (0.05, 0.1)}
SMALLER: tuple[tuple[Progressive, float], ...] = (("time", 0.6), ("time", 0.3), ("space", 0.6), ("space-time", 0.6))
PATTERNS: tuple[SparsePattern, ...] = ("dynamic", "tiles", "radial")
DENSITIES = (0.5, 0.3)
FEWER_STEPS = (13, 10, 7)


def settings() -> Iterator[Runtime]:
    yield from (EXACT.at_speed(speed) for speed in SPEEDS if speed != "exact")
    yield from (
        replace(EXACT, step_cache=cache, cache_threshold=threshold) for cache, thresholds in CACHES.items() for threshold in thresholds
    )
    yield from (replace(EXACT, progressive=how, progressive_until=until) for how, until in SMALLER)
    yield from (replace(EXACT, attention_density=density, sparse_pattern=pattern) for pattern, density in product(PATTERNS, DENSITIES))


def name_of(runtime: Runtime) -> str:
    return " ".join(flags_of(runtime, EXACT)) if runtime.speed == "exact" else f"--speed {runtime.speed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "quality")
    parser.add_argument(
        "--judge", type=Path, default=Path("results/evaluation"), help="folder of the judge, who is trained first if missing"
    )
    parser.add_argument("--num-prompts", type=int, default=10)
    parser.add_argument("--num-seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    others = {name_of(runtime): runtime for runtime in settings()}
    asks = bench.Asks(None, args.num_prompts, args.num_seeds, args.judge)
    embedded = weights.find(weights.EMBEDDED)
    for row in bench.measure(embedded, EXACT, others, FEWER_STEPS, Sampling(), asks, args.out):
        print(f"{row.settings}: {row.prompt!r}, seed {row.seed}", flush=True)
    print(bench.table(args.out))


if __name__ == "__main__":
    main()
