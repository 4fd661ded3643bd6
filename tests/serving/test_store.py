"""The database of jobs, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, event, inspect, select, update

from hunyuan_video.config import FullSampling
from hunyuan_video.serving.jobs import Job, KeyReusedError, LeaseLostError, NewJob, Order, QueueFullError
from hunyuan_video.serving.migrations import upgrade
from hunyuan_video.serving.store import FORGET_WORKER, Store
from hunyuan_video.serving.tables import jobs, metadata, workers


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}" if request.param == "sqlite" else request.getfixturevalue("fresh_postgres")


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    upgrade(url)
    store = Store(url, lease=30, clock=clock)
    yield store
    store.close()


def new(owner: str = "ann", prompt: str = "a cat", **more: object) -> NewJob:
    return NewJob(f"video_{uuid.uuid4().hex}", owner, "tiny", Order(prompt, FullSampling()), **more)  # pyright: ignore[reportArgumentType]


def claimed(store: Store, worker: str = "w1") -> Job:
    claim = store.claim(worker)
    assert claim is not None
    return claim.job


def test_a_job_comes_back_as_it_was_given(store: Store) -> None:
    given = new(prompt='"{}" 猫 🐈')
    assert store.submit(given).order == given.order
    assert store.get(given.id) == store.get(given.id, "ann")


def test_anothers_job_is_not_there(store: Store) -> None:
    job = store.submit(new())
    assert store.get(job.id, "bob") is None and store.cancel(job.id, "bob") is None and not store.delete(job.id, "bob")
    assert store.get(job.id, "ann") == job


def test_the_same_key_is_the_same_job_and_another_request_with_it_is_refused(store: Store) -> None:
    job = store.submit(new(idempotency_key="k", digest="1"))
    assert store.submit(new(idempotency_key="k", digest="1")).id == job.id
    assert store.submit(new("bob", idempotency_key="k", digest="1")).id != job.id
    with pytest.raises(KeyReusedError, match="use a new one"):
        store.submit(new(idempotency_key="k", digest="2"))


def test_no_more_wait_than_may(store: Store) -> None:
    for _ in range(2):
        store.submit(new(), limit=2)
    with pytest.raises(QueueFullError) as raised:
        store.submit(new(), limit=2)
    assert raised.value.retry_after > 0


def test_one_owners_full_queue_is_not_anothers(store: Store) -> None:
    store.submit(new("ann"), limit=1)
    assert store.submit(new("bob"), limit=1).status == "queued"


def test_no_more_wait_than_may_also_if_many_ask_at_once(store: Store) -> None:
    def ask(_number: int) -> bool:
        try:
            store.submit(new(), limit=2)
        except QueueFullError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(ask, range(24))) == 2


def test_pages_go_on_where_the_last_ended(store: Store) -> None:
    ids = [store.submit(new()).id for _ in range(5)]
    seen, after = [], None
    while True:
        page, more = store.list("ann", after=after, limit=2, order="asc")
        seen += [job.id for job in page]
        if not more:
            break
        after = page[-1].id
    assert seen == ids and [job.id for job in store.list("ann")[0]] == ids[::-1]
    with pytest.raises(LookupError):
        store.list("bob", after=ids[0])


def test_owners_take_turns(store: Store) -> None:
    for prompt in ("a1", "a2", "a3"):
        store.submit(new("ann", prompt))
    store.submit(new("bob", "b1"))
    store.submit(new("eve", "e1"))
    order = []
    while (claim := store.claim("w")) is not None:
        order.append(claim.job.order.prompt)
        store.finish(claim, {}, {})
    assert order == ["a1", "b1", "e1", "a2", "a3"]


def test_who_deletes_finished_videos_is_not_always_next(store: Store) -> None:
    for prompt in ("a1", "a2", "a3"):
        store.submit(new("ann", prompt))
    for prompt in ("b1", "b2"):
        store.submit(new("bob", prompt))
    order = []
    while (claim := store.claim("w")) is not None:
        order.append(claim.job.order.prompt)
        store.finish(claim, {}, {})
        store.delete(claim.job.id, "ann")
    assert order == ["a1", "b1", "a2", "b2", "a3"]


def test_a_jobs_place_is_how_many_are_made_before_it(store: Store) -> None:
    submitted = [store.submit(new(owner)) for owner in ("ann", "ann", "ann", "ann", "bob", "bob", "eve")]
    places = {job.id: store.place(job) for job in submitted}
    made = []
    while (claim := store.claim("w")) is not None:
        made.append(claim.job.id)
        store.finish(claim, {}, {})
    last = {job.owner: job.id for job in submitted}  # others' jobs may be before or after it in the same round
    assert all(made.index(job) <= place <= made.index(job) + 2 for job, place in places.items())
    assert places[last["ann"]] == made.index(last["ann"]) == 6 and places[last["eve"]] == made.index(last["eve"]) == 2


def test_a_worker_makes_what_was_ordered_of_its_model(store: Store) -> None:
    job = store.submit(new())
    assert store.claim("w1", "miniature") is None
    claim = store.claim("w2", "tiny")
    assert claim is not None and claim.job.id == job.id


def test_an_order_of_another_version_fails_and_the_next_one_is_made(store: Store) -> None:
    strange, good = store.submit(new(prompt="a strange cat")), store.submit(new())
    with store.engine.connect().execution_options(writes=True) as db, db.begin():
        db.execute(update(jobs).where(jobs.c.id == strange.id).values(order={"prompt": "a strange cat", "sampling": {"colour": 3}}))
    (_, shown), _ = store.list("ann")
    assert shown == store.get(strange.id) and shown.order.prompt == "a strange cat"
    assert claimed(store).id == good.id
    failed = store.get(strange.id)
    assert failed is not None and failed.error_code == "invalid_request" and "another version" in (failed.error_message or "")


def test_who_finds_nothing_to_do_writes_only_to_say_that_it_lives(store: Store, clock: Clock) -> None:
    wrote: list[object] = []

    def note(connection: Connection) -> None:
        if connection.get_execution_options().get("writes"):
            wrote.append(connection)

    event.listen(store.engine, "begin", note)
    for _ in range(20):  # 20 seconds, of a lease of 30
        assert store.claim("w", "tiny") is None
        clock.now += 1
    assert len(wrote) == 2 and [worker.id for worker in store.live_workers()] == ["w"]


def test_a_dead_worker_stays_dead_and_is_forgotten(store: Store, clock: Clock) -> None:
    job = store.submit(new())
    store.claim("w")
    store.cancel(job.id)
    clock.now += 31
    store.reap()
    ended = store.get(job.id)
    assert ended is not None and ended.error_code == "cancelled" and store.live_workers() == []
    clock.now += FORGET_WORKER
    store.reap()
    with store.engine.connect() as db:
        assert db.execute(select(workers)).all() == []


def test_who_has_more_running_waits(store: Store) -> None:
    for prompt in ("a1", "a2"):
        store.submit(new("ann", prompt))
    store.submit(new("bob", "b1"))
    assert [claimed(store, f"w{number}").order.prompt for number in range(3)] == ["a1", "b1", "a2"]


def test_a_job_whose_worker_is_silent_goes_to_another_one_and_the_first_can_change_nothing(store: Store, clock: Clock) -> None:
    store.submit(new())
    first = store.claim("w1")
    assert first is not None and store.claim("w2") is None
    store.report(first, "denoise", 2, 5, state=f"{first.folder}/state.safetensors")
    clock.now += 31
    second = store.claim("w2")
    assert second is not None and second.job.attempt == 2 and second.job.state_step == 2 and second.job.crashes == 1
    for late in (lambda: store.renew(first), lambda: store.finish(first, {}, {}), lambda: store.fail(first, "x", "x")):
        with pytest.raises(LeaseLostError):
            late()
    store.finish(second, {"video": f"{second.folder}/video.mp4"}, {"prompt": "a cat"})
    job = store.get(second.job.id)
    assert job is not None and job.status == "completed" and job.progress == 100
    assert set(store.unwanted()) == {f"{job.id}/1", f"{job.id}/1/state.safetensors"}


def test_a_lease_that_is_renewed_holds(store: Store, clock: Clock) -> None:
    store.submit(new())
    claim = store.claim("w1")
    assert claim is not None
    for _ in range(3):
        clock.now += 20
        store.renew(claim)
        assert store.claim("w2") is None


def test_a_job_that_ends_its_worker_three_times_fails_and_the_next_one_runs(store: Store, clock: Clock) -> None:
    poison, good = store.submit(new()), store.submit(new("bob"))
    while (job := store.get(poison.id)) is not None and not job.is_over:
        claim = store.claim("w")
        assert claim is not None
        if claim.job.id == good.id:
            store.finish(claim, {}, {})
        clock.now += 31
        store.reap()
    assert job is not None and (job.error_code, job.attempt) == ("worker_crashed", 3)
    done = store.get(good.id)
    assert done is not None and done.status == "completed"


def test_a_job_that_is_given_back_is_no_crash(store: Store) -> None:
    store.submit(new())
    for attempt in range(1, 6):
        claim = store.claim("w")
        assert claim is not None and (claim.job.attempt, claim.job.crashes) == (attempt, 0)
        store.release(claim)


def test_cancelling_ends_what_waits_and_tells_who_works(store: Store) -> None:
    waiting = store.submit(new())
    cancelled = store.cancel(waiting.id)
    assert cancelled is not None and (cancelled.status, cancelled.error_code) == ("failed", "cancelled")
    store.submit(new())
    claim = store.claim("w")
    assert claim is not None and not store.renew(claim)
    store.cancel(claim.job.id)
    assert store.renew(claim) and store.report(claim, "denoise", 1, 2)


def test_a_job_that_is_given_back_after_it_was_cancelled_is_cancelled(store: Store) -> None:
    job = store.submit(new())
    claim = store.claim("w")
    assert claim is not None
    store.cancel(job.id)
    store.release(claim)
    ended = store.get(job.id)
    assert ended is not None and (ended.status, ended.error_code) == ("failed", "cancelled")


def test_what_waits_too_long_and_what_is_kept_long_enough_go(store: Store, clock: Clock) -> None:
    old = store.submit(new())
    clock.now += store.queued + 1
    store.reap()
    job = store.get(old.id)
    assert job is not None and job.error_code == "expired"
    clock.now += store.kept + 1
    store.reap()
    assert store.get(old.id) is None and old.id in store.unwanted()


def test_events_come_in_order_and_from_where_one_left(store: Store) -> None:
    job = store.submit(new())
    claim = store.claim("w")
    assert claim is not None
    store.report(claim, "denoise", 1, 2, preview=f"{claim.folder}/preview.webp")
    store.finish(claim, {}, {})
    seen = store.events(job.id)
    assert [event.kind for event in seen] == ["queued", "step", "preview", "completed"]
    assert store.events(job.id, seen[1].number) == seen[2:]


def test_a_webhook_is_due_until_it_is_delivered(store: Store, clock: Clock) -> None:
    store.submit(new(webhook="https://example.com/hook"))
    claim = store.claim("w")
    assert claim is not None and store.due_delivery(5) is None
    store.fail(claim, "server_error", "no")
    first = store.due_delivery(5)
    assert first is not None and first.kind == "video.failed" and store.due_delivery(5) is None
    clock.now += 6
    again = store.due_delivery(5)
    assert again is not None and (again.number, again.tries) == (first.number, 1)
    store.delivered(again)
    clock.now += 1000
    assert store.due_delivery(5) is None


def test_progress_does_not_fall_after_a_crash(store: Store, clock: Clock) -> None:
    store.submit(new())
    first = store.claim("w")
    assert first is not None
    store.report(first, "denoise", 4, 5)
    clock.now += 31
    second = store.claim("w")
    assert second is not None
    store.report(second, "denoise", 1, 5)
    job = store.get(second.job.id)
    assert job is not None and job.progress == 2 + 88 * 4 // 5


def test_migrations_make_the_tables_that_the_code_knows(url: str) -> None:
    upgrade(url)
    upgrade(url)
    engine = create_engine(url)
    there = inspect(engine)
    assert set(there.get_table_names()) == {*metadata.tables, "alembic_version"}
    for table in metadata.sorted_tables:
        columns = {column["name"]: (str(column["type"]).split("(")[0], column["nullable"]) for column in there.get_columns(table.name)}
        ours = {column.name: (str(column.type.compile(engine.dialect)).split("(")[0], column.nullable) for column in table.columns}
        assert {name: nullable for name, (_, nullable) in columns.items()} == {name: nullable for name, (_, nullable) in ours.items()}
        assert {index["name"] for index in there.get_indexes(table.name)} >= {index.name for index in table.indexes}
    engine.dispose()
