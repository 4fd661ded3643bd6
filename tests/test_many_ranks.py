"""The same seed gives the same video on any number of ranks, however they share it; and shards are shares, counted by their bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from many_ranks import CASES, alone, prepare, work
from spawn import on_ranks

# Everything is float32: what is added in another order differs by some roundings of 2^-24 in each layer and step.
BOUND = 1e-5
FEW, ALL = (2, 3, 4), tuple(CASES["whole"].ranks)
OTHERS = "no seed", "gone on with"  # of which more, or less, is claimed


def made_on(numbers: Sequence[int], names: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    prepare(folder)
    alone(folder, names)
    return on_ranks(work, max(numbers), folder, numbers, names, patience=480)


def of_few(wanted: Callable[[str], bool]) -> list[Any]:
    """Names of cases and numbers of ranks."""
    return [
        pytest.param(name, number, marks=[pytest.mark.slow] if case.slow else [])
        for name, case in CASES.items()
        for number in FEW
        if number in case.ranks and name != "whole" and wanted(name)
    ]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two to four ranks made, run once for all claims."""
    return made_on(FEW, [name for name in CASES if not CASES[name].slow], tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return made_on(FEW, [name for name in CASES if CASES[name].slow and name != "whole"], tmp_path_factory.mktemp("more"))


@pytest.fixture
def made(request: pytest.FixtureRequest, name: str) -> list[dict[str, Any]]:
    return request.getfixturevalue("more" if CASES[name].slow else "few")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return made_on(ALL, ["whole"], tmp_path_factory.mktemp("whole"))


def check_same(ranks: list[dict[str, Any]], video: str, number: int, bound: float = BOUND) -> None:
    found = [made[video] for made in ranks[:number]]
    assert len({(made["latents"], made["frames"], made["seed"]) for made in found}) == 1, "the ranks have several videos"
    assert found[0]["apart"] <= bound and found[0]["levels"] <= 1, found[0]


@pytest.mark.parametrize(("name", "number"), of_few(lambda name: name not in OTHERS))
def test_the_same_seed_gives_the_same_video(made, name, number):
    check_same(made, f"{name} on {number}", number)


def test_a_clip_is_gone_on_with_by_all_ranks(few):
    """Each video begins with frames of the one before, of which a rounding may change a pixel by a level of 255."""
    check_same(few, "gone on with on 2", 2, bound=1 / 255)


@pytest.mark.slow
@pytest.mark.parametrize("number", ALL)
def test_the_same_seed_gives_the_same_whole_video(whole, number):
    check_same(whole, f"whole on {number}", number)


def test_a_seed_that_was_left_open_is_drawn_once(few):
    first, second = (made["no seed on 2"] for made in few[:2])
    assert (first["seed"], first["latents"]) == (second["seed"], second["latents"]) and first["apart"] > 0.1


@pytest.mark.parametrize(("name", "number"), of_few(lambda name: "shard" in CASES[name].shared))
def test_a_rank_of_sharded_weights_has_its_share_and_nothing_else(made, name, number):
    """Also the first one, which has read them all, and after a video, for which all have been gathered."""
    for rank in made[:number]:
        found = rank[f"{name} on {number}"]
        assert found["bytes"] == pytest.approx(found["share"], rel=0.02), found
