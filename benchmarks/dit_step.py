"""One step of the transformer against Diffusers, with identical weights: hidden 768, 2 dual and 4 single blocks (`bench.py a1 a2 a3`).

60 of 256 text tokens are real, as for an ordinary prompt. Both take turns in one process, so that a noisy machine is unfair to both
alike; on CPU the time is that of one thread's work (process_time), on CUDA wall time after a synchronization. Work that is the same at
every step (the text embedding) is done before, as the pipeline does it; Diffusers has no such place. Peak memory is that of the first
step in a fresh process each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import ceilings
import torch
from diffusers_peer import transformer_peer
from measure import deviation, fresh_peak, randomize, take_turns
from rows import Row

from hunyuan_video.assembly import Models, assemble
from hunyuan_video.config import Runtime
from hunyuan_video.distributed.cost import Step
from hunyuan_video.distributed.world import World
from hunyuan_video.kernels import fused, table
from hunyuan_video.kernels.choice import fastest, use_attention
from hunyuan_video.kernels.measured import measure
from hunyuan_video.models.attention import KINDS
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.transforms.ahead import ahead
from hunyuan_video.transforms.lean import chunk_size, use_pieces

MID = TransformerConfig(hidden_size=768, num_heads=6, num_double_blocks=2, num_single_blocks=4)
Grid = tuple[int, int, int]  # latent frames, height and width
GRIDS: tuple[Grid, ...] = ((5, 32, 32), (9, 32, 48))
TEXT_TOKENS, REAL_TOKENS = 256, 60
ERROR = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
NAMED = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def stepping(name: str, grid: Grid, dtype: torch.dtype, device: torch.device) -> Callable[[], torch.Tensor]:
    """One step: as the pipeline takes it ("ours"), with what PyTorch has alone ("plain"), or by Diffusers ("theirs")."""
    ours = randomize(HunyuanVideoTransformer(MID), std=0.02)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, *grid, generator=generator).to(device, dtype)
    states = torch.randn(1, TEXT_TOKENS, MID.text_dim, generator=generator).to(device, dtype)
    mask = (torch.arange(TEXT_TOKENS) < REAL_TOKENS)[None].to(device)
    pooled = torch.randn(1, MID.pooled_dim, generator=generator).to(device, dtype)
    t, guidance = torch.full((1,), 700.0, device=device), torch.full((1,), 6000.0, device=device, dtype=dtype)
    if name == "theirs":
        theirs = transformer_peer(ours)
        # Diffusers' own .to warns that it knows of no layer to keep in float32; nn.Module's does the same, in silence.
        torch.nn.Module.to(theirs, device=device, dtype=dtype)
        return lambda: theirs(x, t, states, mask.to(dtype), pooled, guidance, return_dict=False)[0]
    ours = ours.to(device, dtype)
    assemble(Models(ours), Runtime(), World(device))
    sequence = tokens_of(grid) + REAL_TOKENS
    chosen = fastest(MID.num_heads, MID.head_dim, sequence, dtype, device) if name == "ours" else best_of_torch(sequence, dtype, device)
    use_attention(ours, table.load(chosen))
    ops = fused.fastest(MID.hidden_size, MID.num_heads, int(MID.hidden_size * MID.mlp_ratio), chunk_size(device), dtype, device)
    if name == "plain":
        ops = "onednn" if "onednn" in ops else "pytorch"  # which PyTorch has with it
    use_pieces(ours, fused.load(ops, device))
    prepare = ahead(ours, [t], (), lambda _: nullcontext()).__enter__()  # for good: the model is this step's alone
    condition = prepare(0, states, mask, pooled, guidance)
    return lambda: ours(x, t, condition)


def tokens_of(grid: Grid) -> int:
    return math.prod(MID.grid((1, 16, *grid)))


def best_of_torch(tokens: int, dtype: torch.dtype, device: torch.device) -> str:
    """The faster of the kernels for which nothing is compiled."""
    q, k, v = torch.randn(3, 1, tokens, 1, MID.head_dim, device=device).to(dtype)
    seconds = measure({name: KINDS[name] for name in ("sdpa", "chunked")}, lambda kernel: kernel(q, k, v, None), device)
    return min(seconds, key=lambda name: seconds[name])


@torch.no_grad()
def compare(item: str, name: str, dtype: torch.dtype, device: torch.device, repeats: int) -> Iterator[Row]:
    """A row for each number of tokens."""
    names = (name, "theirs")
    for grid in GRIDS:
        tokens = tokens_of(grid)
        peaks = {each: fresh_peak(stepping, each, grid, dtype, device=device) for each in names}
        calls = {each: stepping(each, grid, dtype, device) for each in names}
        error = deviation(calls[name](), calls["theirs"]())
        assert error < ERROR[dtype], f"the two disagree by {error:.1e}: their times cannot be compared"
        seconds = take_turns(calls, device, repeats)
        detail = {"error": error, "peak_mib": peaks[name], "their_peak_mib": peaks["theirs"]}
        if device.type == "cpu":
            detail |= {"of_the_ceiling": floor(tokens, dtype) / seconds[name].median}
        ratio = seconds["theirs"].median / seconds[name].median
        yield Row(item, f"{tokens:,} tokens, {NAMED[dtype]}", "a step, beside Diffusers", ratio, "×", seconds, detail)


def floor(tokens: int, dtype: torch.dtype) -> float:
    """Seconds of a step that were nothing but products and attention at this machine's ceilings."""
    work = Step(tokens, REAL_TOKENS, config=MID).work(0)
    rate = ceilings.products(dtype)
    return work.tokens / rate + work.attention / max(rate, ceilings.attention(dtype, tokens + REAL_TOKENS))


def a1(repeats: int, device: torch.device) -> Iterator[Row]:
    yield from compare("a1", "ours", torch.float32, device, repeats)


def a2(repeats: int, device: torch.device) -> Iterator[Row]:
    yield from compare("a2", "ours", torch.bfloat16, device, repeats)


def a3(repeats: int, device: torch.device) -> Iterator[Row]:
    for dtype in (torch.float32, torch.bfloat16):
        yield from compare("a3", "plain", dtype, device, repeats)
