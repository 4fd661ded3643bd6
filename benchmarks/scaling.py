"""How time grows with size (`bench.py d`): a step as a + b·S + c·S² of its S tokens, held against the ceilings; decoding by its pixels."""

from __future__ import annotations

from collections.abc import Iterator

import ceilings
import numpy as np
import torch
from dit_step import MID, NAMED, REAL_TOKENS, Grid, stepping, tokens_of
from measure import take_turns
from rows import Row
from vae_decode import LATENT_FRAMES, decoding

from hunyuan_video.distributed.cost import Step

GRIDS: tuple[Grid, ...] = ((1, 32, 32), (3, 32, 32), (5, 32, 40), (9, 32, 40), (9, 40, 48))
SIZES = (48, 64, 96)  # pixels of height and width
REPEATS = 3


@torch.no_grad()
def d(repeats: int, device: torch.device) -> Iterator[Row]:
    for dtype, named in NAMED.items():
        calls = {str(tokens_of(grid) + REAL_TOKENS): stepping("ours", grid, dtype, device) for grid in GRIDS}
        for call in calls.values():
            call()
        seconds = take_turns(calls, device, min(repeats, REPEATS))
        sizes, times = np.array(list(map(int, seconds))), np.array([spread.least for spread in seconds.values()])
        alone, linear, square = fit(sizes, times)
        # Of one token more, and of one pair more, at this machine's ceilings.
        work = Step(1, 0, config=MID).work(0)
        least = work.tokens / ceilings.products(dtype), work.attention / ceilings.attention(dtype, int(sizes[-1]))
        yield Row("d", f"b, {named}", "seconds that a token adds, over products at their ceiling", linear / least[0], "×", seconds)
        yield Row("d", f"c, {named}", "seconds that a pair of tokens adds, over attention at its ceiling", square / least[1], "×", seconds)
        share = 100 * alone / float(np.interp(1000, sizes, times))
        yield Row("d", f"a, {named}", "of a step of 1,000 tokens that no token adds", share, "%", seconds)
    calls = {str(size): decoding("ours", size, torch.bfloat16, device) for size in SIZES}
    for call in calls.values():
        call()
    seconds = take_turns(calls, device, min(repeats, REPEATS))
    each = [spread.least / (int(size) ** 2 * (4 * LATENT_FRAMES - 3)) for size, spread in seconds.items()]
    apart = 100 * (max(each) / min(each) - 1)
    yield Row("d", "decoding, bfloat16", "that the dearest size's pixels take more than the cheapest's", apart, "%", seconds)


def fit(sizes: np.ndarray, times: np.ndarray) -> tuple[float, float, float]:
    """a, b and c of a + b·S + c·S², none below 0, with the least relative errors."""
    terms = np.stack([np.ones(len(sizes)), sizes, sizes.astype(float) ** 2], axis=1) / times[:, None]
    kept = [0, 1, 2]
    while True:
        found = np.linalg.lstsq(terms[:, kept], np.ones(len(times)), rcond=None)[0]
        if (found >= 0).all():
            return tuple(dict(zip(kept, map(float, found), strict=True)).get(term, 0.0) for term in range(3))  # pyright: ignore
        kept.pop(int(found.argmin()))
