"""What is made ahead is what would have been made, and no thread outlives the loop."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from hunyuan_video.training.prefetch import prefetched


def test_values_come_in_the_order_of_their_keys():
    assert list(prefetched(lambda key: key * key, range(50))) == [key * key for key in range(50)]


def test_no_keys_make_nothing():
    assert list(prefetched(lambda key: pytest.fail("something was made"), [])) == []


def test_the_next_value_is_made_while_one_is_in_use():
    made = [threading.Event() for _ in range(3)]
    for key in prefetched(lambda key: (made[key].set(), key)[1], range(3)):
        assert all(event.wait(timeout=30) for event in made[: key + 2])


def test_no_more_than_one_is_made_ahead():
    made: list[int] = []
    with closing(prefetched(made.append, range(9))) as values:
        next(values)
    assert made == [0, 1]


def test_an_error_reaches_the_caller_where_its_value_would_have_come():
    values = prefetched(lambda key: 1 / key, [1, 2, 0, 4])
    assert [next(values), next(values)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(values)


def test_no_thread_is_left_when_the_loop_ends_early():
    before, others = threading.active_count(), list[int]()

    def make(key: int) -> int:
        others.append(threading.active_count() - before)
        return key

    def stopped() -> None:
        with closing(prefetched(make, range(9))) as values:
            for key in values:
                if key == 2:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert others == [1, 1, 1, 1] and threading.active_count() == before
