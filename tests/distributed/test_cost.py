"""What cost.py says beside what four gloo ranks really do, and beside what others published."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import parallel
import pytest
import torch
from conftest import TINY
from forked import server
from measure import randomize
from torch.utils.flop_counter import FlopCounterMode

from hunyuan_video.config import Runtime
from hunyuan_video.distributed.cost import (
    CARDS,
    EVEN,
    H100,
    H100_PCIE,
    H200,
    RTX_4090,
    SGLANG,
    XDIT,
    XDIT_H100,
    Step,
    all_degrees,
    best_degrees,
    degrees_of,
    largest_load,
    step_seconds,
    tiles,
    video_seconds,
    why,
)
from hunyuan_video.distributed.world import Degrees
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.models.attention import matmul
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig

LATENTS = (5, 26, 34)
LATENTS_720P = (33, 90, 160)
OFFICIAL = Step(33 * 45 * 80)
# Of sample_video_parallel.py's table: height and width in patches of 16 pixels, the other way round as well.
OFFICIAL_SIZES = [(45, 80), (80, 45), (60, 60), (34, 60), (60, 34), (39, 52), (52, 39), (45, 45), (47, 73), (73, 47)]


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, dict[str, Any]]]:
    """Seven heads and 1,105 tokens, neither of which four ranks divide, and enough that they, and not the text, fill the memory."""
    server()  # which has imported more
    return parallel.on_gloo(parallel.small(7), LATENTS, 4, torch.bfloat16)


def rows(ranks: list[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    found = [row for rank in ranks for row in rank.values()]
    assert len(found) == 4 * 3 * 2  # ranks, pairs of degrees, wires
    return found


def test_ranks_send_the_bytes_of_the_formula(ranks):
    for row in rows(ranks):
        sent, formula = row["sent"], row["formula"]
        assert sent.get("send", 0) == formula["ring"]
        assert sent.get("alltoall_base_", 0) == formula["there"] + formula["back"] + formula["velocity"]


def test_ranks_compute_the_operations_of_the_formula(ranks):
    assert [row["operations"] for row in rows(ranks)] == [row["counted"] for row in rows(ranks)]


def test_no_hidden_states_are_gathered(ranks):
    assert {tuple(row["gathered"]) for row in rows(ranks)} == {(64,)}  # of 112


def test_a_step_takes_the_memory_that_is_planned(ranks):
    planned = {name: row["planned"] for name, row in ranks[0].items()}
    assert {name: row["memory"] for name, row in ranks[0].items()} == pytest.approx(planned, rel=1e-3)


def test_the_table_shows_both(ranks):
    lines = parallel.table(ranks, parallel.small(7), LATENTS, "h100-nvlink").splitlines()
    sent, formula = zip(*(line.split(" | ")[2:4] for line in lines[2:]), strict=True)
    assert len(lines) == 2 + 6 and sent == formula


def test_operations_of_one_rank_are_those_of_pytorch():
    model = randomize(HunyuanVideoTransformer(TINY))
    use_attention(model, matmul)
    condition = model.condition(torch.ones(1, 5, 24), torch.ones(1, 5, dtype=torch.bool), torch.ones(1, 20), torch.ones(1))
    with FlopCounterMode(display=False) as counted:
        model(torch.ones(1, 4, 3, 4, 6), torch.ones(1), condition)
    assert counted.get_total_flops() == Step(3 * 2 * 3, 5, config=TINY).work(0).total


def test_the_released_model_takes_12_petaflop_a_step_at_720p():
    assert OFFICIAL.work(0).total == pytest.approx(12.0686e15, rel=1e-5)


@pytest.mark.parametrize("ranks", range(2, 9))
@pytest.mark.parametrize("patches", OFFICIAL_SIZES)
def test_no_rank_does_more_than_its_share_at_official_sizes(patches, ranks):
    tokens = 33 * math.prod(patches)
    assert Step(tokens, degrees=best_degrees(ranks, 24, tokens)).unevenness < EVEN


@pytest.mark.parametrize(("ranks", "seconds"), [(1, 1904.08), (2, 934.09), (4, 514.08), (8, 337.58)])
def test_official_times_are_within_a_tenth(ranks, seconds):
    """docs/performance/hunyuanvideo.md of xDiT: 129 x 720 x 1280, 50 steps, H100. Two of XDIT's numbers are fitted to these four."""
    step = replace(OFFICIAL, degrees=Degrees(ranks))
    assert video_seconds(step, LATENTS_720P, 50, XDIT_H100, XDIT) == pytest.approx(seconds, rel=0.1)


def test_a_step_of_sglang_on_four_cards_is_its_own():
    """PR 28319: 583 ms for 61 x 544 x 960 on four H100. H100's efficiency is fitted to this one."""
    assert step_seconds(Step(16 * 34 * 60, degrees=Degrees(4)), H100, overlaps=False).total == pytest.approx(0.583, rel=0.01)


def test_other_published_times_are_predicted_within_a_tenth():
    """PR 36012 of SGLang: 30 steps of 77 x 480 x 848 in 17.7 s on four H200. FastVideo (arXiv 2502.04507): 117 x 768 x 1280, 50 steps, in
    945 s with FlashAttention 3 on an H100."""
    assert 30 * step_seconds(Step(20 * 30 * 53, degrees=Degrees(4)), H200, overlaps=False).total == pytest.approx(17.7, rel=0.1)
    assert video_seconds(Step(30 * 48 * 80), (30, 96, 160), 50, H100, SGLANG) == pytest.approx(945, rel=0.1)


def test_the_fullest_ranks_tiles_are_most_of_what_decoding_on_four_cards_took():
    """The same PR: 5.71 s on one, 1.65 s on four; what handing out and collecting tiles takes is not in the arithmetic."""
    sizes = tiles((20, 60, 106))
    assert 0.85 * 1.65 < 5.71 * largest_load(sizes, 4) / sum(sizes) < 1.65


def test_eight_cards_are_predicted_to_be_seven_and_a_half_times_as_fast_as_one():
    one, eight = (video_seconds(replace(OFFICIAL, degrees=Degrees(ranks)), LATENTS_720P, 50, H100) for ranks in (1, 8))
    assert one / eight > 7.5


def test_a_short_rings_hops_cost_what_diffusers_measured():
    """Its FLUX on four H100 (docs/source/en/training/distributed_inference.md): 133 ms a step, in a ring 262."""
    flux = replace(OFFICIAL, image=4096, text=512, config=replace(OFFICIAL.config, num_double_blocks=19, num_single_blocks=38))
    ulysses, ring = (step_seconds(replace(flux, degrees=degrees), H100, overlaps=False).total for degrees in (Degrees(4), Degrees(1, 4)))
    assert ring - ulysses == pytest.approx(0.262 - 0.133, rel=0.15)


@pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))
def test_ulysses_comes_first_where_ranks_divide_heads(card):
    assert [best_degrees(ranks, 24, OFFICIAL.image, card) for ranks in (2, 3, 4, 6, 8)] == [Degrees(ranks) for ranks in (2, 3, 4, 6, 8)]


def test_a_ring_takes_what_does_not_divide_unless_the_video_is_short():
    assert best_degrees(7, 24, OFFICIAL.image) == Degrees(1, 7)
    assert best_degrees(7, 24, 320) == Degrees(7, 1)


def test_ulysses_ranks_without_heads_go_into_the_ring():
    four = TransformerConfig(hidden_size=64, num_heads=4, rope_dims=(4, 6, 6))
    assert degrees_of(Runtime(ulysses_degree=8, ring_degree=1), 8, 1, four, 100) == Degrees(4, 2)
    assert degrees_of(Runtime(ulysses_degree=7), 7, 1, four, 100) == Degrees(1, 7)
    assert degrees_of(Runtime(ulysses_degree=3), 3, 1, four, 100) == Degrees(3, 1)


@pytest.mark.parametrize(("given", "needed"), [({}, 8), ({"pipefusion_stages": 8}, 32)])
def test_fewer_tokens_than_parts_are_refused(given, needed):
    with pytest.raises(ValueError, match=f"A video of 7 tokens cannot be shared in {needed} parts"):
        degrees_of(Runtime(**given), 8, 1, OFFICIAL.config, 7)


def test_a_degree_that_was_not_given_counts_as_one_where_none_fits():
    with pytest.raises(ValueError, match="The Ulysses degree 3 and the ring degree 1 are for 3 ranks, but there are 2"):
        degrees_of(Runtime(ulysses_degree=3), 2, 1, OFFICIAL.config, OFFICIAL.image)


@pytest.mark.parametrize(("given", "ranks", "sentence"), [
    ({"pipefusion_patches": 4}, 2, "pipefusion_stages is 1, but of 2 ranks 2 share one pass"),
    ({"pipefusion_stages": 2, "ulysses_degree": 2}, 4, "need every token's keys on one rank"),
])  # fmt: skip
def test_stages_that_are_not_for_the_ranks_are_refused_with_what_would_be(given, ranks, sentence):
    with pytest.raises(ValueError, match=sentence):
        degrees_of(Runtime(**given), ranks, 1, OFFICIAL.config, OFFICIAL.image)


@pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))
def test_ulysses_is_first_in_a_machine_also_for_short_videos(card):
    assert best_degrees(2, 24, 16 * 34 * 60, card) == Degrees(2)


def test_more_ranks_than_a_machine_has_form_a_ring_of_machines():
    assert best_degrees(16, 24, OFFICIAL.image) == Degrees(8, 2)


@pytest.mark.parametrize(
    ("ranks", "branches", "given", "degrees"),
    [
        (8, 1, {}, Degrees(8, 1)),
        (8, 2, {}, Degrees(4, 1)),
        (7, 2, {}, Degrees(1, 7)),
        (8, 1, {"ring_degree": 2}, Degrees(4, 2)),
        (8, 2, {"ulysses_degree": 4}, Degrees(4, 1)),
        (8, 1, {"pipefusion_stages": 8}, Degrees(stages=8)),
        (8, 2, {"pipefusion_stages": 4}, Degrees(stages=4)),
        (8, 2, {"ulysses_degree": 4, "ring_degree": 2}, Degrees(4, 2)),
    ],
)
def test_degrees_are_as_given_or_the_best_for_each_half(ranks, branches, given, degrees):
    assert degrees_of(Runtime(**given), ranks, branches, OFFICIAL.config, OFFICIAL.image) == degrees


def test_degrees_that_do_not_make_the_ranks_are_refused():
    with pytest.raises(ValueError, match="are for 6 ranks, but there are 8; their product must be 8, or 4 for each of two branches"):
        degrees_of(Runtime(ulysses_degree=3, ring_degree=2), 8, 2, OFFICIAL.config, OFFICIAL.image)


def test_the_reason_is_said():
    assert why(8, 24, OFFICIAL.image) == "Ulysses 8: each of 8 ranks has 3 of 24 heads, and sends every token once."
    assert why(7, 24, OFFICIAL.image) == (
        "ring 7: 7 ranks do not divide 24 heads; Ulysses 7 would take 1.11 times as long, its fullest rank 1.14 of its share of work."
    )


def test_every_pair_of_degrees_is_tried():
    assert all_degrees(6, 4) == [Degrees(3, 2), Degrees(2, 3), Degrees(1, 6)]


def test_a_slower_link_and_no_overlap_take_longer():
    step = replace(OFFICIAL, degrees=Degrees(8))
    nvlink, pcie, serial = step_seconds(step, H100), step_seconds(step, H100_PCIE), step_seconds(step, H100, overlaps=False)
    assert nvlink.waiting < pcie.waiting and nvlink.total < serial.total
    assert step_seconds(step, RTX_4090).waiting > pcie.waiting
