"""All of docs/benchmarks.md that needs no GPU, item by item.

    python benchmarks/bench.py all --json benchmarks/results/MACHINE.jsonl
    python benchmarks/bench_table.py

Peers are in one process and take turns, with identical weights; times are those of one thread's work. An item whose rows are in the file
already, from this machine and this state of the code, is left out: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from rows import Found, Row, read, this_machine, write

ITEMS = {  # the module, and what it is
    "a1": ("dit_step", "a step in float32, beside Diffusers"),
    "a2": ("dit_step", "a step in bfloat16, beside Diffusers"),
    "a3": ("dit_step", "both with nothing compiled here"),
    "a4": ("activations", "memory of a step of the 13B at 129x720x1280, counted"),
    "a5": ("attention_kernels", "attention by every kernel that is here; on AMD zentorch's, too, if it is installed"),
    "a6": ("attention_kernels", "what block-sparse attention gains of what it leaves out"),
    "b1": ("vae_decode", "decoding, beside Diffusers; and b2, in bfloat16 beside its float32"),
    "b3": ("vae_decode", "memory of decoding, and of the largest tile"),
    "c1": ("end_to_end", "a video of a mid-sized model, beside Diffusers' pipeline"),
    "c2": ("end_to_end", "a step of the 13B from its file (--folder, for 26 GB)"),
    "c3": ("end_to_end", "the embedded model's video from a cold start"),
    "d": ("scaling", "how time grows with size"),
    "e": ("two_ranks", "what ranks send and compute, counted"),
    "g": ("accounting", "what presets leave out, and whether time follows"),
}


def item(name: str, folder: Path | None) -> Callable[[int, torch.device], Iterator[Row]]:
    """What yields the rows of an item, imported when it is its turn."""
    measure = getattr(importlib.import_module(ITEMS[name][0]), name)
    return partial(measure, folder=folder) if name == "c2" else measure


def line(row: Row) -> str:
    spreads = [f"{name} {each.median:.3f} s (least {each.least:.3f}, IQR {each.iqr:.3f})" for name, each in row.seconds.items()]
    detail = [f"{name} {value:.3g}" for name, value in row.detail.items() if isinstance(value, int | float)]
    return f"{row.item} {row.case}: {row.what}: {row.value:.3g} {row.unit}; {', '.join([*spreads, *detail])}"


def main() -> None:
    listed = "\n".join(f"    {name}  {what}" for name, (_, what) in ITEMS.items())
    parser = argparse.ArgumentParser(description=f"{__doc__}\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="+", choices=[*ITEMS, "all"], metavar="ITEM", help="as above, or all (c2 only with --folder)")
    parser.add_argument("--json", type=Path, help="a file of rows to add to, such as benchmarks/results/MACHINE.jsonl")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="for the 13B's file of random numbers, written there if it is missing")
    parser.add_argument("--device", default="cpu", help="cuda for a and b, which then tell the wall's time")
    args = parser.parse_args()
    wanted = [name for name in ITEMS if name != "c2" or args.folder] if "all" in args.items else args.items
    if "c2" in wanted and args.folder is None:
        parser.error("c2 needs --folder, where 26 GB are free")
    torch.set_num_threads(1)
    for name in wanted:
        found = [] if args.json is None else read(args.json)
        machine = this_machine(args.device)
        if other := {each.machine.device for each in found} - {args.device}:
            parser.error(f"{args.json} has rows of {', '.join(other)}; give another file for those of {args.device}")
        is_known = not machine.commit.endswith("+")  # changed since that commit, and who knows how
        if is_known and any(each.row.item == name and each.machine.code == machine.code for each in found):
            print(f"{name} is in {args.json} already", file=sys.stderr)
            continue
        rows = []
        for row in item(name, args.folder)(args.repeats, torch.device(args.device)):
            print(line(row), flush=True)
            rows.append(row)
        if args.json is not None:
            old = [each for each in found if each.row.item not in {row.item for row in rows}]
            write(args.json, [*old, *(Found(row, machine) for row in rows)])


if __name__ == "__main__":
    main()
