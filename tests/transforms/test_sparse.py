"""Block-sparse attention: which boxes see which, and what stays exact."""

from __future__ import annotations

import logging

import pytest
import torch
from conftest import TINY
from measure import randomize
from torch import Tensor

from hunyuan_video.evaluation.computed import counting
from hunyuan_video.kernels.sparse import seen_pairs
from hunyuan_video.models.attention import sdpa
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.transforms.sparse import Video, boxes_order, mean_density, sparse_attention, sparse_between

GRID, TEXT = (9, 8, 8), 20  # nine boxes: the first frame, and two times two times two of four each way
LATENTS = (1, 4, 9, 16, 16)


def video(pattern: str, density: float = 0.4) -> Video:
    made = Video(GRID, density, pattern, lambda image, text: [(image, text)])  # pyright: ignore[reportArgumentType]
    made.is_sparse = True
    return made


def queries(seed: int = 0, tokens: int = 576 + TEXT) -> Tensor:
    return torch.randn(1, tokens, 2, 8, generator=torch.Generator().manual_seed(seed))


def test_a_stretch_of_64_tokens_is_a_box_of_4_each_way_and_the_first_frame_comes_first():
    boxes = boxes_order(GRID).view(9, 64)
    assert sorted(boxes.flatten().tolist()) == list(range(576))
    assert boxes[0].max() == 63
    for box in boxes[1:]:
        frames, rows, columns = (axis.unique() for axis in (box // 64, box % 64 // 8, box % 8))
        assert [len(frames), len(rows), len(columns)] == [4, 4, 4]


@pytest.mark.parametrize("pattern", ["tiles", "radial", "dynamic"])
def test_each_box_sees_as_many_as_asked_itself_among_them_and_text_all(pattern):
    made, q, k = video(pattern), queries(), queries(1)
    lists = made.lists(q, k)
    # 0.4 of ten blocks, of which the last has text
    assert lists.counts[:, :9].unique().tolist() == [4] and lists.counts[:, 9].unique().tolist() == [10]
    seen = [set(row[:4].tolist()) for row in lists.indices[0, :9]]
    assert all({block, 9} <= row and len(row) == 4 for block, row in enumerate(seen))
    assert seen_pairs(lists, 596) == pytest.approx((9 * 64 * (3 * 64 + 20) + 20 * 596) / 596**2)


def test_tiles_are_the_nearest_ones():
    made = video("tiles", 0.7)
    boxes = [box.min().item() // 64 for box in boxes_order(GRID).view(9, 64)]
    seen = made.lists(queries(), queries()).indices[0, 5, :7].tolist()  # of the later half
    assert {boxes[block] for block in seen if block < 9} == {5, 1} and sum(boxes[block] == 5 for block in seen if block < 9) == 4


def test_radial_sees_the_fewer_boxes_the_farther_in_time():
    grid = (33, 16, 16)
    lists = Video(grid, 0.3, "radial", lambda image, text: [(image, text)]).lists(
        *(torch.zeros(1, 33 * 256 + TEXT, 1, 4) for _ in range(2))
    )
    first, block = boxes_order(grid).view(-1, 128)[:, 0] // 256, 4  # of the first four frames after the first
    seen = [int(first[box]) // 8 for box in lists.indices[0, block, : lists.counts[0, block]].tolist() if box < len(first)]
    counts = [seen.count(time) for time in range(4)]
    assert counts == sorted(counts, reverse=True) and counts[0] > 2 * counts[2] > 0


def test_dynamic_finds_the_box_whose_keys_fit_in_each_head():
    q, k = torch.zeros(2, 1, 596, 2, 8)
    q[:, 64:128], k[:, 64 * 8 : 64 * 9, 0], k[:, 64 * 6 : 64 * 7, 1] = 1.0, 1.0, 1.0
    indices = video("dynamic", 0.3).lists(q, k).indices
    assert {1, 8, 9} == set(indices[0, 1, :3].tolist()) and {1, 6, 9} == set(indices[1, 1, :3].tolist())


@pytest.mark.parametrize("pattern", ["tiles", "dynamic"])
def test_tokens_in_the_order_of_ranks_give_the_same(pattern):
    q, k, v = (queries(seed) for seed in range(3))
    alone, shared = video(pattern), video(pattern)
    shared.parts = lambda image, text: [(image // 2 + 3, text // 2), (image // 2 - 3, text // 2)]
    places = torch.cat([torch.arange(291), 576 + torch.arange(10), 291 + torch.arange(285), 586 + torch.arange(10)])
    expected = alone.attend(sdpa, q, k, v, None)[:, places]
    assert torch.equal(shared.attend(sdpa, *(x[:, places] for x in (q, k, v)), None), expected)


@pytest.fixture(scope="module")
def model() -> HunyuanVideoTransformer:
    return randomize(HunyuanVideoTransformer(TINY), std=0.15)


@torch.no_grad()
def velocities(
    model: HunyuanVideoTransformer, sigmas: list[float], density: float | None, clean_frames: tuple[int, ...] = ()
) -> list[Tensor]:
    states, pooled = torch.ones(1, TEXT, TINY.text_dim), torch.ones(1, TINY.pooled_dim)
    condition = model.condition(states, torch.ones(1, TEXT, dtype=torch.bool), pooled, torch.full((1,), 4000.0))
    x = torch.randn(LATENTS, generator=torch.Generator().manual_seed(1))

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return model(x, torch.full((1,), 1000 * sigma), condition, clean_frames)

    if density is None:
        return [velocity(x, sigma) for sigma in sigmas]
    with sparse_attention(model, GRID, density, "tiles", (0.2, 0.8), clean_frames=clean_frames) as telling:
        return [telling(velocity)(x, sigma) for sigma in sigmas]


@pytest.mark.parametrize("clean_frames", [(), (0,), (0, 8), (3, 4)])
def test_with_all_pairs_it_is_the_model_itself(model, clean_frames):
    expected, found = (velocities(model, [0.5], density, clean_frames)[0] for density in (None, 1.0))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_only_steps_between_the_levels_are_sparse_and_nothing_stays_behind(model):
    levels = [0.9, 0.81, 0.8, 0.3, 0.2]
    expected, found = (velocities(model, levels, density) for density in (None, 0.3))
    apart = [((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True)]
    assert max(apart[0], apart[1], apart[4]) < 1e-5 < 1e-3 < min(apart[2], apart[3]), apart
    assert all(torch.equal(a, b) for a, b in zip(velocities(model, levels, None), expected, strict=True))


def test_the_first_block_stays_dense(model):
    with sparse_attention(model, GRID, 0.3, "tiles", (0.2, 0.8)):
        assert [block.attention is sdpa for block in model.blocks] == [True] + [False] * (len(model.blocks) - 1)


def test_what_was_computed_is_told(model, caplog):
    with caplog.at_level(logging.INFO):
        velocities(model, [0.5], 0.4)
    assert "Attention computed 37.7 % of its pairs" in caplog.text


def test_that_nothing_was_left_out_is_told(model, caplog):
    velocities(model, [0.9], 0.4)  # no sparse step
    assert "Attention left out nothing in steps of 576 image tokens, 64 to a block" in caplog.text


def test_what_was_computed_is_counted_where_it_is(model):
    with counting(model) as computed:
        velocities(model, [0.9, 0.5], 0.4)  # the second of two steps is sparse, in two of three blocks
    sparse = (9 * 64 * (3 * 64 + 20) + 20 * 596) / 596**2
    assert computed.density == pytest.approx((4 + 2 * sparse) / 6) and computed.passes == pytest.approx(2)


def test_frames_that_are_given_stand_together_before_the_first_one():
    frames = boxes_order(GRID, (8, 3)) // 64
    assert frames[:128].unique().tolist() == [3, 8] and frames[128:192].unique().tolist() == [0]


def test_the_first_fifth_of_the_steps_and_the_last_one_are_dense():
    low, high = sparse_between([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    assert [low < sigma <= high for sigma in (1.0, 0.9, 0.8, 0.2, 0.1)] == [False, False, True, True, False]
    assert mean_density(0.3, 10, 60) == pytest.approx(1 - 7 / 10 * 59 / 60 * 0.7)
    assert mean_density(1.0, 10, 60) == mean_density(0.1, 1, 60) == 1


def test_large_videos_have_lists_that_many_queries_share():
    made = Video((9, 32, 32), 0.3, "tiles", lambda image, text: [(image, text)])
    lists = made.lists(*(torch.zeros(1, 9 * 1024 + TEXT, 1, 4) for _ in range(2)))
    assert (lists.query_block, lists.indices.shape[1]) == (128, 73)
    assert all(torch.equal(lists.indices[0, block], lists.indices[0, 8]) for block in range(8, 16))
