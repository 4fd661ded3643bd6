"""Decoding by the VAE against Diffusers, with identical weights and equal tiling (none), all channels of the released model.

    python benchmarks/vae_decode.py                  # CPU: 17 frames of 64x64 and 128x128, float32 and bfloat16
    python benchmarks/vae_decode.py --device cuda --sizes 256

Both take turns in one process, so that a noisy machine is unfair to both alike; on CPU the time is that of one thread's work
(process_time), on CUDA wall time after a synchronization. Peak memory is that of the first decoding in a fresh process each.
Diffusers cuts time into small tiles of its own unless told not to, which is other work and another result: here it is told not to.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import torch
from diffusers import AutoencoderKLHunyuanVideo
from measure import peak_memory, randomize

from hunyuan_video.models.vae import CausalVAE

LATENT_FRAMES = 5  # 17 frames


def ours() -> CausalVAE:
    return randomize(CausalVAE())  # pyright: ignore[reportReturnType]


def theirs() -> AutoencoderKLHunyuanVideo:
    peer = AutoencoderKLHunyuanVideo()
    peer.use_framewise_decoding = peer.use_framewise_encoding = False
    return randomize(peer)  # pyright: ignore[reportReturnType]


MODELS = {"ours": ours, "theirs": theirs}


def to(model: CausalVAE | AutoencoderKLHunyuanVideo, device: torch.device, dtype: torch.dtype):
    """A decode function. The encoder is not needed, and gone."""
    model.encoder = None  # pyright: ignore[reportAttributeAccessIssue]
    # Diffusers' own .to warns that it knows of no layer to keep in float32; nn.Module's does the same, in silence.
    torch.nn.Module.to(model, device=device, dtype=dtype)
    return model.decode if isinstance(model, CausalVAE) else lambda latents: model.decode(latents, return_dict=False)[0]


def make_latents(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    shape = (1, 16, LATENT_FRAMES, size // 8, size // 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


@torch.no_grad()
def measure_peak(name: str, size: int, dtype: torch.dtype, device: torch.device) -> float:
    """MiB above the weights. Runs in a process of its own: memory that an earlier call gave back is still resident."""
    torch.set_num_threads(1)
    decode = to(MODELS[name](), device, dtype)
    latents = make_latents(size, dtype, device)
    return peak_memory(lambda: decode(latents), device)


def fresh_peak(*args: object) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure_peak, *args).result()  # pyright: ignore[reportArgumentType, reportCallIssue]


@torch.no_grad()
def compare(size: int, dtype: torch.dtype, device: torch.device, repeats: int) -> str:
    """One row of the table."""
    peaks = {name: fresh_peak(name, size, dtype, device) for name in MODELS}
    models = {name: make() for name, make in MODELS.items()}
    models["theirs"].load_state_dict(models["ours"].state_dict())
    decoders = {name: to(model, device, dtype) for name, model in models.items()}
    latents = make_latents(size, dtype, device)

    mine, other = (decode(latents).float() for decode in decoders.values())
    error = ((mine - other).norm() / other.norm()).item()
    limit = 1e-4 if dtype == torch.float32 else 5e-2
    assert error < limit, f"the two disagree by {error:.1e}: their times cannot be compared"

    taken: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(repeats):
        for name, decode in decoders.items():
            start = clock(device)
            decode(latents)
            taken[name].append(clock(device) - start)
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    return (
        f"| 17x{size}x{size} | {str(dtype).removeprefix('torch.')} | {seconds['theirs']:.3f} s | {seconds['ours']:.3f} s "
        f"| **{seconds['theirs'] / seconds['ours']:.2f}×** | {peaks['theirs']:.0f} MiB | {peaks['ours']:.0f} MiB "
        f"| {100 * peaks['ours'] / peaks['theirs']:.0f} % | {error:.0e} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| size | dtype | Diffusers | here | speed | Diffusers' peak | our peak | memory | difference |")
    print("|---|---|---|---|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        for size in args.sizes:
            print(compare(size, dtype, torch.device(args.device), args.repeats), flush=True)


if __name__ == "__main__":
    main()
