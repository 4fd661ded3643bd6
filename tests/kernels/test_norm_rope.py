"""The native norm and rotation is PyTorch's, on each thread, in each layout; what it is not made for is PyTorch's own."""

from __future__ import annotations

import pytest
import torch

from hunyuan_video.kernels import pieces
from hunyuan_video.kernels.native import norm_rope
from hunyuan_video.kernels.native.build import NotBuiltError
from hunyuan_video.models.rope import Rope

DTYPES = (torch.float32, torch.bfloat16)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(autouse=True)
def native() -> pieces.Pieces:
    try:
        return norm_rope.load()
    except NotBuiltError as error:
        pytest.skip(str(error))


def drawn(dtype: torch.dtype, tokens: int, dim: int, heads: int = 3, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, Rope]:
    """A part of a projection, a weight and positions."""
    draw = torch.Generator().manual_seed(tokens + dim)
    x = torch.randn(batch, tokens, 3, heads, dim, generator=draw).to(dtype)[:, :, 1]
    return x, torch.randn(dim, generator=draw).to(dtype), Rope(*torch.randn(2, tokens, 1, dim // 2, generator=draw))


def computed(way: pieces.Pieces, x: torch.Tensor, weight: torch.Tensor, rope: Rope | None) -> torch.Tensor:
    """In the middle of a larger tensor, of which nothing else may change."""
    whole = torch.zeros(x.shape[0], x.shape[1] + 5, x.shape[2] + 2, x.shape[3], dtype=x.dtype)
    way.norm_rope(x, weight, rope, whole[:, 2:-3, 1:-1])
    return whole


@each_dtype
@pytest.mark.parametrize(("tokens", "dim"), [(1, 128), (37, 128), (16, 2), (33, 6), (5, 256), (0, 16)])
@pytest.mark.parametrize("rotated", [True, False])
def test_it_is_pytorchs_wherever_its_numbers_lie(native, dtype, tokens, dim, rotated):
    x, weight, rope = drawn(dtype, tokens, dim)
    given = (x, weight, rope if rotated else None)
    # In bfloat16 a last bit may be another where a sum in another order is rounded the other way.
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 2**-6, "rtol": 2**-7}
    torch.testing.assert_close(computed(native, *given), computed(pieces.Pieces(), *given), **tolerance)


def test_in_bfloat16_nearly_all_numbers_are_the_same_to_the_last_bit(native):
    given = drawn(torch.bfloat16, 500, 128)
    assert (computed(native, *given) != computed(pieces.Pieces(), *given)).float().mean() < 1e-4


@each_dtype
def test_not_a_number_stays_in_its_head(native, dtype):
    x, weight, rope = drawn(dtype, 20, 16)
    x[1, 7, 2, 5] = float("nan")
    out = computed(native, x, weight, rope)[:, 2:-3, 1:-1]
    assert out[1, 7, 2].isnan().all() and out.isnan().sum() == 16


@each_dtype
def test_threads_change_no_bit(native, dtype):
    given, before = drawn(dtype, 500, 64), torch.get_num_threads()
    one = computed(native, *given)
    try:
        torch.set_num_threads(3)
        assert torch.equal(computed(native, *given), one)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("change", [
    lambda x, weight: (x.double(), weight.double()),
    lambda x, weight: (x, weight.float()),
    lambda x, weight: (x.repeat(1, 1, 1, 3), weight.repeat(3)),
], ids=["another type", "another type of the weight", "wide heads"])  # fmt: skip
def test_what_it_is_not_made_for_is_pytorchs_own(native, change):
    x, weight, _ = drawn(torch.bfloat16, 4, 128)
    x, weight = change(x, weight)
    assert torch.equal(computed(native, x, weight, None), computed(pieces.Pieces(), x, weight, None))


def test_features_that_lie_apart_are_put_together(native):
    x, weight, rope = drawn(torch.float32, 9, 16)
    apart = x.transpose(1, 3).contiguous().transpose(1, 3)
    assert torch.equal(computed(native, apart, weight, rope), computed(native, x, weight, rope))


def test_a_rotation_of_other_tokens_is_refused_and_not_read(native):
    x, weight, _ = drawn(torch.float32, 9, 16)
    _, _, rope = drawn(torch.float32, 5, 16)
    with pytest.raises(RuntimeError, match="must match the size"):
        computed(native, x, weight, rope)


def test_a_gradient_is_refused_and_not_lost(native):
    x, weight, _ = drawn(torch.float32, 4, 16)
    with pytest.raises(ValueError, match="have no gradient"):
        native.norm_rope(x.requires_grad_(), weight, None, torch.empty_like(x))
