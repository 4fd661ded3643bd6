"""Steps of the 13B from its file on a CPU, also one with less memory than the file: time, memory, and what the disk gave.

    python benchmarks/large_on_cpu.py FOLDER                    # bfloat16, 17x256x256
    python benchmarks/large_on_cpu.py FOLDER --fp8 --size 9x64x64

A file of random numbers with the official names, sizes and format is written into FOLDER first, if it is not there (26 GB, or 13 in 8
bits). Steps are taken first as the system reads a file by itself, then reading ahead; each way goes through the model once to warm up.
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from hunyuan_video.checkpoint import load_transformer
from hunyuan_video.checkpoint.convert import write_pickle
from hunyuan_video.checkpoint.lazy import Lazy
from hunyuan_video.kernels import table
from hunyuan_video.kernels.choice import fastest, use_attention
from hunyuan_video.memory import available_memory
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.plan import KEPT
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.read_ahead import read_ahead

CPU = torch.device("cpu")
TEXT_TOKENS = 60  # of an ordinary prompt


def write(folder: Path, in_8_bits: bool) -> Path:
    """The released model's file with random numbers, unless it is there."""
    path = folder / f"mp_rank_00_model_states{'_fp8' if in_8_bits else ''}.pt"
    if path.exists():
        return path
    with torch.device("meta"):
        state = HunyuanVideoTransformer().state_dict()
    noise = (torch.randn(max(t.numel() for t in state.values()), generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    rounded = (noise.float() / 0.001).to(fp8.FP8)
    layers = [name for name, t in state.items() if fp8.in_blocks(name) and name.endswith("weight") and t.ndim == 2]
    scaled = set(layers) if in_8_bits else set()

    def numbers(name: str, tensor: torch.Tensor) -> Lazy:
        given = torch.ones(tensor.shape).bfloat16() if name.endswith("norm.weight") else rounded if name in scaled else noise
        return Lazy(tuple(tensor.shape), given.dtype, lambda: given.flatten()[: tensor.numel()].view(tensor.shape))

    folder.mkdir(parents=True, exist_ok=True)
    write_pickle({"module": {name: numbers(name, tensor) for name, tensor in state.items()}}, path)
    if in_8_bits:
        torch.save({name.removesuffix(".weight"): torch.full((1,), 0.001) for name in layers}, path.with_name(f"{path.stem}_map.pt"))
    return path


def of_process(file: str, what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+)", Path("/proc/self", file).read_text(encoding="ascii"))
    assert found is not None
    return int(found[1])


class Watch(threading.Thread):
    """The fullest moment of the memory that is in no file, above what there was, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = of_process("status", "RssAnon")
        self.most = 0

    def run(self) -> None:
        while True:
            self.most = max(self.most, 1024 * (of_process("status", "RssAnon") - self.before))
            time.sleep(0.02)


class Taken(NamedTuple):
    """One step."""

    number: int
    seconds: float
    cpu_seconds: float
    read: int
    """bytes, from the disk"""
    own: int
    """bytes of memory that are in no file, at their most so far"""
    opened: float
    """seconds, before the first step"""
    kernel: str


@torch.no_grad()
def measure(path: Path, size: tuple[int, int, int], ahead: bool, steps: int) -> Iterator[Taken]:
    """Each step, the first one, number 0, too."""
    watch = Watch()
    watch.start()
    start = time.perf_counter()
    model = load_transformer(path, torch.bfloat16, CPU, as_stored=True)
    frames, height, width = (size[0] - 1) // 4 + 1, size[1] // 8, size[2] // 8
    config = TransformerConfig()
    tokens = frames * height * width // 4 + TEXT_TOKENS
    kernel = fastest(config.num_heads, config.head_dim, tokens, torch.bfloat16, CPU)
    use_attention(model, table.load(kernel))
    if ahead:
        read_ahead([*model.double_blocks, *model.single_blocks], round(KEPT * available_memory(CPU)))
    opened = time.perf_counter() - start
    x, states, pooled = torch.randn(1, 16, frames, height, width), torch.randn(1, TEXT_TOKENS, 4096), torch.randn(1, 768)
    mask = torch.ones(1, TEXT_TOKENS, dtype=torch.bool)
    condition = model.condition(states.bfloat16(), mask, pooled.bfloat16(), torch.full((1,), 6016.0).bfloat16())
    for step in range(steps + 1):
        start, cpu, read = time.perf_counter(), time.process_time(), of_process("io", "read_bytes")
        model(x, torch.full((1,), 500.0), condition)
        seconds, cpu, read = time.perf_counter() - start, time.process_time() - cpu, of_process("io", "read_bytes") - read
        yield Taken(step, seconds, cpu, read, watch.most, opened, kernel)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fp8", action="store_true")
    parser.add_argument("--size", default="17x256x256", help="frames, height and width")
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    frames, height, width = map(int, args.size.split("x"))
    path = write(args.folder, args.fp8)
    side = torch.randn(2048, 4096).bfloat16(), torch.randn(8192, 4096).bfloat16()
    torch.nn.functional.linear(*side)
    start = time.perf_counter()
    torch.nn.functional.linear(*side)
    rate = 2 * 2048 * 4096 * 8192 / (time.perf_counter() - start) / 1e9
    print(f"{torch.get_num_threads()} threads, matrix products of {rate:.0f} GFLOP/s, {available_memory(CPU) / 1e9:.1f} GB free")
    for ahead in (False, True):
        for taken in measure(path, (frames, height, width), ahead, args.steps):
            how, what = "reading ahead" if ahead else "by itself", "a step" if taken.number else "the first step"
            print(
                f"{how:<14} {what:<15} {taken.seconds:6.1f} s {taken.cpu_seconds:6.1f} CPU-s, {taken.read / 1e9:5.1f} GB from "
                f"the disk, {taken.own / 1e9:.2f} GB of memory of its own (opened in {taken.opened:.1f} s; attention: {taken.kernel})",
                flush=True,
            )


if __name__ == "__main__":
    main()
