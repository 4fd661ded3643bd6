"""Turns the files of rows in benchmarks/results/, one for each machine, into the tables of docs/benchmarks.md.

python benchmarks/bench_table.py
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from gpu_table import PAGE, put
from measure import Spread
from rows import ROOT, Found, Machine, Row, read
from targets import Target, target_of

RESULTS = ROOT / "benchmarks" / "results"
START = "<!-- bench_table.py writes from here -->"
REPEATS = 7  # with fewer, a row says so
TIMES = "seconds: median (least; between the quartiles)"
HEADS = ("item", "what", "of", "aim", "measured", "so", TIMES, "of the ceiling", "beside it", "commit")


def tables(files: Sequence[Sequence[Found]]) -> str:
    """A table for each machine, under a sentence that says which it is."""
    return "\n".join(section(found) for found in files if found)


def section(found: Sequence[Found]) -> str:
    ordered = sorted(found, key=lambda each: each.row.item)
    rows = [cells(each) for each in ordered]
    lines = [
        heading([each.machine for each in ordered]),
        "",
        *(f"| {' | '.join(line)} |" for line in (HEADS, ("---",) * len(HEADS), *rows)),
    ]
    return "\n".join(lines) + "\n"


def heading(machines: Sequence[Machine]) -> str:
    first = machines[0]
    loads, dates = ([getattr(each, name) for each in machines] for name in ("load", "date"))
    versions = ", ".join(f"{name} {number}" for name, number in first.versions.items())
    return (
        f"### {first.cpu}, {first.threads} thread of {first.cores} cores\n\n"
        f"{', '.join(first.flags)}; {first.system}, Python {first.python}, {versions}; {_range(dates)}; the "
        f"load of the machine, by all on it, was {min(loads):.1f} to {max(loads):.1f}."
    )


def _range(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def cells(found: Found) -> tuple[str, ...]:
    row, target = found.row, target_of(found.row, found.machine)
    missed = target.missed_by(row.value)
    share = row.detail.get("of_the_ceiling")
    return (
        row.item,
        row.what,
        row.case,
        aim(target, row.unit),
        f"**{number(row.value, row.unit)}**",
        "met" if missed == 0 else f"missed by {missed:.0%}",
        times(row.seconds),
        "–" if share is None else f"{share:.0%}",
        beside(row),
        found.machine.commit,
    )


def aim(target: Target, unit: str) -> str:
    return f"{'≤' if target.at_most else '≥'} {number(target.value, unit)}"


def number(value: float, unit: str) -> str:
    return f"{value:.2f}×" if unit == "×" else f"{value:.3g} {unit}"


def times(seconds: Mapping[str, Spread]) -> str:
    few = {each.repeats for each in seconds.values() if each.repeats < REPEATS}
    taken = [f"{name} {short(each.median)} ({short(each.least)}; {short(each.iqr)})" for name, each in seconds.items()]
    return "; ".join([*taken, *(f"{number} repeats" for number in few)]) or "–"


def short(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{1000 * seconds:.2g} ms"


def beside(row: Row) -> str:
    told = {
        "error": "difference {:.0e}",
        "peak_mib": "peak {:.0f} MiB",
        "their_peak_mib": "theirs {:.0f} MiB",
        "kernel": "`{}`",
        "gflops": "{:.0f} GFLOP/s",
        "pairs": "{:.0%} of the pairs",
        "petaflop": "{:.2f} PFLOP",
        "passes": "{:.1f} passes",
        "of": "of {:.0f}",
        "density": "attention {:.0%}",
        "operations": "operations {:.0%}",
        "faster": "{:.2f}×",
    }
    return ", ".join(text.format(row.detail[name]) for name, text in told.items() if name in row.detail) or "–"


def page() -> str:
    """As it should be, by the files there are."""
    return put(PAGE.read_text(encoding="utf-8"), tables([read(path) for path in sorted(RESULTS.glob("*.jsonl"))]), START)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
