"""The worker, with a model that takes no time, in this process."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_studio import Files, Studio, right_video
from sqlalchemy.exc import OperationalError

from hunyuan_video.config import FullSampling
from hunyuan_video.serving import attempt
from hunyuan_video.serving.faults import BrokenError, patiently
from hunyuan_video.serving.jobs import Job, NewJob, Order
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.store import Store
from hunyuan_video.serving.upkeep import OLD, Upkeep
from hunyuan_video.serving.worker import work

STEPS = 4


def submit(store: Store, prompt: str = "a cat") -> Job:
    return store.submit(NewJob(f"video_{uuid.uuid4().hex}", "ann", "fake", Order(prompt, FullSampling(num_steps=STEPS, seed=7))))


def look(store: Store, job: Job) -> Job:
    found = store.get(job.id)
    assert found is not None
    return found


def read(results: Results, name: str) -> bytes:
    with results.open(name) as file:
        return file.read()


def run(store: Store, results: Results, studio: Studio, stop: Callable[[], bool] | None = None, name: str = "w") -> None:
    """Until nothing waits."""
    until = stop or (lambda: not store.counts()["queued"] and not store.counts()["in_progress"])
    work(store, results, studio.craft(), name=name, model="fake", stop=until, poll=0.01)


def test_what_a_worker_has_taken_at_most_is_known(store: Store, results: Results) -> None:
    said: list[int | None] = []

    def stop() -> bool:
        said.extend(worker.memory for worker in store.live_workers())
        return not store.counts()["queued"] and not store.counts()["in_progress"]

    submit(store)
    run(store, results, Studio(), stop)
    assert said[-1] == 12345


def test_a_video_is_made_and_its_file_and_provenance_are_there(store: Store, results: Results) -> None:
    job = submit(store)
    run(store, results, Studio())
    done = look(store, job)
    assert (done.status, done.progress, done.provenance) == (
        "completed",
        100,
        {"prompt": "a cat", "seed": 7, "model": "fake", "adapters": []},
    )
    assert read(results, done.files["video"]) == right_video(job.order)
    steps = [(event.data["stage"], event.data["step"]) for event in store.events(job.id) if event.kind == "step"]
    assert steps == [("encode", 1), *(("denoise", step) for step in range(1, STEPS + 1)), ("decode", 1), ("decode", 2)]


def test_a_worker_that_stops_while_it_decodes_keeps_the_finished_latents(store: Store, results: Results) -> None:
    job, steps, second = submit(store), list[int](), Studio()
    run(store, results, Studio(lambda order, step: steps.append(step)), stop=lambda: STEPS + 1 in steps)
    waiting = look(store, job)
    assert (waiting.status, waiting.stage, waiting.state_step) == ("queued", "decode", STEPS)
    run(store, results, second)
    assert second.done == [] and read(results, look(store, job).files["video"]) == right_video(job.order)


def test_a_worker_that_stops_keeps_the_state_and_the_next_one_goes_on_from_it(store: Store, results: Results) -> None:
    job, first, second = submit(store), Studio(), Studio()
    run(store, results, first, stop=lambda: len(first.done) == 2)
    waiting = look(store, job)
    assert (waiting.status, waiting.state_step, waiting.crashes, store.live_workers()) == ("queued", 2, 0, [])
    run(store, results, second)
    done = look(store, job)
    assert (first.done, second.done) == ([1, 2], [3, 4])
    assert read(results, done.files["video"]) == right_video(job.order)


def test_the_state_is_kept_now_and_then_and_survives_a_worker_that_does_not_say_goodbye(
    store: Store, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "KEEP_EVERY", 0.0)

    class KilledError(BaseException):
        pass

    def die(_order: Order, step: int) -> None:
        if step == 3:
            raise KilledError

    job, second = submit(store), Studio()
    with pytest.raises(KilledError):
        run(store, results, Studio(die))
    store.lost("w")  # as who started it knows
    run(store, results, second)
    assert (
        look(store, job).crashes == 1 and second.done == [3, 4] and read(results, look(store, job).files["video"]) == right_video(job.order)
    )


@pytest.mark.parametrize("spoil", ["damage", "another model"])
def test_a_state_that_does_not_fit_is_not_gone_on_from(spoil: str, store: Store, results: Results) -> None:
    job, first = submit(store), Studio()
    run(store, results, first, stop=lambda: len(first.done) == 2)
    if spoil == "damage":
        results.put(look(store, job).state or "", b"not what it was")
    second = Studio(model="another model" if spoil == "another model" else "fake")
    run(store, results, second)
    assert second.done == [1, 2, 3, 4] and look(store, job).status == "completed"


def test_a_lease_holds_while_a_step_takes_longer(store: Store, results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    now, renewed = time.time(), threading.Semaphore(0)
    monkeypatch.setattr(store, "lease", 0.3)  # by a clock that stands until the lease was renewed, so a slow machine loses none
    monkeypatch.setattr(store, "_clock", lambda: now)
    renew = store.renew
    monkeypatch.setattr(store, "renew", lambda claim: (renew(claim), renewed.release())[0])
    job, begun = submit(store), now

    def slow(_order: Order, step: int) -> None:
        nonlocal now
        while step == 1 and now < begun + 4 * store.lease:
            now += 0.2
            for _ in range(2):  # the first may have begun before
                assert renewed.acquire(timeout=60)
            assert store.claim("another") is None

    run(store, results, Studio(slow))
    assert now >= begun + 4 * store.lease and (look(store, job).status, look(store, job).attempt) == ("completed", 1)


def test_a_worker_that_lost_its_lease_leaves_nothing(store: Store, results: Results) -> None:
    job, second = submit(store), Studio()

    def lose(_order: Order, step: int) -> None:
        if step == 3:  # as if this process had been frozen for a minute
            store.lost("late")
            run(store, results, second, name="quick")

    run(store, results, Studio(lose), name="late")
    done = look(store, job)
    assert (done.attempt, done.files["video"]) == (2, f"{job.id}/2/video.mp4") and second.done == [1, 2, 3, 4]
    assert [event.kind for event in store.events(job.id)].count("completed") == 1
    Upkeep(store, results).do()
    assert results.folders() == [job.id, f"{job.id}/2"]


def lost_answer(ask: Callable[..., Any]) -> Callable[..., Any]:
    """What it does is done, but the first time nobody is told."""
    answers = iter([OperationalError("commit", {}, Exception("server closed the connection"))])

    def told(*given: Any, **more: Any) -> Any:
        answer = ask(*given, **more)
        for error in answers:
            raise error
        return answer

    return told


def test_a_video_is_done_though_the_answer_to_its_end_was_lost(
    store: Store, results: Results, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hunyuan_video.serving.faults._PAUSE", 0.0)
    monkeypatch.setattr(store, "finish", lost_answer(store.finish))
    caplog.set_level(logging.INFO)
    job = submit(store)
    run(store, results, Studio())
    assert read(results, look(store, job).files["video"]) == right_video(job.order)
    assert "attempt 1: done" in caplog.text and [event.kind for event in store.events(job.id)].count("completed") == 1


def test_a_video_waits_for_files_that_are_away_and_does_without_a_preview(
    store: Store, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hunyuan_video.serving.faults._PAUSE", 0.0)
    put, refused = results.put, set[str]()

    def away(name: str, source: Path | bytes) -> str:
        if name not in refused:
            refused.add(name)
            raise ConnectionError("nobody answers")
        return put(name, source)

    monkeypatch.setattr(results, "put", away)
    job = submit(store)
    run(store, results, Studio())
    assert read(results, look(store, job).files["video"]) == right_video(job.order)
    assert refused == {f"{job.id}/1/{what}" for what in ("preview.webp", "video.mp4")}


def test_cancelling_ends_a_video_within_a_step(store: Store, results: Results) -> None:
    job = submit(store)
    studio = Studio(lambda order, step: store.cancel(job.id) and None if step == 2 else None)
    run(store, results, studio)
    assert studio.done == [1, 2] and look(store, job).error_code == "cancelled"


def test_a_deleted_job_ends_within_a_step_and_leaves_no_file(store: Store, results: Results) -> None:
    job = submit(store)
    studio = Studio(lambda order, step: store.delete(job.id) and None if step == 2 else None)
    run(store, results, studio)
    assert studio.done == [1, 2] and store.get(job.id) is None
    Upkeep(store, results).do()
    assert results.folders() == []


class OutOfMemoryError(RuntimeError):
    """As PyTorch's is called."""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("The file /srv/secret/loras/style.safetensors holds NaN."), "invalid_request", "The file style.safetensors holds NaN."),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), "out_of_memory", "ask for a smaller one"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", "ask for a smaller one"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "insufficient_storage", "disk is full"),
        (KeyError("/srv/secret"), "server_error", "(KeyError); the server's log says more"),
        (FileNotFoundError(2, "No such file", "/srv/secret"), "server_error", "(FileNotFoundError)"),
    ],
)
def test_an_error_fails_its_job_with_a_code_and_the_next_one_is_made(
    error: Exception, code: str, said: str, store: Store, results: Results, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(order: Order, step: int) -> None:
        if order.prompt == "bad":
            raise error

    bad, good = submit(store, "bad"), submit(store)
    run(store, results, Studio(fail))
    failed = look(store, bad)
    assert failed.error_code == code and said in (failed.error_message or "") and "secret" not in (failed.error_message or "")
    assert look(store, good).status == "completed"
    traced = [record for record in caplog.records if record.exc_info and record.exc_info[1] is error]
    assert len(traced) == (1 if code == "server_error" else 0) and str(error) in caplog.text


def test_a_worker_that_is_to_end_at_once_gives_its_job_back(store: Store, results: Results) -> None:
    def interrupt(_order: Order, step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    job = submit(store)
    with pytest.raises(KeyboardInterrupt):
        run(store, results, Studio(interrupt))
    assert (look(store, job).status, look(store, job).crashes) == ("queued", 0)


def test_what_breaks_the_model_fails_its_job_and_ends_the_worker(store: Store, results: Results) -> None:
    def fail(_order: Order, _step: int) -> None:
        raise BrokenError("CUDA error: an illegal memory access") from RuntimeError("CUDA error: an illegal memory access")

    bad, good = submit(store), submit(store)
    with pytest.raises(BrokenError):
        run(store, results, Studio(fail))
    assert look(store, bad).error_code == "server_error" and look(store, good).status == "queued"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, for real."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.name != "posix" or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_fails_a_job_and_the_next_is_made_once_there_is_room(store: Store, small_disk: Path) -> None:
    results, filling = Results(small_disk / "files"), small_disk / "filling"

    def fill(_order: Order, _step: int) -> None:
        if not filling.exists():
            with contextlib.suppress(OSError), filling.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

    first, second = submit(store, "first"), submit(store, "second")
    waited: list[str] = []

    def stop() -> bool:
        if look(store, first).is_over and not look(store, second).is_over:
            waited.append(look(store, second).status)
            if len(waited) == 5:  # for room: nothing is begun that could not be kept
                filling.write_bytes(b"")
        return look(store, second).is_over

    run(store, results, Studio(fill), stop)
    assert look(store, first).error_code == "insufficient_storage" and waited[:5] == ["queued"] * 5
    assert read(results, look(store, second).files["video"]) == right_video(second.order)
    assert not list((small_disk / "files").rglob("*.tmp"))


def test_a_worker_waits_for_a_database_that_is_away(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hunyuan_video.serving.faults._PAUSE", 0.0)
    answers: list[Any] = [OperationalError("select", {}, Exception("connection refused"))] * 3

    def ask() -> str:
        if answers:
            raise answers.pop()
        return "here"

    assert patiently(ask, lambda: False) == "here" and len(caplog.records) == 1


def test_folders_that_no_job_wants_go_after_an_hour(store: Store, results: Results) -> None:
    now, job, nobody = 0.0, submit(store), f"video_{uuid.uuid4().hex}"
    upkeep = Upkeep(store, results, lambda: now)
    for name in (job.id, nobody):
        results.put(f"{name}/picture", b"a picture that came before its job")
    upkeep.do()
    now = OLD - 1
    upkeep.do()
    assert results.folders() == sorted([job.id, nobody])
    now = OLD + 1000
    upkeep.do()
    assert results.folders() == [job.id]


def test_previews_are_shown(store: Store, results: Results, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[bytes] = []
    job = submit(store)

    def peek(_order: Order, step: int) -> None:
        if step == 2:
            seen.append(read(results, look(store, job).files["preview"]))

    caplog.set_level(logging.INFO)
    run(store, results, Studio(peek))
    (*_, step) = (step for step in Studio().make(job.order, None) if step.step == 1 and step.stage == "denoise")
    assert seen == [Files().preview(step)] and "preview" not in look(store, job).files
