"""Sequence parallelism on gloo: one video on any number of ranks equals one process, forward and backward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sequence_ranks import CASES, GRIDS, RANKS, work
from spawn import on_ranks

from hunyuan_video.distributed.sequence import check_degrees, head_pieces, merge, shares
from hunyuan_video.distributed.world import Degrees
from hunyuan_video.kernels.partial import attend_to_part
from hunyuan_video.models.attention import matmul, sdpa


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the ranks found, run once for all claims."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    return on_ranks(work, RANKS, folder)


@pytest.mark.parametrize("grid", GRIDS)
def test_output_equals_one_process(results: list[dict[str, Any]], grid: tuple[int, int]):
    found = [value for rank in results for name, value in rank.items() if name.endswith(f" {grid} out")]
    assert len(found) >= 2 * Degrees(*grid).ranks and max(found) < 1e-6


@pytest.mark.parametrize("grid", GRIDS)
def test_mean_gradient_equals_one_process(results: list[dict[str, Any]], grid: tuple[int, int]):
    found = [value for rank in results for name, value in rank.items() if name.endswith(f" {grid} gradient")]
    assert len(found) >= 2 * Degrees(*grid).ranks and max(found) < 1e-5


@pytest.mark.parametrize("grid", [(2, 1), (2, 2)])
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_call_equals_one_process(results: list[dict[str, Any]], case: str, grid: tuple[int, int]):
    ranks = results[: Degrees(*grid).ranks]
    assert max(found[f"{case} {grid} out"] for found in ranks) < 1e-6
    assert max(found[f"{case} {grid} gradient"] for found in ranks) < 1e-5


@pytest.mark.parametrize("grid", [(3, 1), (2, 2)])
def test_recomputed_blocks_see_the_sizes_of_their_own_call(results: list[dict[str, Any]], grid: tuple[int, int]):
    assert max(found[f"recomputed {grid}"] for found in results[: Degrees(*grid).ranks]) < 1e-5


def test_the_chosen_kernel_sees_all_tokens_of_its_heads_piece_by_piece(results: list[dict[str, Any]]):
    seen = [found["kernel"] for found in results[:2]]  # seven heads: four and three, in three pieces
    assert seen == [{(45 + 6, heads, (2, 1, 45 + 6)) for heads in (1, 2)}, {(45 + 6, 1, (2, 1, 45 + 6))}]


def test_image_and_text_tokens_and_clean_ones_are_shared(results: list[dict[str, Any]]):
    assert [found["tokens"] for found in results[:2]] == [{(23, 3, ((0, 15),))}, {(22, 3, ((7, 22),))}]


@pytest.mark.parametrize("grid", [(2, 1), (1, 5), (2, 2)])
def test_8_bits_on_the_wire_are_near_and_are_really_sent(results: list[dict[str, Any]], grid: tuple[int, int]):
    assert all(1e-5 < found[f"8 bits {grid}"] < 2e-2 for found in results[: Degrees(*grid).ranks])


def test_more_ranks_than_tokens_are_refused(results: list[dict[str, Any]]):
    assert results[3]["too few tokens"] == "4 ranks cannot share a video of 3 tokens, of which each needs one; use fewer, or more pixels."


def test_more_ulysses_ranks_than_heads_are_refused():
    with pytest.raises(ValueError, match="The Ulysses degree is 8, but the transformer has 7 attention heads"):
        check_degrees(Degrees(8, 1), 7)
    check_degrees(Degrees(7, 8), 7)


@pytest.mark.parametrize(("heads", "ranks"), [(24, 8), (24, 7), (24, 5), (7, 7), (2, 1), (5, 4)])
def test_pieces_hold_every_head_once_and_no_piece_is_empty(heads: int, ranks: int):
    pieces = head_pieces(heads, ranks)
    assert sorted(head for piece in pieces for mine in piece for head in mine) == list(range(heads))
    assert all(len(mine) > 0 for piece in pieces for mine in piece)
    assert [sum(len(piece[rank]) for piece in pieces) for rank in range(ranks)] == shares(heads, ranks)


@pytest.mark.parametrize("kernel", [sdpa, matmul])
def test_merged_parts_are_the_whole_also_where_scores_are_far_apart(kernel):
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 9, 2, 8, generator=draw) * 3
    k[:, 4:] *= 3
    parts = [attend_to_part(kernel, q, k[:, rows], v[:, rows], None) for rows in (slice(0, 4), slice(4, 9))]
    (out, lse), (part, part_lse) = parts
    torch.testing.assert_close(merge(out, lse, part, part_lse)[0], matmul(q, k, v, None), atol=2e-6, rtol=1e-5)
