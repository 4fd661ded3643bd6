"""Turns the files of benchmarks/gpu.sh into the section "On a GPU" of docs/benchmarks.md. A rehearsal's are only printed.

python benchmarks/gpu_table.py results/gpu
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
START, END = "<!-- gpu.sh writes from here -->", "<!-- to here -->"
KILLED = (124, 137)  # a status that means: by the limit
Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows of one name, under a sentence; a column's text is a format of their values."""

    name: str
    sentence: str
    columns: dict[str, str]


SPREAD = {"ms": "{ms:,.2f}", "from – to": "{least_ms:,.2f} – {most_ms:,.2f}"}
PEAK = {"peak MiB": "{peak_mib:,.0f}"}
GPU = {"GPU, GB": "{allocated_gb:.2f}", "with gaps, GB": "{reserved_gb:.2f}"}
SECONDS = {"seconds": "{seconds:,.2f}"}
PARTS: dict[str, tuple[str, tuple[Table, ...]]] = {
    "tests": (
        "Tests marked `gpu`",
        (Table("tests", "", {"test": "{test}", "outcome": "{outcome}", **SECONDS}),),
    ),
    "attention": (
        "Attention",
        (
            Table(
                "attention",
                "24 heads of 128, bfloat16. Errors are relative to float32, over 64 of the queries.",
                {"tokens": "{tokens:,}", "kernel": "{kernel}", **SPREAD, "TFLOP/s": "{tflops:,.0f}", **PEAK, "error": "{error:.1e}"},
            ),
            Table("attention-choice", "What PyTorch chooses by itself:", {"tokens": "{tokens:,}", "kernel": "{kernel}", "ms": "{ms:,.1f}"}),
            Table(
                "attention-masked",
                "Two captions in a micro-batch, of the same length or masked:",
                {
                    "tokens": "{tokens:,}",
                    "masked": "{masked}",
                    **SPREAD,
                    "there and back, ms": "{both_ways_ms:,.2f}",
                    "kernel": "{kernels[0][kernel]}",
                },
            ),
        ),
    ),
    "kernels": (
        "Kernels in Triton",
        (
            Table(
                "kernels-step",
                "One of each block at 129 frames of 720x1280, and the step that 20 and 40 make, beside what it should take on one H200:",
                {"weights": "{weights}", "attention": "{kernel}", "dual, ms": "{dual_ms:,.1f}", "single, ms": "{single_ms:,.1f}"}
                | {"step, s": "{seconds:.2f}", "aim, s": "{aim:.1f}"},
            ),
            Table(
                "kernels-attention",
                "24 heads of 128. A share of the keys is drawn for each block of 128 queries.",
                {"tokens": "{tokens:,}", "kernel": "{kernel}", **SPREAD, "TFLOP/s": "{tflops:,.0f}", **PEAK, "error": "{error:.1e}"},
            ),
            Table(
                "kernels-pieces",
                "Pieces of a block, in one pass or as PyTorch does them; GB/s of what has to be read and written at least:",
                {"piece": "{piece}", "by": "{by}", **SPREAD, "GB/s": "{gb_per_second:,.0f}", **PEAK},
            ),
        ),
    ),
    "blocks": (
        "Blocks, and the step that they make",
        (
            Table(
                "step",
                "20 dual and 40 single blocks:",
                {"size": "{size}", "by": "{by}", "attention": "{kernel}", "seconds": "{seconds:.2f}"},
            ),
            Table(
                "blocks",
                "One of each, with the same weights and inputs. Differences are from the first row of each size.",
                {
                    "size": "{size}",
                    "block": "{block}",
                    "by": "{by}",
                    "attention": "{kernel}",
                    **SPREAD,
                    **PEAK,
                    "difference": "{difference:.1e}",
                },
            ),
            Table("outside", "What a step does outside of its blocks, here:", {"size": "{size}", **SPREAD, **PEAK}),
            Table("outside of Diffusers", "And in Diffusers, whose text is embedded at each step:", {"size": "{size}", **SPREAD, **PEAK}),
        ),
    ),
    "fp8": (
        "8 bits",
        (
            Table("fp8-check", "Whether the GPU multiplies in 8 bits:", {"answer": "{multiplies}"}),
            Table(
                "fp8",
                "Differences are from bfloat16.",
                {
                    "size": "{size}",
                    "block": "{block}",
                    "weights": "{weights}",
                    "attention": "{kernel}",
                    **SPREAD,
                    **PEAK,
                    "difference": "{difference:.1e}",
                },
            ),
            Table(
                "fp8-product",
                "118,800 tokens through a linear from 3072 to 12288:",
                {"way": "{way}", **SPREAD, "TFLOP/s": "{tflops:,.0f}", **PEAK, "difference": "{difference:.1e}"},
            ),
            Table(
                "fp8-small-weights",
                "Expanded 8-bit weights against exact ones, in the dtype that rounds the scale:",
                {"dtype": "{dtype}", "largest weight": "{largest}", "difference": "{difference:.2e}"},
            ),
        ),
    ),
    "vae": (
        "Decoding",
        (
            Table(
                "vae-tile",
                "One tile, float16. Differences are from the first row.",
                {"by": "{by}", "layout": "{layout}", "phases": "{phases}", **SPREAD, **PEAK, "difference": "{difference:.1e}"},
            ),
            Table(
                "vae-whole",
                "All tiles, frame by frame as they get ready; tuned is `torch.backends.cudnn.benchmark`.",
                {"size": "{size}", "layout": "{layout}", "phases": "{phases}", "tuned": "{tuned}", "frames": "{frames} of {of}"}
                | SECONDS
                | GPU,
            ),
            Table(
                "vae-layers",
                "Whether a layer keeps the memory layout of what it is given:",
                {"layer": "{layer}", "given": "{given}", "kept": "{kept}", **SPREAD},
            ),
            Table(
                "vae-kernels",
                "The slowest kernels of one tile:",
                {
                    "layout": "{layout}",
                    "phases": "{phases}",
                    "kernel": "{kernel}",
                    "ms": "{ms:,.1f}",
                    "calls": "{calls}",
                    "share": "{share:.0%}",
                },
            ),
        ),
    ),
    "offload": (
        "Offload of the whole 13B",
        (
            Table(
                "offload",
                "One step. Planned is what `hunyuan-video plan` counts for it, without the text encoders and the VAE.",
                {"video": "{video}", "offload": "{offload}", **SPREAD, **GPU}
                | {"planned, GB": "{planned_gb:.2f}", "bit for bit the same": "{identical}"},
            ),
            Table("offload-start", "Once, when a pipeline is loaded:", {"what": "{what}", "GB": "{gb:.1f}", **SECONDS}),
            Table(
                "offload-moves",
                "How fast weights get to the GPU, by where they are:",
                {"home": "{home}", "GB": "{gb:.2f}", "seconds": "{seconds:.3f}", "GB/s": "{gb_per_second:.1f}"},
            ),
        ),
    ),
    "training": (
        "A LoRA's step beside the 13B in 8 bits",
        (
            Table(
                "training",
                "Rank 32, every block computed twice.",
                {"clip": "{clip}", "samples": "{samples}", "image tokens": "{tokens:,}", "first step, s": "{first_seconds:.2f}"}
                | {"later steps, s": "{seconds:.2f}", **GPU, "planned, GB": "{planned_gb:.2f}"},
            ),
            Table("training-merge", "Merging adapters into a single block, by where they are:", {"factors": "{factors}", **SPREAD}),
            Table("training-start", "Making the model and all that trains it:", SECONDS),
        ),
    ),
}


def read(folder: Path) -> dict[str, list[Row]]:
    """The rows of the parts that there are. A part that was killed may have left half a line, which is no row."""
    found: dict[str, list[Row]] = {}
    for part in PARTS:
        path = folder / f"{part}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                found.setdefault(part, []).append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return found


def cell(text: str, row: Row) -> str:
    try:
        filled = text.format(**row)
    except (KeyError, TypeError, IndexError):  # not measured
        return "–"
    return filled.replace("|", "\\|").replace("\n", " ")


def render(table: Table, rows: list[Row]) -> list[str]:
    rows = [row for row in rows if row["table"] == table.name]
    if table.name in ("attention-choice", "vae-kernels"):  # a line for each of the kernels
        rows = [row | kernel for row in rows for kernel in row.get("kernels", [{}])]
    if not rows:
        return []
    notes = [row.get("failed") or row.get("unavailable") or "" for row in rows]
    headings = [*table.columns, *(["why not"] if any(notes) else [])]
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for row, note in zip(rows, notes, strict=True):
        cells = [cell(text, row) for text in table.columns.values()] + ([cell("{note}", {"note": note})] if any(notes) else [])
        lines.append("| " + " | ".join(cells) + " |")
    return ["", table.sentence, "", *lines] if table.sentence else ["", *lines]


def ending(rows: list[Row]) -> str:
    """What must be known of how a part ended; nothing if it ended well."""
    end = next((row for row in rows if row["table"] == "end"), None)
    if not rows:
        return "**This part has not run.**"
    if end is None:
        return "**This part did not come to its end.**"
    if end["status"] in KILLED:
        return f"**This part was ended after its {end['limit']} s: what follows is what it had by then.**"
    if end["status"]:
        *_, last = ["in silence", *end["said"].split("\n")[:-1]]
        return f"**This part ended with status {end['status']}:** `{last.strip()}`"
    return ""


def heading(found: dict[str, list[Row]]) -> str:
    rows = [row for rows in found.values() for row in rows]
    machine = next((row for row in rows if row["table"] == "machine" and "torch" in row), None)
    if machine is None:
        return "No part has said where it ran."
    if machine["rehearsal"]:
        return "**A rehearsal on a CPU with tiny sizes: the numbers mean nothing.**"
    smi, clocks = machine["nvidia_smi"], [row["sm_mhz"] for row in rows if row.get("sm_mhz")]
    ran = f" Just after the measurements the clock was {min(clocks):.0f} to {max(clocks):.0f} MHz." if clocks else ""
    versions = [
        f"{name} {machine[name]}" for name in ("torch", "cuda", "cudnn", "triton", "diffusers", "transformers") if machine.get(name)
    ]
    return (
        f"Measured on {machine['date']} on one {machine['gpu']} ({machine['free_gb']:.0f} of {machine['total_gb']:.0f} GB free; driver "
        f"{smi.get('driver_version', 'unknown')}, clock at most {smi.get('clocks.max.sm', 'unknown')} MHz, power at most "
        f"{smi.get('power.limit', 'unknown')} W), {machine['system']}; {', '.join(versions)}; commit {machine['commit']}; by "
        f"`benchmarks/gpu.sh`. Times are medians after a warm-up; memory is the peak above what was there before a call.{ran}"
    )


def section(found: dict[str, list[Row]]) -> str:
    lines = [heading(found)]
    for part, (title, tables) in PARTS.items():
        rows = found.get(part, [])
        lines += ["", f"### {title}"]
        if told := ending(rows):
            lines += ["", told]
        for table in tables:
            lines += render(table, rows)
    return "\n".join(lines) + "\n"


def put(page: str, text: str, start: str = START) -> str:
    """The page with `text` between two marks."""
    before, mark, rest = page.partition(start + "\n")
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"The page lacks {start} or {END}; put them back where the section belongs.")
    return before + mark + text + end + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    found = read(parser.parse_args().folder)
    if any(row.get("rehearsal") for rows in found.values() for row in rows):
        print(section(found))
    else:
        PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), section(found)), encoding="utf-8")


if __name__ == "__main__":
    main()
