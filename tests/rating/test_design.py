"""Who is shown what: everything often enough, and nobody favoured."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from hunyuan_video.rating.design import SPOILED, Design, Showing, blocks, planted, session

PROMPTS = [f"p{number}" for number in range(30)]
SYSTEMS = ["A", "B", "C", "D"]


@pytest.mark.parametrize(("mode", "treatments"), [("absolute", 4), ("pairs", 6)])
def test_everything_is_in_as_many_blocks_as_it_needs_raters_and_in_none_twice(mode, treatments):
    made = blocks(Design(mode, ratings=3, per_rater=25), PROMPTS, SYSTEMS)
    assert all(len(set(block)) == len(block) for block in made)
    counts = Counter(showing for block in made for showing in block)
    assert len(counts) == 30 * treatments and set(counts.values()) == {3}


def test_blocks_are_as_long_as_was_asked_for_or_a_little_shorter():
    sizes = {len(block) for block in blocks(Design(per_rater=25), PROMPTS, SYSTEMS)}
    assert sizes == {24}


def test_a_block_has_every_system_equally_often_and_no_prompt_twice():
    for block in blocks(Design(per_rater=24), PROMPTS, SYSTEMS):
        systems = Counter(showing.left for showing in block)
        assert max(systems.values()) - min(systems.values()) <= 2
        assert max(Counter(showing.prompt for showing in block).values()) <= 1 + (len(block) > len(PROMPTS))


def test_a_block_of_pairs_has_every_two_systems_equally_often():
    for block in blocks(Design("pairs", per_rater=30), PROMPTS, SYSTEMS):
        every_two = Counter(frozenset((showing.left, showing.right)) for showing in block)
        assert every_two.keys() == {frozenset(two) for two in combinations(SYSTEMS, 2)}
        assert max(every_two.values()) - min(every_two.values()) <= 2


def the_session(mode="pairs", rater=1, per_rater=40):
    design = Design(mode, per_rater=per_rater)
    block = blocks(design, PROMPTS, SYSTEMS)[0]
    return block, session(design, block, SYSTEMS, list(planted(design, PROMPTS)), rater)


def test_a_session_is_the_block_and_a_tenth_more():
    block, tasks = the_session()
    kinds = Counter(task.kind for task in tasks)
    assert kinds == {"first": len(block), "repeat": 2, "plant": 2}
    firsts = [task.showing for task in tasks if task.kind == "first"]
    assert {frozenset((s.prompt, s.left, s.right)) for s in firsts} == {frozenset((s.prompt, s.left, s.right)) for s in block}


def test_sides_and_order_are_each_raters_own_and_fair():
    sessions = [the_session(rater=rater)[1] for rater in range(60)]
    assert len({tuple(tasks) for tasks in sessions}) == 60
    on_the_left = [task.showing.left < task.showing.right for tasks in sessions for task in tasks if task.kind == "first"]
    assert 0.47 < sum(on_the_left) / len(on_the_left) < 0.53


def test_a_session_is_the_same_for_the_same_rater():
    assert the_session(rater=5) == the_session(rater=5)


def test_what_is_asked_twice_changes_sides_and_comes_late():
    for rater in range(20):
        _, tasks = the_session(rater=rater)
        showings = [task.showing for task in tasks]
        for place, task in enumerate(tasks):
            if task.kind == "repeat":
                assert place - showings.index(task.showing.turned()) >= 10


def test_a_planted_clip_is_spoiled_and_what_is_right_is_known():
    for rater in range(20):
        for task in the_session("pairs", rater)[1]:
            if task.kind == "plant":
                bad = "right" if task.truth == "left" else "left"
                assert getattr(task.showing, bad) == SPOILED and getattr(task.showing, task.truth) in SYSTEMS
    assert {(task.showing.left, task.truth) for task in the_session("absolute")[1] if task.kind == "plant"} == {(SPOILED, "no")}


def test_the_spoiled_clip_is_of_another_prompt():
    others = planted(Design(), PROMPTS)
    assert len(others) == 24 and all(prompt != other for prompt, other in others.items())


def test_a_study_of_one_prompt_or_a_pair_of_one_system_is_refused():
    with pytest.raises(ValueError, match="needs two or more"):
        blocks(Design(), ["p"], SYSTEMS)
    with pytest.raises(ValueError, match="rating by pairs needs 2"):
        blocks(Design("pairs"), PROMPTS, ["A"])


def test_the_smallest_study_has_a_session():
    design = Design("pairs", per_rater=1)
    (first, *_) = blocks(design, ["p", "q"], ["A", "B"])
    tasks = session(design, first, ["A", "B"], ["p", "q"], 1)
    assert sorted(task.kind for task in tasks) == ["first", "plant", "repeat"] and first[0] in (
        Showing("p", "A", "B"),
        Showing("q", "A", "B"),
    )
