"""Working in chunks gives what working in one piece gives, in less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import randomize
from measure import deviation
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hunyuan_video.cpu import multiplies_bfloat16
from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.vae import CausalConv3d, CausalVAE
from hunyuan_video.transforms import chunk
from hunyuan_video.transforms.chunk import in_chunks
from hunyuan_video.transforms.phase_upsample import upsample_by_phases

SIZES = [1, 500, 2**22]  # of a chunk: one frame; some frames, and never as many as the next layer's; everything
CLIPS = [(1, 1, 3, 2), (1, 2, 1, 1), (2, 4, 3, 5), (1, 5, 2, 3)]  # batch, frames, height and width of latents


@pytest.fixture(params=SIZES)
def chunk_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(chunk.CHUNK_SIZE, "cpu", request.param)
    return request.param


@pytest.fixture
def one_frame_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chunk.CHUNK_SIZE, "cpu", 1)


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def chunked(vae: CausalVAE) -> CausalVAE:
    vae = copy.deepcopy(vae)
    in_chunks(vae)
    return vae


def pixels_of(batch: int, frames: int, height: int, width: int) -> Tensor:
    return random(batch, 3, 4 * frames - 3, 8 * height, 8 * width)


# --- The whole ---


@pytest.mark.parametrize("clip", CLIPS)
@torch.no_grad()
def test_decoding_in_chunks_equals_decoding_whole(vae: CausalVAE, chunk_size: int, clip: tuple[int, int, int, int]):
    batch, *size = clip
    latents = random(batch, 4, *size)
    torch.testing.assert_close(chunked(vae).decode(latents), vae.decode(latents), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("clip", CLIPS)
@torch.no_grad()
def test_encoding_in_chunks_equals_encoding_whole(vae: CausalVAE, chunk_size: int, clip: tuple[int, int, int, int]):
    x = pixels_of(*clip)
    torch.testing.assert_close(chunked(vae).moments(x), vae.moments(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_bfloat16_in_chunks_is_as_near_to_float32_as_whole(vae: CausalVAE, chunk_size: int):
    latents, x = random(1, 4, 4, 3, 5), pixels_of(1, 4, 3, 5)
    expected, half = (vae.decode(latents), vae.moments(x)), copy.deepcopy(vae).bfloat16()

    def errors(vae: CausalVAE) -> tuple[float, float]:
        return deviation(vae.decode(latents.bfloat16()), expected[0]), deviation(vae.moments(x.bfloat16()), expected[1])

    for actual, whole in zip(errors(chunked(half)), errors(half), strict=True):
        assert actual < 1.2 * whole


@pytest.mark.parametrize("case", ["dec0", "dec1"])
@torch.no_grad()
def test_decoding_in_chunks_matches_the_reference(golden, reference: CausalVAE, one_frame_a_chunk: None, case: str):
    golden("vae").check(chunked(reference).decode(golden("vae")[f"in.{case}"]), f"out.{case}")


@pytest.mark.parametrize("case", ["enc0", "enc1"])
@torch.no_grad()
def test_encoding_in_chunks_matches_the_reference(golden, reference: CausalVAE, one_frame_a_chunk: None, case: str):
    golden("vae").check(chunked(reference).encode(golden("vae")[f"in.{case}"]).mean, f"out.{case}_mean")


def test_gradients_do_not_depend_on_chunks(vae: CausalVAE, one_frame_a_chunk: None):
    x, gradients = random(1, 3, 5, 16, 16), []
    for model in (vae, chunked(vae)):
        weight = model.requires_grad_(True).encoder.conv_in.conv.weight
        gradients += torch.autograd.grad(model.decode(model.encode(x).mean).square().mean(), weight)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_what_is_given_stays_as_it_was(vae: CausalVAE, chunk_size: int):
    latents = random(1, 4, 2, 3, 2).contiguous(memory_format=torch.channels_last_3d)
    given = latents.clone()
    chunked(vae).decode(latents)
    assert torch.equal(latents, given)


def test_a_copy_runs_with_its_own_weights(vae: CausalVAE):
    in_chunks(vae)
    changed = copy.deepcopy(vae)
    changed.decoder.conv_out.conv.bias.data += 1
    latents = random(1, 4, 1, 2, 2)
    torch.testing.assert_close(changed.decode(latents), vae.decode(latents) + 1)


# --- Beside phases ---


@pytest.mark.parametrize("frames", [1, 2, 5])
@torch.no_grad()
def test_phases_in_chunks_equal_the_plain_decoder(vae: CausalVAE, chunk_size: int, frames: int):
    latents = random(2, 4, frames, 3, 5)
    expected = vae.decode(latents)
    upsample_by_phases(vae)
    torch.testing.assert_close(chunked(vae).decode(latents), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_chunks_and_phases_may_be_applied_in_either_order(vae: CausalVAE, dtype: torch.dtype):
    one, other = copy.deepcopy(vae.to(dtype)), vae
    for transforms, model in (((in_chunks, upsample_by_phases), one), ((upsample_by_phases, in_chunks), other)):
        for transform in transforms:
            transform(model)
    latents = random(1, 4, 3, 3, 5).to(dtype)
    assert torch.equal(one.decode(latents), other.decode(latents))


# --- What it is for ---


@pytest.mark.parametrize("part", ["encode", "decode"])
@torch.no_grad()
def test_chunks_take_less_memory(vae: CausalVAE, one_frame_a_chunk: None, part: str):
    def most(vae: CausalVAE) -> int:
        given = pixels_of(1, 9, 3, 5) if part == "encode" else random(1, 4, 9, 3, 5)
        with LiveBytes(vae) as seen:
            vae.moments(given) if part == "encode" else vae.decode(given)
        return seen.most

    assert most(chunked(vae)) < 0.65 * most(vae)


@pytest.mark.slow
@torch.no_grad()
def test_the_largest_tile_of_the_released_model_takes_less_than_two_and_a_half_gib():
    with torch.device("meta"):
        vae, latents = CausalVAE().half(), torch.empty(1, 16, 17, 32, 32, dtype=torch.float16)
    upsample_by_phases(vae)
    in_chunks(vae)
    with LiveBytes(vae) as seen:
        vae.decoder(latents)
    assert seen.most < 2.5 * 2**30


@pytest.mark.parametrize(("dtype", "layout"), [(torch.float32, torch.contiguous_format), (torch.float16, torch.channels_last_3d)])
def test_weights_are_laid_out_for_their_kernels(vae: CausalVAE, dtype: torch.dtype, layout: torch.memory_format):
    in_chunks(vae.to(dtype))
    assert all(conv.weight.is_contiguous(memory_format=layout) for conv in vae.modules() if isinstance(conv, nn.Conv3d))


@pytest.mark.skipif(not multiplies_bfloat16(), reason="PyTorch's own convolutions, for a CPU without bfloat16, know one layout")
@torch.no_grad()
def test_half_precision_keeps_the_layout_of_its_weights(vae: CausalVAE, chunk_size: int):
    in_order: list[bool] = []

    class Windows(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.replication_pad3d.default:
                in_order.append(result.is_contiguous(memory_format=torch.channels_last_3d))
            return result

    upsample_by_phases(vae.bfloat16())
    in_chunks(vae)
    with Windows():
        vae.decode(vae.moments(pixels_of(1, 5, 3, 5).bfloat16())[:, :4])
    assert in_order and all(in_order)


# --- The pieces ---


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("sizes", [[1] * 9, [4, 5], [2, 3, 3, 1]])
def test_convolution_in_chunks_equals_whole(stride: tuple[int, int], sizes: list[int]):
    conv, x = CausalConv3d(4, 6, stride=stride), random(2, 4, 9, 6, 6)
    torch.testing.assert_close(torch.cat(list(chunk.convolve(conv, x.split(sizes, dim=2))), dim=2), conv(x))


@torch.no_grad()
def test_group_norm_in_chunks_equals_whole():
    norm = randomize(nn.GroupNorm(2, 6))
    x = 3 * random(2, 6, 7, 4, 4) + 5
    torch.testing.assert_close(torch.cat(list(chunk.normalize(norm, list(x.split(3, dim=2)))), dim=2), norm(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_statistics_are_right_where_the_mean_is_200_deviations():
    norm, generator = nn.GroupNorm(4, 8), torch.Generator().manual_seed(0)
    x = 200 + torch.randn(2, 8, 7, 32, 32, generator=generator)
    mean, variance = chunk.statistics(norm, list(x.split([3, 1, 3], dim=2)))
    groups = x.double().unflatten(1, (4, 2)).flatten(2)
    for found, right in ((mean, groups.mean(2)), (variance, groups.var(2, correction=0))):
        torch.testing.assert_close(found.double(), right.repeat_interleave(2, dim=1), rtol=1e-6, atol=0)


def test_group_norm_of_bfloat16_chunks_keeps_float32_statistics():
    norm = nn.GroupNorm(1, 4).bfloat16()
    x = (random(1, 4, 8, 32, 32) + 3).bfloat16()
    expected = nn.functional.group_norm(x.float(), 1)
    actual = torch.cat(list(chunk.normalize(norm, list(x.split(1, dim=2)))), dim=2)
    assert (actual.float().mean() - expected.mean()).abs() < 1e-3
    torch.testing.assert_close(actual.float(), expected, atol=0.02, rtol=0.01)
