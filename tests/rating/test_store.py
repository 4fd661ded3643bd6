"""What was shown and said stays, as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError

from hunyuan_video.rating.design import Showing, Task
from hunyuan_video.rating.store import GONE, Rater, Store, metadata

YES = {"text": "yes", "motion": "yes", "visual": "no"}
TASKS = [Task("first", Showing("p", "A")), Task("first", Showing("q", "B")), Task("plant", Showing("p", "(spoiled)"), "no")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "votes.sqlite")
    yield store
    store.close()


def join(store: Store, now: float = 0.0, blocks: int = 3, seen: list | None = None) -> tuple[str, Rater]:
    def session(block: int, rater: int) -> list[Task]:
        if seen is not None:
            seen.append(block)
        return TASKS

    rater, secret = store.join("absolute", blocks, session, now)
    assert store.rater("absolute", secret) == rater
    return secret, rater


@pytest.mark.parametrize("table", metadata.tables.values(), ids=lambda table: table.name)
def test_the_database_itself_lets_nothing_be_changed_or_taken_away(store, table):
    store.begin("absolute", {})
    _, rater = join(store)
    store.vote(rater, 1, YES, 5, 1.0)
    column = next(column for column in table.c if not column.primary_key)
    for change in (update(table).values({column: "x"}), delete(table)):
        with pytest.raises(IntegrityError, match="never changed"), store.engine.begin() as db:
            db.execute(change)


def test_a_changed_mind_is_a_further_row(store):
    _, rater = join(store)
    store.vote(rater, 1, YES, 5, 1.0)
    store.vote(rater, 1, YES | {"visual": "yes"}, 9, 2.0)
    assert [row.answer for row in store.rows() if row.question == "visual"] == ["no", "yes"]
    shown = store.shown(rater, 1)
    assert shown is not None and shown.answers["visual"] == "yes"


def test_a_rater_is_where_they_were_after_a_restart(store, tmp_path):
    secret, rater = join(store)
    store.vote(rater, 1, YES, 5, 1.0)
    before = store.shown(rater, 2)
    store.close()
    again = Store(tmp_path / "votes.sqlite")
    assert again.rater("absolute", secret) == rater and again.progress(rater) == (2, 3) and again.shown(rater, 2) == before
    again.close()


def test_after_the_last_one_there_is_nothing_to_show(store):
    _, rater = join(store)
    for number in (1, 2, 3):
        store.vote(rater, number, YES, 5, 1.0)
    assert store.progress(rater) == (4, 3) and store.shown(rater, 4) is None


def test_clips_have_a_name_of_their_own_for_each_rater_and_each_time(store):
    raters = [join(store)[1] for _ in range(3)]
    shown = [store.shown(rater, number) for rater in raters for number in (1, 2, 3)]
    names = [name for each in shown for name in (each.left_id, each.right_id)]
    assert len(set(names)) == len(names) == 18
    assert store.clip(raters[0], shown[0].left_id) == ("p", "A")
    assert store.clip(raters[1], shown[0].left_id) is None


def test_blocks_go_round_and_a_block_whose_rater_is_gone_comes_again(store):
    seen: list[int] = []
    raters = [join(store, now=0.0, seen=seen)[1] for _ in range(3)]
    for number in (1, 2, 3):
        store.vote(raters[0], number, YES, 5, 10.0)  # has finished
    store.vote(raters[1], 1, YES, 5, GONE)  # is at it
    join(store, now=GONE + 20, seen=seen)
    join(store, now=GONE + 20, seen=seen)
    assert seen == [0, 1, 2, 2, 0]


def test_a_stranger_is_nobody(store):
    secret, _ = join(store)
    assert store.rater("absolute", "") is None and store.rater("pairs", secret) is None


def test_a_study_is_gone_on_with_by_the_same_terms_alone(store):
    store.begin("absolute", {"seed": 0, "clips": "abc"})
    store.begin("absolute", {"seed": 0, "clips": "abc"})
    store.begin("pairs", {"seed": 1, "clips": "abc"})
    with pytest.raises(ValueError, match="rated with clips that have changed since"):
        store.begin("absolute", {"seed": 0, "clips": "def"})


def test_a_file_that_is_no_database_is_a_sentence(tmp_path):
    (tmp_path / "other.sqlite").write_text("garbage " * 100)
    with pytest.raises(ValueError, match=r"other\.sqlite is no database of votes \(file is not a database\); bring it back from a copy"):
        Store(tmp_path / "other.sqlite")


def test_a_file_of_a_newer_version_is_refused(store, tmp_path):
    with store.engine.begin() as db:
        db.exec_driver_sql("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="version 99"):
        Store(tmp_path / "votes.sqlite")
