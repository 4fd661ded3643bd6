"""Encode and decode in overlapping tiles, as the official sampler always does: bounded memory for any length and size.

A VAE's GroupNorms take their statistics from the whole of what they are given, so tiles are not a rearrangement of the same computation:
the result is a (slightly) different one, and the tile sizes are part of what defines a video. The ones here are the official ones.

On every axis tiles start each 3/4 of a tile, so that neighbours share a quarter; what they share is a linear cross-fade. A tile is first
blended with the one above, then with the one to its left, both already blended themselves; temporal tiles, each made of spatial ones,
carry one more latent than their size, and drop the frame that it makes (it has no past) except at the very start.

Letters: B batch, C channels, T latent frames, F pixel frames, H W height and width (small for latents).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from math import isclose

import torch
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.models.vae import CausalVAE, Posterior, VAEConfig, check_pixels


@dataclass(frozen=True)
class TileSizes:
    """What the VAE sees at once: a square of `pixels` a side, `frames` long, of which the share `overlap` belongs to the neighbour too."""

    pixels: int = 256
    frames: int = 64
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.pixels < 1 or self.frames < 1 or not 0 <= self.overlap < 1:
            raise ValueError(f"tiles need positive sizes and an overlap in [0, 1); got {self}")

    @classmethod
    def of(cls, config: VAEConfig) -> TileSizes:
        """The tiles a model was released with."""
        return cls(config.sample_size, config.sample_tsize)


@dataclass(frozen=True)
class _Axis:
    """One axis: tiles of `tile` start every `stride` of the input; of the output, `keep` are kept of each and `blend` cross-faded."""

    tile: int
    stride: int
    keep: int
    blend: int

    @classmethod
    def make(cls, size: int, overlap: float, ratio: int, name: str) -> tuple[_Axis, _Axis]:
        """For encoding and for decoding, from a tile's size in pixels (or frames)."""
        stride = size * (1 - overlap) / ratio
        if size % ratio or not isclose(stride, round(stride)):
            raise ValueError(
                f"tiles of {size} {name} with an overlap of {overlap} would start every {stride:g} latents; "
                f"choose {name} and overlap so that tiles and their starts are whole latents ({ratio} {name} each)"
            )
        latents, step = size // ratio, round(stride)
        encode = cls(size, step * ratio, keep=step, blend=latents - step)
        return encode, cls(latents, step, keep=step * ratio, blend=size - step * ratio)

    def starts(self, end: int, longest: int) -> range:
        """Where tiles start, before `end`; only at 0 if one holds the `longest` side."""
        return range(0, end if longest > self.tile else 1, self.stride)


def tiled_decode(vae: CausalVAE, latents: Float[Tensor, "B C T H W"], tile: TileSizes | None = None) -> Float[Tensor, "B C2 F H2 W2"]:
    """As `vae.decode`, in tiles of the model's own size or of `tile`. What fits into one tile is decoded whole."""
    return torch.cat(list(decode_pieces(vae, latents, tile)), dim=2)


def decode_pieces(
    vae: CausalVAE, latents: Float[Tensor, "B C T H W"], tile: TileSizes | None = None
) -> Iterator[Float[Tensor, "B C2 _ H2 W2"]]:
    """The frames of `tiled_decode`, as they get ready, after each row of tiles: `num_pieces` of them, with no frame but in each picture's
    last. Memory does not grow with the number of frames where each piece is used and let go."""
    (_, space), (_, time) = _axes(vae.config, tile)
    return _in_time(lambda x: _in_space(vae.decode, x, space), latents, time)


def num_pieces(config: VAEConfig, shape: tuple[int, ...], tile: TileSizes | None = None) -> int:
    """How many `decode_pieces` makes of latents of this shape."""
    (_, space), (_, time) = _axes(config, tile)
    return len(time.starts(shape[2] - 1, shape[2])) * len(space.starts(shape[3], max(shape[3:])))


def tiled_encode(vae: CausalVAE, x: Float[Tensor, "B C F H W"], tile: TileSizes | None = None) -> Posterior:
    """As `vae.encode`, in tiles of the model's own size or of `tile`. Tiles are blended before the variance is clamped."""
    check_pixels(vae.config, x)
    (space, _), (time, _) = _axes(vae.config, tile)
    return Posterior.from_moments(torch.cat(list(_in_time(lambda x: _in_space(vae.moments, x, space), x, time)), dim=2))


def _axes(config: VAEConfig, tile: TileSizes | None) -> tuple[tuple[_Axis, _Axis], tuple[_Axis, _Axis]]:
    tile = tile or TileSizes.of(config)
    space = _Axis.make(tile.pixels, tile.overlap, config.spatial_compression_ratio, "pixels")
    return space, _Axis.make(tile.frames, tile.overlap, config.time_compression_ratio, "frames")


def _in_time(apply: Callable[[Tensor], Generator[Tensor, None, Tensor]], x: Tensor, axis: _Axis) -> Iterator[Tensor]:
    """Apply to tiles along the frames, and give each one's share of the result."""
    if x.shape[2] <= axis.tile:
        yield (yield from apply(x))
        return
    end: Tensor | None = None  # what the next tile is blended with
    for start in range(0, x.shape[2] - 1, axis.stride):  # a tile of one frame would make only the one that is dropped
        piece = yield from apply(x[:, :, start : start + axis.tile + 1])
        if end is not None:
            piece = piece[:, :, 1:]
            _blend(end, piece, axis.blend, dim=2)
        end = piece[:, :, max(0, piece.shape[2] - axis.blend) :].clone()
        yield piece[:, :, : axis.keep + (start == 0)]
        del piece


def _in_space(apply: Callable[[Tensor], Tensor], x: Tensor, axis: _Axis) -> Generator[Tensor, None, Tensor]:
    """Apply to tiles of the picture, row by row, and give no frame after each but the last, and then return the result; of a finished row
    only what the next one is blended with stays in memory."""
    height, width = x.shape[3:]
    if max(height, width) <= axis.tile:
        return apply(x)
    out: Tensor | None = None
    above: list[Tensor] = []
    for row, top in enumerate(range(0, height, axis.stride)):
        if out is not None:
            yield out[:, :, :0]
        bottoms: list[Tensor] = []
        left: Tensor | None = None
        for column, start in enumerate(range(0, width, axis.stride)):
            piece = apply(x[..., top : top + axis.tile, start : start + axis.tile])
            if out is None:
                out = piece.new_empty(*piece.shape[:3], height * axis.keep // axis.stride, width * axis.keep // axis.stride)
            if above:
                _blend(above[column], piece, axis.blend, dim=3)
            if left is not None:
                _blend(left, piece, axis.blend, dim=4)
            kept = piece[..., : axis.keep, : axis.keep]
            y, z = row * axis.keep, column * axis.keep
            out[..., y : y + kept.shape[3], z : z + kept.shape[4]] = kept
            bottoms.append(piece[..., max(0, piece.shape[3] - axis.blend) :, :].clone())
            left = piece
        above = bottoms
    assert out is not None
    return out


def _blend(before: Tensor, after: Tensor, extent: int, dim: int) -> None:
    """Cross-fade the start of `after`, in place, from the end of `before`. The first value is all `before`, none is all `after`."""
    extent = min(before.shape[dim], after.shape[dim], extent)
    start, end = after.narrow(dim, 0, extent), before.narrow(dim, before.shape[dim] - extent, extent)
    share = torch.arange(extent, dtype=torch.float64) / max(1, extent)  # on the CPU: not every device has float64
    share = share.view([-1 if axis == dim else 1 for axis in range(after.ndim)])
    start.copy_(end * (1 - share).float().to(after.device) + start * share.float().to(after.device))
