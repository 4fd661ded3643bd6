"""One step of the transformer against Diffusers, with identical weights.

    python benchmarks/dit_step.py                  # CPU: hidden 768, 2 + 4 blocks, 1,280 and 3,456 image tokens
    python benchmarks/dit_step.py --device cuda

60 of 256 text tokens are real, as for an ordinary prompt. Both take turns in one process, so that a noisy machine is unfair to both
alike; on CPU the time is that of one thread's work (process_time), on CUDA wall time after a synchronization. Work that is the same at
every step (the text embedding) is done before, as the pipeline does it; Diffusers has no such place. Peak memory is that of the first
step in a fresh process each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from diffusers_peer import transformer_peer
from measure import fresh_peak, randomize, take_turns

from hunyuan_video.kernels import table
from hunyuan_video.kernels.choice import fastest, use_attention
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig

MID = TransformerConfig(hidden_size=768, num_heads=6, num_double_blocks=2, num_single_blocks=4)
GRIDS = {1280: (5, 32, 32), 3456: (9, 32, 48)}  # image tokens: latent frames, height and width
TEXT_TOKENS, REAL_TOKENS = 256, 60
NAMES = ("ours", "theirs")


def stepping(name: str, tokens: int, dtype: torch.dtype, device: torch.device) -> Callable[[], torch.Tensor]:
    """One step of one of the two."""
    ours = randomize(HunyuanVideoTransformer(MID), std=0.02)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, *GRIDS[tokens], generator=generator).to(device, dtype)
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
    use_attention(ours, table.load(fastest(MID.num_heads, MID.head_dim, tokens + REAL_TOKENS, dtype, device)))
    condition = ours.condition(states, mask, pooled, guidance)
    return lambda: ours(x, t, condition)


@torch.no_grad()
def compare(tokens: int, dtype: torch.dtype, device: torch.device, repeats: int) -> str:
    """One row of the table."""
    peaks = {name: fresh_peak(stepping, name, tokens, dtype, device=device) for name in NAMES}
    calls = {name: stepping(name, tokens, dtype, device) for name in NAMES}
    mine, other = (calls[name]().float() for name in NAMES)
    error = ((mine - other).norm() / other.norm()).item()
    limit = 1e-5 if dtype == torch.float32 else 3e-2
    assert error < limit, f"the two disagree by {error:.1e}: their times cannot be compared"
    seconds = take_turns(calls, device, repeats)
    return (
        f"| {tokens:,} | {str(dtype).removeprefix('torch.')} | {seconds['theirs']:.3f} s | {seconds['ours']:.3f} s "
        f"| **{seconds['theirs'] / seconds['ours']:.2f}×** | {peaks['theirs']:.0f} MiB | {peaks['ours']:.0f} MiB | {error:.0e} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tokens", type=int, nargs="+", choices=list(GRIDS), default=list(GRIDS))
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)
    print("| image tokens | dtype | Diffusers | here | speed | Diffusers' peak | our peak | difference |")
    print("|---|---|---|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        for tokens in args.tokens:
            print(compare(tokens, dtype, device, args.repeats), flush=True)


if __name__ == "__main__":
    main()
