"""Decoding with a quarter fewer multiplications: upsampling convolutions, one phase at a time. Equal but for rounding.

After a nearest-neighbour enlargement a 3x3x3 convolution meets every value two or three times along each axis. Taps that meet the same
value are added once, beforehand: what is left is a 2x2x2 convolution of the small activation for each phase, that is, for each of the
even and odd frames, rows and columns of the result. 27 multiplications become 8, and nothing is ever enlarged.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video.kernels.convolution import conv3d
from hunyuan_video.models.vae import CausalVAE, Upsample


def fold(weight: Float[Tensor, "O I _ _ _"], dim: int, *, earlier: bool) -> Float[Tensor, "O I _ _ _"]:
    """Three taps along `dim` to two: of (a, b, c), those two that meet the same value are added.

    `earlier`: the first tap is the one that meets another value than the middle one.
    """
    a, b, c = weight.unbind(dim)
    return torch.stack([a, b + c] if earlier else [a + b, c], dim)


class PhaseUpsample(nn.Module):
    """An `Upsample` layer by phases. Time, when it grows, does so behind the first frame, which has only its second phase."""

    def __init__(self, layer: Upsample) -> None:
        super().__init__()
        conv = layer.conv.conv
        assert conv.bias is not None and layer.space == 2
        self.time, self.space, self.lookback, self.bias = layer.time, layer.space, layer.lookback, conv.bias
        # (frame, row, column) of a phase. In space a phase looks to its own side; in time only backwards.
        self.phases = list(product(range(self.time), range(2), range(2)))
        self.weights = nn.ParameterList()
        for frame, row, column in self.phases:
            weight = conv.weight.detach().float()
            if self.time == 2:
                weight = fold(weight, 2, earlier=frame == 1)
            weight = fold(fold(weight, 3, earlier=row == 0), 4, earlier=column == 0)
            weight = weight.to(conv.weight.dtype).contiguous(memory_format=torch.channels_last_3d)
            self.weights.append(nn.Parameter(weight, requires_grad=False))

    def forward(self, x: Float[Tensor, "B C T H W"], past: int = 0) -> Float[Tensor, "B C T2 H2 W2"]:
        """As `Upsample`: the first `past` frames (at most `lookback`) belong to an earlier piece."""
        batch, _, frames, height, width = x.shape
        window = F.pad(x, (1, 1, 1, 1, self.lookback - past, 0), mode="replicate")
        shape = (batch, len(self.bias), self.time * (frames - past), 2 * height, 2 * width)
        grown = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
        for (frame, row, column), weight in zip(self.phases, self.weights, strict=True):
            side = window[:, :, :, row : row + height + 1, column : column + width + 1]
            grown[:, :, frame :: self.time, row::2, column::2] = conv3d(side, weight, self.bias)
        return grown if past else grown[:, :, self.time - 1 :]


def upsample_by_phases(vae: CausalVAE) -> None:
    """Replace every upsampling layer of a finished VAE's decoder. For inference: the folded weights are no parameters of the checkpoint."""
    for name, module in list(vae.decoder.named_modules()):
        if isinstance(module, Upsample):
            vae.decoder.set_submodule(name, PhaseUpsample(module))
