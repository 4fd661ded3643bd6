"""The Fréchet distance between two sets of clips, by features of a network that has learnt nothing: called random-feature Fréchet, and
never FVD, whose features are learnt. It tells sets apart that differ much; only distances of this file are comparable with each other.

Letters: C features, T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

Frames = UInt8[np.ndarray, "T H W 3"]
SIDE, TIME, WIDTH, SEED = 32, 16, 64, 0  # pixels, frames and features that it sees a clip by
FEWEST = 2


def distance(
    mean: Float[Tensor, " C"], covariance: Float[Tensor, "C C"], mean_2: Float[Tensor, " C"], covariance_2: Float[Tensor, "C C"]
) -> float:
    """Squared, between two normal distributions (Dowson and Landau, 1982), in float64."""
    root = _root(covariance.double())
    both = _root(root @ covariance_2.double() @ root)
    apart = (mean.double() - mean_2.double()).square().sum()
    found = apart + covariance.double().trace() + covariance_2.double().trace() - 2 * both.trace()
    return float(found.clamp(min=0))  # rounding may leave less than nothing


def random_feature_frechet(clips: Iterable[Frames], others: Iterable[Frames]) -> float:
    """Between two sets of clips, of each of which two or more. Raises a ValueError for fewer. One clip at a time is held."""
    return distance(*_moments(clips), *_moments(others))


@torch.no_grad()
def features(frames: Frames) -> Float[Tensor, " C"]:
    """Mean and deviation over a clip of what three random convolutions in space and time see, at a size and length that all clips get."""
    each = (rearrange(torch.from_numpy(np.ascontiguousarray(frame)), "H W C -> 1 C H W").double() / 127.5 - 1 for frame in frames)
    small = torch.cat([F.interpolate(frame, (SIDE, SIDE), mode="bilinear") for frame in each])  # one by one: a large clip is gigabytes
    x = F.interpolate(rearrange(small, "T C H W -> 1 C T H W"), (TIME, SIDE, SIDE), mode="trilinear")
    generator = torch.Generator().manual_seed(SEED)
    for width, wider in ((3, 16), (16, 32), (32, WIDTH)):
        weight = torch.randn(wider, width, 3, 3, 3, generator=generator, dtype=torch.float64) * (2 / (27 * width)) ** 0.5
        x = F.leaky_relu(F.conv3d(x, weight, stride=(1, 2, 2), padding=1), 0.2)
    x = rearrange(x, "1 C T H W -> C (T H W)")
    return torch.cat([x.mean(dim=1), x.std(dim=1)])


def _moments(clips: Iterable[Frames]) -> tuple[Float[Tensor, " C"], Float[Tensor, "C C"]]:
    each = list(map(features, clips))  # a variable of a loop would keep a clip while the next one is read
    if len(each) < FEWEST:
        raise ValueError(f"A set has {len(each)} clips, and a distribution needs {FEWEST} or more.")
    x = torch.stack(each)
    centred = x - x.mean(dim=0)
    return x.mean(dim=0), centred.T @ centred / (len(x) - 1)


def _root(matrix: Float[Tensor, "C C"]) -> Float[Tensor, "C C"]:
    """Of a symmetric matrix without negative eigenvalues. What rounding makes of a zero is one again: its root would be large."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    values = torch.where(values > values[-1] * len(values) * torch.finfo(values.dtype).eps, values, 0.0)
    return vectors @ torch.diag(values.sqrt()) @ vectors.T
