"""What two ranks of one video send and compute, beside the formulas (`bench.py e`); `parallel.py` prints it row by row."""

from __future__ import annotations

from collections.abc import Iterator

import parallel
import torch
from rows import Row

from hunyuan_video.distributed.cost import Step
from hunyuan_video.models.text import MAX_TEXT_TOKENS

RANKS, HEADS = 2, 24
LATENTS = (7, 24, 38)  # 25x192x304


def e(repeats: int, device: torch.device) -> Iterator[Row]:
    """Counted, so the same every time."""
    config = parallel.small(HEADS)
    ranks = parallel.on_gloo(config, LATENTS, RANKS, torch.bfloat16)
    rows = [row for found in ranks for row in found.values()]
    apart = max(abs(sum(row["sent"].values()) / sum(row["formula"].values()) - 1) for row in rows)
    yield Row("e", "bytes", "that a rank's bytes are from the formula", 100 * apart, "%", {}, {"sent": rows[0]["sent"]})
    tokens = LATENTS[0] * LATENTS[1] * LATENTS[2] // 4
    alone = Step(tokens, MAX_TEXT_TOKENS, config=config).work(0).total
    yield Row("e", "work", "of one process's operations on the fullest of two ranks", max(row["operations"] for row in rows) / alone, "×")
    widest = max(max(row["gathered"]) for row in rows)
    yield Row("e", "gathered", "numbers a token that all ranks gather (a hidden state has 384)", widest, "numbers")
    over = max(row["memory"] / row["planned"] for row in rows[: len(ranks[0])])
    yield Row("e", "memory", "of a rank's memory, of what is planned", over, "×")
