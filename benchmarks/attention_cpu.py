"""GFLOP/s of every attention kernel that this CPU has, as lines of JSON; with zentorch's beside them where it is installed (on AMD).

    python benchmarks/attention_cpu.py
    python benchmarks/attention_cpu.py --table      # the same for docs/benchmarks.md

6 heads of 128 features, on one thread: seconds of its work (process_time), in which kernels take turns. On a machine that others use, too,
the cores' second threads and their caches are shared; the least of all times comes nearest to what a quiet machine takes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from measure import clock
from torch import Tensor

from hunyuan_video.kernels import choice, table
from hunyuan_video.models.attention import AttentionFn

CPU = torch.device("cpu")
HEADS, HEAD_DIM = 6, 128
TOKENS = (380, 1340, 3516)
DTYPES = (torch.float32, torch.bfloat16)


def zentorch_sdpa() -> AttentionFn | None:
    """The attention of AMD's package, which takes heads first as PyTorch's operator does."""
    if find_spec("zentorch") is None:
        return None
    import zentorch  # noqa: F401  # pyright: ignore[reportMissingImports] (registers its operators)

    def attention(q: Tensor, k: Tensor, v: Tensor, _mask: Tensor | None) -> Tensor:
        out = torch.ops.zentorch.zentorch_sdpa(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return (out if isinstance(out, Tensor) else out[0]).transpose(1, 2)

    return attention


def kernels_for(dtype: torch.dtype) -> dict[str, AttentionFn]:
    names = [name for name in table.KERNELS if name != "matmul" and choice.why_not(name, CPU, dtype, HEAD_DIM) is None]
    theirs = zentorch_sdpa()
    return {name: table.load(name) for name in names} | ({} if theirs is None else {"zentorch": theirs})


def measured(tokens: int, dtype: torch.dtype, repeats: int) -> Iterable[dict[str, object]]:
    """One row for each kernel."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, tokens, HEADS, HEAD_DIM, generator=generator).to(dtype)
    kernels = kernels_for(dtype)
    taken: dict[str, list[float]] = {name: [] for name in kernels}
    for number in range(repeats + 1):
        for name, kernel in kernels.items():
            start = clock(CPU)
            kernel(q, k, v, None)
            if number > 0:
                taken[name].append(clock(CPU) - start)
    operations = 4 * tokens**2 * HEADS * HEAD_DIM / 1e9
    for name, seconds in taken.items():
        yield {
            "kernel": name,
            "tokens": tokens,
            "dtype": str(dtype).removeprefix("torch."),
            "gflops_median": round(operations / median(seconds), 1),
            "gflops_best": round(operations / min(seconds), 1),
            "repeats": repeats,
            "cpu": _cpu(),
        }


def as_table(rows: Iterable[Mapping[str, object]]) -> str:
    """Median and, after a stroke, best GFLOP/s."""
    rows = list(rows)
    names = list(dict.fromkeys(str(row["kernel"]) for row in rows))
    found = {(row["tokens"], row["dtype"], row["kernel"]): f"{row['gflops_median']:.0f} / {row['gflops_best']:.0f}" for row in rows}
    lines = ["| tokens | dtype | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 2) + "|"]
    for tokens, dtype in dict.fromkeys((row["tokens"], row["dtype"]) for row in rows):
        lines.append(f"| {tokens:,} | {dtype} | " + " | ".join(found.get((tokens, dtype, name), "–") for name in names) + " |")
    return "\n".join(lines)


def _cpu() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TOKENS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--table", action="store_true", help="Markdown, after all lines of JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for dtype in DTYPES:
        for tokens in args.tokens:
            for row in measured(tokens, dtype, args.repeats):
                print(json.dumps(row), flush=True)
                rows.append(row)
    if args.table:
        print(as_table(rows))


if __name__ == "__main__":
    main()
