"""Convolutions: the same numbers, by the library that is fast."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hunyuan_video.kernels.convolution import conv3d


class Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
@torch.no_grad()
def test_a_small_convolution_is_pytorchs_but_for_rounding(dtype: torch.dtype, stride: tuple[int, int, int]):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 5, 7, 6, generator=generator).to(dtype)
    weight, bias = torch.randn(6, 4, 3, 3, 3, generator=generator).to(dtype), torch.randn(6, generator=generator).to(dtype)
    expected = F.conv3d(x.double(), weight.double(), bias.double(), stride)
    # Outputs reach 37: bfloat16 rounds that by 0.15, and 108 additions in float32 are off by 108 x 2^-24 x 37 = 2.4e-4 at the very worst.
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(conv3d(x, weight, bias, stride).double(), expected, atol=tolerance, rtol=0)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@torch.no_grad()
def test_a_small_float32_convolution_is_left_to_onednn():
    x, weight, bias = torch.randn(1, 4, 3, 5, 5), torch.randn(4, 4, 3, 3, 3), torch.randn(4)
    with Operators() as seen:
        conv3d(x, weight, bias)
    assert seen.names == ["mkldnn_convolution"]
