"""Progressive resolution: the first steps on a smaller grid, which has fewer tokens, then all of it. Plain functions and a schedule.

While there is much noise, nothing of a video's details can be seen in it yet, only what is large. So a step then computes the large alone:
the lowest frequencies of the latents, by the orthonormal DCT-II along each axis. Of white noise these are white noise again, of the same
power, whatever the size. Data, which is mostly low frequencies, grows: a constant is `gain` = sqrt(values / values of the smaller grid)
times as large in them. So on the smaller grid data stands out more, and the noise level that a model is told is lower, and all is scaled:

    x       = (1 - sigma) * data + sigma * noise                                     of a full-size video
    cut(x)  = (1 - sigma) * gain * (cut(data) / gain) + sigma * cut(noise)           its lowest frequencies
    scale * cut(x), which is such a mixture at told = sigma / (sigma + gain * (1 - sigma)), where scale = told / sigma

Where the video moves up to a larger grid, the frequencies that come in are what they would be if they had been there from the start: the
video's own noise, which its seed gives, at that noise level. What data they have is still under the noise then, or should be: moving up
late is faster, and loses details.

Letters: B batch, C channels, T H W latent frames, height, width, t h w of a smaller grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.config import Runtime
from hunyuan_video.models.rope import Rope, frequencies_of
from hunyuan_video.models.transformer import HunyuanVideoTransformer

Shape = tuple[int, ...]  # of latents, [B, C, T, H, W]
# Details in space stand out of the noise sooner than those in time, and are missed more: what is done for these down to one ratio of noise
# to data is done for those down to so many times the ratio. By the power alone of what comes in, in latents of the embedded model's clips
# (0.34 and 0.04 of a value's), it would be 3.
SPACE_SOONER = 6


@dataclass(frozen=True)
class Stage:
    """Steps `start` up to `stop` of a video, on latents of a shape; `gain` is by how much data grows in them."""

    shape: Shape
    gain: float
    start: int
    stop: int

    @classmethod
    def whole(cls, shape: Shape, stop: int = 0, start: int = 0) -> Stage:
        """Of full-size latents."""
        return cls(shape, 1.0, start, stop)

    def told(self, sigma: float) -> float:
        """The noise level of these latents, where the full-size video's is `sigma`."""
        return sigma if self.gain == 1 else sigma * self.scale(sigma)  # the same to the last bit, where nothing is smaller

    def scale(self, sigma: float) -> float:
        """What its lowest frequencies are multiplied by to be latents at that level."""
        return 1 / (sigma + self.gain * (1 - sigma))


def stages(full: Shape, sigmas: Sequence[float], runtime: Runtime, patch_size: tuple[int, int, int]) -> list[Stage]:
    """The stages of a video of a `full` shape, in their order: smaller grids for the steps that begin above a noise level, if there are
    any, and the whole one for the others, at least one."""
    in_time, kind, steps = runtime.progressive_until or 1.0, runtime.progressive or "off", len(sigmas) - 1
    in_space = SPACE_SOONER * in_time / (SPACE_SOONER * in_time + 1 - in_time)
    space, time = "space" in kind, "time" in kind
    plans = [(smaller(full, patch_size, space=space, time=time), in_space)] if space else []
    plans += [(smaller(full, patch_size, time=True), in_time)] if time else []
    found, start = [], 0
    for shape, until in plans:
        stop = min(sum(sigma > until for sigma in sigmas), steps - 1)
        if stop > start and shape != full:
            found.append(Stage(shape, math.sqrt(math.prod(full) / math.prod(shape)), start, stop))
            start = stop
    return [*found, Stage.whole(full, steps, start)]


def rest(stages: Sequence[Stage], done: int) -> list[Stage]:
    """The stages that are not over when so many steps are done; the last one always."""
    return [stage for stage in stages if done < stage.stop] or list(stages[-1:])


def smaller(full: Shape, patch_size: tuple[int, int, int], *, space: bool = False, time: bool = False) -> Shape:
    """Half the height and width, rounded up to whole patches; or half the frames, as a video of half as many has: 1 and half of those after
    the first."""
    batch, channels, frames, *sides = full
    if space:
        sides = [-(-side // (2 * patch)) * patch for side, patch in zip(sides, patch_size[1:], strict=True)]
    return batch, channels, 1 + frames // 2 if time else frames, *sides


@lru_cache(16)
def cosines(size: int) -> Float[Tensor, "size size"]:
    """The orthonormal DCT-II: row k is the frequency k."""
    places = torch.arange(size, dtype=torch.float64)
    table = torch.cos(math.pi / size * (places + 0.5) * places[:, None]) * math.sqrt(2 / size)
    table[0] /= math.sqrt(2)
    return table


@lru_cache(16)
def _lowest(size: int, small: int) -> Float[Tensor, "small size"]:
    """Values to those of their lowest frequencies on a smaller grid: orthonormal rows, so that the transpose is the way back."""
    return (cosines(small).T @ cosines(size)[:small]).float()


def cut(x: Float[Tensor, "B C T H W"], shape: Shape) -> Float[Tensor, "B C t h w"]:
    """The lowest frequencies of latents, on a grid as large as that of `shape`."""
    for axis in (2, 3, 4):
        if shape[axis] != x.shape[axis]:
            x = (x.movedim(axis, -1) @ _lowest(x.shape[axis], shape[axis]).to(x).T).movedim(-1, axis)
    return x.contiguous()


def spread(x: Float[Tensor, "B C t h w"], shape: Shape) -> Float[Tensor, "B C T H W"]:
    """The latents of a larger grid that have these frequencies and no others: what `cut` gives back."""
    for axis in (2, 3, 4):
        if shape[axis] != x.shape[axis]:
            x = (x.movedim(axis, -1) @ _lowest(shape[axis], x.shape[axis]).to(x)).movedim(-1, axis)
    return x.contiguous()


def move_up(
    x: Float[Tensor, "B C t h w"], here: Stage, there: Stage, sigma: float, noise: Float[Tensor, "B C T H W"]
) -> Float[Tensor, "B C T2 H2 W2"]:
    """Latents of one stage as those of the next, larger one at the same noise level (of the full-size video); what they lack is of the
    video's full-size `noise`."""
    own = cut(noise, there.shape)
    fresh = own - spread(cut(own, here.shape), there.shape)
    return there.scale(sigma) * (spread(x / here.scale(sigma), there.shape) + sigma * fresh)


def clean(frames: Float[Tensor, "B C f H W"], stage: Stage) -> Float[Tensor, "B C f h w"]:
    """Frames that are given without noise, as latents of a stage, which has as many frames as the full-size video."""
    return cut(frames, (*frames.shape[:3], *stage.shape[3:])) / stage.gain


def full_size(data: Float[Tensor, "B C t h w"], stage: Stage, full: Shape) -> Float[Tensor, "B C T H W"]:
    """Data of a stage as far as it is known at full size."""
    return data if tuple(data.shape) == full else spread(data * stage.gain, full)


def rope(model: HunyuanVideoTransformer, shape: Shape, full: Shape, device: torch.device, time: Tensor | None = None) -> Rope:
    """Position tables of a grid whose tokens stand where they stand in the full one: on a smaller one at fractional positions, each in the
    middle of the tokens that it is in place of. `time` are other frequencies than the model's along that axis."""
    if shape == full and time is None:
        return model.rope(full, device)
    small, whole = model.config.grid(shape), model.config.grid(full)
    tables: list[list[Tensor]] = [[], []]
    for axis, dim in enumerate(model.config.rope_dims):
        frequencies = frequencies_of(dim, model.config.rope_theta) if axis or time is None else time
        places = (torch.arange(small[axis], dtype=torch.float32) + 0.5) * (whole[axis] / small[axis]) - 0.5
        angle = torch.outer(places, frequencies)
        view = [1, 1, 1, -1]
        view[axis] = small[axis]
        for table, turn in zip(tables, (angle.cos(), angle.sin()), strict=True):  # on the CPU, as models/rope.py has them
            table.append(turn.to(device).view(view).expand(*small, -1))
    return Rope(*(rearrange(torch.cat(table, dim=-1), "T H W half -> (T H W) 1 half") for table in tables))
