"""Decoding by the VAE against Diffusers, with identical weights and equal tiling (none), all channels of the released model
(`bench.py b1 b2 b3`).

Both take turns in one process, so that a noisy machine is unfair to both alike; on CPU the time is that of one thread's work
(process_time), on CUDA wall time after a synchronization. Peak memory is that of the first decoding in a fresh process each.
Diffusers cuts time into small tiles of its own unless told not to, which is other work and another result: here it is told not to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import ceilings
import torch
from diffusers_peer import vae_peer
from measure import deviation, fresh_peak, randomize, take_turns
from rows import Row

from hunyuan_video import plan
from hunyuan_video.assembly import Models, assemble
from hunyuan_video.config import Runtime
from hunyuan_video.distributed.world import World
from hunyuan_video.models.vae import CausalVAE

LATENT_FRAMES = 5  # 17 frames
SIZE, LARGE = 64, 128  # pixels of height and width, for time and for memory
TILE = (1, 16, 17, 32, 32)  # the largest that official tiling makes
ERROR = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
NAMED = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def decoding(name: str, size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], torch.Tensor]:
    """Decode one clip with one of the two. The encoder is not needed, and gone."""
    ours = randomize(CausalVAE(), std=0.02)
    model = vae_peer(ours) if name == "theirs" else ours
    # Diffusers' own .to warns that it knows of no layer to keep in float32; nn.Module's does the same, in silence.
    torch.nn.Module.to(model, device=device, dtype=dtype)
    if isinstance(model, CausalVAE):
        assemble(Models(vae=model), Runtime(), World(device))
    model.encoder = None  # pyright: ignore[reportAttributeAccessIssue]
    shape = (1, 16, LATENT_FRAMES, size // 8, size // 8)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    return lambda: model.decode(latents) if isinstance(model, CausalVAE) else model.decode(latents, return_dict=False)[0]


@torch.no_grad()
def b1(repeats: int, device: torch.device) -> Iterator[Row]:
    """Time in either dtype, and b2: in bfloat16 beside Diffusers in float32."""
    calls = {f"{name}, {NAMED[dtype]}": decoding(name, SIZE, dtype, device) for dtype in NAMED for name in ("ours", "theirs")}
    pixels = {name: call() for name, call in calls.items()}
    errors = {named: deviation(pixels[f"ours, {named}"], pixels[f"theirs, {named}"]) for named in NAMED.values()}
    assert all(errors[NAMED[dtype]] < ERROR[dtype] for dtype in NAMED), f"the two disagree by {errors}: times cannot be compared"
    seconds = take_turns(calls, device, repeats)
    operations = decoder_operations((1, 16, LATENT_FRAMES, SIZE // 8, SIZE // 8))
    for dtype, named in NAMED.items():
        mine, other = seconds[f"ours, {named}"], seconds[f"theirs, {named}"]
        detail = {"error": errors[named]}
        if device.type == "cpu":
            detail |= {"of_the_ceiling": operations / ceilings.convolutions(dtype) / mine.median}
        taken = {"ours": mine, "theirs": other}
        yield Row("b1", f"17x{SIZE}x{SIZE}, {named}", "decoding, beside Diffusers", other.median / mine.median, "×", taken, detail)
    taken = {"ours": seconds["ours, bfloat16"], "theirs": seconds["theirs, float32"]}
    ratio = taken["theirs"].median / taken["ours"].median
    yield Row("b2", f"17x{SIZE}x{SIZE}", "decoding in bfloat16, beside Diffusers in float32", ratio, "×", taken)


def on_meta(dtype: torch.dtype) -> CausalVAE:
    with plan.META:
        vae = CausalVAE().to(dtype).requires_grad_(False)
    assemble(Models(vae=vae), Runtime(), World(plan.META))
    return vae


def decoder_operations(shape: tuple[int, ...]) -> float:
    """Of our decoding, counted where nothing is computed."""
    vae = on_meta(torch.bfloat16)
    return plan.count(vae, lambda: vae.decode(torch.empty(shape, dtype=torch.bfloat16, device=plan.META))).operations


def b3(repeats: int, device: torch.device) -> Iterator[Row]:
    """Memory: measured beside Diffusers', and of the largest tile, counted."""
    for dtype, named in NAMED.items():
        peaks = {name: fresh_peak(decoding, name, LARGE, dtype, device=device) for name in ("ours", "theirs")}
        detail = {"peak_mib": peaks["ours"], "their_peak_mib": peaks["theirs"]}
        yield Row(
            "b3", f"17x{LARGE}x{LARGE}, {named}", "memory of decoding, of Diffusers'", peaks["ours"] / peaks["theirs"], "×", {}, detail
        )
    vae = on_meta(torch.bfloat16)
    most = plan.count(vae, lambda: vae.decode(torch.empty(TILE, dtype=torch.bfloat16, device=plan.META))).most
    yield Row("b3", "a tile of 17x32x32 latents, bfloat16", "memory of decoding, counted", most / 2**30, "GiB")
