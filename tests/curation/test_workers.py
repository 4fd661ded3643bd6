"""Many workers give what one gives, in the same order."""

from __future__ import annotations

import pytest
from curation_work import ends, slower_first

from hunyuan_video.curation.workers import Here, Processes


def test_results_come_in_the_order_of_the_jobs_whoever_is_faster():
    asked = list[int]()

    def jobs():
        for number in range(20):
            asked.append(number)
            yield number

    with Processes(2) as workers:
        found = workers.map(slower_first, jobs())
        assert next(found) == 0
        assert len(asked) < 20  # jobs are taken as they are needed
        assert list(found) == [number * number for number in range(1, 20)] == list(Here().map(slower_first, range(20)))[1:]


def test_a_worker_that_is_killed_is_a_sentence():
    with Processes(1) as workers, pytest.raises(ChildProcessError, match="fewer --workers"):
        list(workers.map(ends, range(5)))
