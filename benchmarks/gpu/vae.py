"""Part 6: what decoding takes, by tile and whole, in both memory layouts, with and without phases, and beside Diffusers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

import torch
import torch.nn.functional as F
from measure import deviation
from torch import Tensor, nn

from gpu.models import TINY_VAE, random_vae
from gpu.part import Part, kernels_of
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.transforms.phase_upsample import upsample_by_phases
from hunyuan_video.transforms.tiling import decode_pieces
from hunyuan_video.video import to_levels

LAYOUTS = {"channels last": torch.channels_last_3d, "contiguous": torch.contiguous_format}


@contextmanager
def layout(name: str) -> Iterator[None]:
    """Inside, everything of ours that asks for channels last gets this layout."""
    with mock.patch.object(torch, "channels_last_3d", LAYOUTS[name]):
        yield


def make(part: Part, config: VAEConfig, dtype: torch.dtype, phases: bool) -> CausalVAE:
    vae = random_vae(config, part.device, dtype)
    if phases:
        upsample_by_phases(vae)
    return vae


@torch.no_grad()
def measure_tile(part: Part, config: VAEConfig, dtype: torch.dtype) -> tuple[str, bool]:
    """The fastest layout, and whether with phases."""
    side, frames = config.sample_size // config.spatial_compression_ratio, config.sample_tsize // config.time_compression_ratio + 1
    z = torch.randn(1, config.latent_channels, frames, side, side, device=part.device, dtype=dtype)
    expected: Tensor | None = None
    times: dict[tuple[str, bool], float] = {}
    for name, phases in (("channels last", True), ("channels last", False), ("contiguous", False), ("contiguous", True)):
        with part.case("vae-tile", by="here", layout=name, phases=phases) as row, layout(name):
            vae = make(part, config, dtype, phases)
            out = vae.decode(z)
            expected = out if expected is None else expected
            row.update(part.timed(partial(vae.decode, z), 1.5), difference=deviation(out, expected))
            times[name, phases] = row["ms"]
    for name, phases in (("channels last", True), ("contiguous", False)):
        with part.case("vae-kernels", layout=name, phases=phases) as row, layout(name):
            row["kernels"] = kernels_of(partial(make(part, config, dtype, phases).decode, z), part.device)
    with part.case("vae-tile", by="Diffusers", layout="contiguous", phases=False) as row:
        from diffusers_peer import vae_peer  # here, for a machine without Diffusers can still measure ours

        with part.device:
            theirs = vae_peer(make(part, config, dtype, False))
        nn.Module.to(theirs, device=part.device, dtype=dtype)
        call = partial(theirs.decode, z, return_dict=False)
        row.update(part.timed(call, 1.5))
        if expected is not None:
            row["difference"] = deviation(call()[0], expected)
    return min(times, key=lambda variant: times[variant], default=("channels last", True))


@torch.no_grad()
def measure_whole(part: Part, config: VAEConfig, dtype: torch.dtype, name: str, phases: bool, tuned: bool = False) -> None:
    """All tiles, as the pipeline decodes them. A row for each piece of time, so that the first are known if the last do not fit."""
    size = (17, 32, 48) if part.rehearse else (129, 720, 1280)
    torch.backends.cudnn.benchmark = tuned
    with layout(name):
        vae = make(part, config, dtype, phases)
        z = torch.randn(config.latent_shape(*size), device=part.device, dtype=dtype)
        pieces, frames, seconds = decode_pieces(vae, z), 0, 0.0
        for number in range(1, 100):
            with part.case("vae-whole", size="x".join(map(str, size)), layout=name, phases=phases, tuned=tuned, piece=number) as row:
                part.forget_peak()
                start = time.perf_counter()
                piece = next(pieces, None)
                levels = None if piece is None else to_levels(piece[0]).cpu()
                seconds += time.perf_counter() - start
                frames += 0 if levels is None else len(levels)
                row.update(part.peak(), frames=frames, of=size[0], seconds=seconds)
            if frames >= size[0] or "seconds" not in row:
                break


@torch.no_grad()
def measure_layers(part: Part, dtype: torch.dtype) -> None:
    """Which layers keep the layout of what they are given, and what they take in each."""
    channels, frames, side = (8, 4, 8) if part.rehearse else (128, 8, 256)
    weight = torch.randn(channels, channels, 3, 3, 3, device=part.device, dtype=dtype) * 0.02
    ones = torch.ones(channels, device=part.device)
    layers: dict[str, Callable[[Tensor], Tensor]] = {
        "replicate padding": lambda x: F.pad(x, (1, 1, 1, 1, 2, 0), mode="replicate"),
        "GroupNorm": lambda x: F.group_norm(x, 4, ones.to(dtype), ones.to(dtype)),
        "normalizing by given statistics": lambda x: F.batch_norm(x, ones, ones, ones, ones),
        "SiLU": F.silu,
        "nearest neighbour": lambda x: F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest"),
        "joining in time": lambda x: torch.cat([x, x], dim=2),
        "convolution": lambda x: F.conv3d(x, weight.contiguous(memory_format=suggested(x))),
    }
    for name, order in LAYOUTS.items():
        x = torch.randn(1, channels, frames, side, side, device=part.device, dtype=dtype).contiguous(memory_format=order)
        for layer, call in layers.items():
            with part.case("vae-layers", layer=layer, given=name) as row:
                row.update(part.timed(partial(call, x), 0.2), kept=call(x).is_contiguous(memory_format=order))


def suggested(x: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x.is_contiguous(memory_format=torch.channels_last_3d) else torch.contiguous_format


def main() -> None:
    part = Part("vae")
    config, dtype = (TINY_VAE, torch.float32) if part.rehearse else (VAEConfig(), torch.float16)
    fastest = measure_tile(part, config, dtype)
    measure_layers(part, dtype)
    pipelines = ("channels last", True)
    measure_whole(part, config, dtype, *pipelines)
    if fastest != pipelines or part.rehearse:
        measure_whole(part, config, dtype, *fastest)
    measure_whole(part, config, dtype, *fastest, tuned=True)


if __name__ == "__main__":
    main()
