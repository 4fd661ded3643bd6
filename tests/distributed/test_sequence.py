"""Sequence parallelism on gloo: one video on 2 and 4 ranks equals one process, forward and backward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from conftest import TINY
from sequence_ranks import CASES, work
from spawn import on_ranks

from hunyuan_video.distributed.sequence import parallelize_sequence
from hunyuan_video.models.transformer import HunyuanVideoTransformer


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What four ranks found, run once for all claims."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    return on_ranks(work, 4, folder)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_output_equals_one_process(results: list[dict[str, Any]], case: str, ranks: int):
    assert max(found[f"{case} {ranks} out"] for found in results) < 1e-6


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_mean_gradient_equals_one_process(results: list[dict[str, Any]], case: str, ranks: int):
    assert max(found[f"{case} {ranks} gradient"] for found in results) < 1e-5


@pytest.mark.parametrize("ranks", [2, 4])
def test_recomputed_blocks_see_the_sizes_of_their_own_call(results: list[dict[str, Any]], ranks: int):
    assert max(found[f"recomputed {ranks}"] for found in results) < 1e-5


def test_the_chosen_kernel_sees_all_tokens_of_its_heads(results: list[dict[str, Any]]):
    assert all(found["kernel"] == {(45 + 6, 1, (2, 1, 45 + 6))} for found in results)


def test_tokens_and_clean_ones_are_shared(results: list[dict[str, Any]]):
    assert [found["tokens"] for found in results] == [{(12, 12)}, {(11, 11)}, {(11, 7)}, {(11, 0)}]


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="2 attention heads cannot be shared by 3 ranks; use 1, 2 ranks"):
        parallelize_sequence(HunyuanVideoTransformer(TINY), dist.ProcessGroup(0, 3))
