"""One step of the transformer against Diffusers, with identical weights, in one process.

    python benchmarks/dit_step.py                  # CPU: hidden 768, 2 + 4 blocks, 1,280 and 3,456 image tokens
    python benchmarks/dit_step.py --device cuda

60 of 256 text tokens are real, as for an ordinary prompt. Both take turns, so that a noisy machine is unfair to both alike; on CPU the
time is that of one thread's work (process_time), on CUDA wall time after a synchronization. Work that is the same at every step (the
text embedding) is done before, as the pipeline does it; Diffusers has no such place.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers_peer import transformer_peer
from measure import peak_memory, randomize

from hunyuan_video.models import attention
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig, use_attention

MID = TransformerConfig(hidden_size=768, num_heads=6, num_double_blocks=2, num_single_blocks=4)
GRIDS = {1280: (5, 32, 32), 3456: (9, 32, 48)}  # image tokens: latent frames, height and width
TEXT_TOKENS, REAL_TOKENS = 256, 60


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def compare(tokens: int, dtype: torch.dtype, device: torch.device, repeats: int) -> str:
    """One row of the table."""
    ours = randomize(HunyuanVideoTransformer(MID))
    theirs = transformer_peer(ours).to(device, dtype)
    ours = ours.to(device, dtype)
    use_attention(ours, attention.best(device, dtype))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, *GRIDS[tokens], generator=generator).to(device, dtype)
    states = torch.randn(1, TEXT_TOKENS, MID.text_dim, generator=generator).to(device, dtype)
    mask = (torch.arange(TEXT_TOKENS) < REAL_TOKENS)[None].to(device)
    pooled = torch.randn(1, MID.pooled_dim, generator=generator).to(device, dtype)
    t, guidance = torch.full((1,), 700.0, device=device), torch.full((1,), 6000.0, device=device, dtype=dtype)
    condition = ours.condition(states, mask, pooled, guidance)

    def our_step() -> torch.Tensor:
        return ours(x, t, condition)

    def their_step() -> torch.Tensor:
        return theirs(x, t, states, mask.to(dtype), pooled, guidance, return_dict=False)[0]

    error = ((our_step() - their_step()).float().norm() / their_step().float().norm()).item()
    limit = 1e-5 if dtype == torch.float32 else 3e-2
    assert error < limit, f"the two disagree by {error:.1e}: their times cannot be compared"

    times: dict[Callable[[], torch.Tensor], list[float]] = {our_step: [], their_step: []}
    for _ in range(repeats):
        for step, taken in times.items():
            start = clock(device)
            step()
            taken.append(clock(device) - start)
    our_time, their_time = (statistics.median(taken) for taken in times.values())
    our_peak, their_peak = peak_memory(our_step, device), peak_memory(their_step, device)
    return (
        f"| {tokens:,} | {str(dtype).removeprefix('torch.')} | {their_time:.3f} s | {our_time:.3f} s | **{their_time / our_time:.2f}×** "
        f"| {their_peak:.0f} MiB | {our_peak:.0f} MiB | {error:.0e} |"
    )


@torch.no_grad()
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
