"""Products by oneDNN are PyTorch's."""

from __future__ import annotations

import pytest
import torch

from hunyuan_video.cpu import multiplies_bfloat16
from hunyuan_video.kernels import onednn, pieces
from hunyuan_video.kernels.pieces import Dense

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")


def layer(dtype: torch.dtype, *, bias: bool) -> tuple[Dense, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    weight, offset, x = (torch.randn(shape, generator=draw).to(dtype) for shape in ((24, 16), (24,), (1, 7, 16)))
    return Dense(weight, offset if bias else None), x


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["linear", "linear_gelu"])
def test_a_product_in_float32_is_pytorchs(name, bias):
    dense, x = layer(torch.float32, bias=bias)
    torch.testing.assert_close(getattr(onednn, name)(dense, x), getattr(pieces, name)(dense, x))


def test_whether_onednn_multiplies_bfloat16_is_known():
    dense, x = layer(torch.bfloat16, bias=True)
    try:
        torch.ops.mkldnn._linear_pointwise(x, dense.weight, dense.bias, "none", [], "")
    except RuntimeError:
        assert not multiplies_bfloat16()
    else:
        assert multiplies_bfloat16()


@pytest.mark.skipif(not multiplies_bfloat16(), reason="oneDNN does not multiply bfloat16 on this CPU")
def test_gelu_in_bfloat16_is_of_the_sum_and_not_of_what_was_rounded():
    dense, x = layer(torch.bfloat16, bias=True)
    exact = pieces.linear_gelu(Dense(dense.weight.double(), None if dense.bias is None else dense.bias.double()), x.double())
    fused, apart = ((way(dense, x) - exact).norm() for way in (onednn.linear_gelu, pieces.linear_gelu))
    assert fused < apart


@pytest.mark.parametrize("name", ["linear", "linear_gelu"])
def test_bfloat16_is_left_to_pytorch_where_onednn_cannot_multiply_it(monkeypatch, name):
    monkeypatch.setattr(onednn, "multiplies_bfloat16", lambda: False)
    dense, x = layer(torch.bfloat16, bias=True)
    assert getattr(onednn, name)(dense, x).equal(getattr(pieces, name)(dense, x))


def test_layers_of_other_kinds_multiply_themselves():
    _, x = layer(torch.float32, bias=True)
    assert onednn.linear(lambda given: 2 * given, x).equal(2 * x)
    assert onednn.linear_gelu(lambda given: 2 * given, x).equal(pieces.linear_gelu(lambda given: 2 * given, x))
