"""What each number of the benchmarks should be."""

from __future__ import annotations

from dataclasses import dataclass

from rows import Machine, Row


@dataclass(frozen=True)
class Target:
    """So much or more, or, with `at_most`, so much or less."""

    value: float
    at_most: bool = False

    def missed_by(self, value: float) -> float:
        """As a share of the target; 0 if it is met."""
        short = value - self.value if self.at_most else self.value - value
        return max(0.0, short / self.value) if self.value else max(0.0, short)


def at_most(value: float) -> Target:
    return Target(value, at_most=True)


# Beside Diffusers by the kind of CPU, for the ceilings of float32 and bfloat16 are far apart on one and near on the other.
AMX, OTHERS = "amx_bf16", ""
STEPS = {
    "a1": {
        AMX: {"1,280 tokens, float32": 1.5, "3,456 tokens, float32": 1.4},
        OTHERS: {"1,280 tokens, float32": 2.6, "3,456 tokens, float32": 2.4},
    },
    "a2": {
        AMX: {"1,280 tokens, bfloat16": 2.0, "3,456 tokens, bfloat16": 1.8},
        OTHERS: {"1,280 tokens, bfloat16": 2.5, "3,456 tokens, bfloat16": 3.0},
    },
    "a3": {
        AMX: dict.fromkeys((f"{tokens} tokens, {dtype}" for tokens in ("1,280", "3,456") for dtype in ("float32", "bfloat16")), 1.0),
        OTHERS: {"1,280 tokens, float32": 1.9, "3,456 tokens, float32": 1.0}
        | {"1,280 tokens, bfloat16": 1.3, "3,456 tokens, bfloat16": 1.0},
    },
}
# And on any CPU, by the item and how its case begins.
ANYWHERE: dict[tuple[str, str], Target] = {
    ("a4", ""): at_most(2.3),
    ("a5", ""): Target(1.0),
    ("a6", ""): Target(95.0),
    ("b1", "17x64x64, float32"): Target(1.0),
    ("b1", "17x64x64, bfloat16"): Target(1.65),
    ("b2", ""): Target(3.6),
    ("b3", "17x128x128"): at_most(0.45),
    ("b3", "a tile"): at_most(3.3),
    ("c1", "17x128x128, 8 steps, float32"): Target(99.9),
    ("c1", "17x128x128, 8 steps, bfloat16"): Target(2.5),
    ("c2", "9x64x64, bfloat16, memory"): at_most(1.0),
    ("c2", "9x64x64, bfloat16"): at_most(20.0),
    ("c3", ""): at_most(6.0),
    ("d", "a"): at_most(1.0),
    ("d", "b"): at_most(1.10),
    ("d", "c"): at_most(1.15),
    ("d", "decoding"): at_most(5.0),
    ("e", "bytes"): at_most(1.0),
    ("e", "work"): at_most(0.52),
    ("e", "gathered"): at_most(64.0),
    ("e", "memory"): at_most(1.01),
    ("g", "exact"): Target(100.0),
    ("g", ""): Target(95.0),
}


def target_of(row: Row, machine: Machine) -> Target:
    """Raises a KeyError for a row that has none."""
    if row.item in STEPS:
        return Target(STEPS[row.item][AMX if AMX in machine.flags else OTHERS][row.case])
    beginnings = [case for item, case in ANYWHERE if item == row.item and row.case.startswith(case)]
    return ANYWHERE[row.item, max(beginnings, key=len)]
