"""Decoding by the VAE against Diffusers, with identical weights and equal tiling (none), all channels of the released model.

    python benchmarks/vae_decode.py                  # CPU: 17 frames of 64x64 and 128x128, float32 and bfloat16
    python benchmarks/vae_decode.py --device cuda --sizes 256

Both take turns in one process, so that a noisy machine is unfair to both alike; on CPU the time is that of one thread's work
(process_time), on CUDA wall time after a synchronization. Peak memory is that of the first decoding in a fresh process each.
Diffusers cuts time into small tiles of its own unless told not to, which is other work and another result: here it is told not to.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from diffusers_peer import vae_peer
from measure import fresh_peak, randomize, take_turns

from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.transforms.chunk import in_chunks
from hunyuan_video.transforms.phase_upsample import upsample_by_phases

LATENT_FRAMES = 5  # 17 frames
NAMES = ("chunks", "pipeline", "theirs")  # in chunks alone; and by phases, as the pipeline decodes; Diffusers


def decoding(name: str, size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], torch.Tensor]:
    """Decode one clip with one of the two. The encoder is not needed, and gone."""
    ours = randomize(CausalVAE(), std=0.02)
    model = vae_peer(ours) if name == "theirs" else ours
    # Diffusers' own .to warns that it knows of no layer to keep in float32; nn.Module's does the same, in silence.
    torch.nn.Module.to(model, device=device, dtype=dtype)
    if name != "theirs":
        in_chunks(ours)
    model.encoder = None  # pyright: ignore[reportAttributeAccessIssue]
    if name == "pipeline":
        upsample_by_phases(ours)
    shape = (1, 16, LATENT_FRAMES, size // 8, size // 8)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    return lambda: model.decode(latents) if isinstance(model, CausalVAE) else model.decode(latents, return_dict=False)[0]


@torch.no_grad()
def compare(size: int, dtype: torch.dtype, device: torch.device, repeats: int) -> str:
    """One row of the table."""
    peaks = {name: fresh_peak(decoding, name, size, dtype, device=device) for name in NAMES}
    calls = {name: decoding(name, size, dtype, device) for name in NAMES}
    chunks, pipeline, other = (calls[name]().float() for name in NAMES)
    error = max(((mine - other).norm() / other.norm()).item() for mine in (chunks, pipeline))
    limit = 1e-4 if dtype == torch.float32 else 5e-2
    assert error < limit, f"the two disagree by {error:.1e}: their times cannot be compared"
    seconds = take_turns(calls, device, repeats)
    return (
        f"| 17x{size}x{size} | {str(dtype).removeprefix('torch.')} | {seconds['theirs']:.2f} s | {seconds['pipeline']:.2f} s "
        f"| **{seconds['theirs'] / seconds['pipeline']:.2f}×** | {seconds['theirs'] / seconds['chunks']:.2f}× "
        f"| {peaks['theirs']:.0f} MiB | {peaks['pipeline']:.0f} MiB | {100 * peaks['pipeline'] / peaks['theirs']:.0f} % | {error:.0e} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| size | dtype | Diffusers | here | speed | without phases | Diffusers' peak | our peak | memory | difference |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        for size in args.sizes:
            print(compare(size, dtype, torch.device(args.device), args.repeats), flush=True)


if __name__ == "__main__":
    main()
