"""Processes that are killed at any moment: what was acknowledged is made, once, and whole. Real processes over real HTTP."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_studio import right_video
from fault_processes import start
from ports import free_port

from hunyuan_video.serving.jobs import ACTIVE, Job
from hunyuan_video.serving.migrations import upgrade
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.store import Store
from hunyuan_video.serving.upkeep import Upkeep

PATIENCE = 240.0  # seconds


class House:
    """API processes and workers of one database, to be killed and started again."""

    def __init__(self, url: str, folder: Path, apis: int = 1, workers: int = 1):
        upgrade(url)
        self.url, self.folder = url, folder / "files"
        self.store, self.results = Store(url), Results(self.folder)
        self.ports = [free_port() for _ in range(apis)]
        self._names = itertools.count()
        self.apis = [self._start("api", str(port)) for port in self.ports]
        self.names = [f"w{next(self._names)}" for _ in range(workers)]
        self.workers = [self._start("worker", name) for name in self.names]

    def _start(self, what: str, which: str) -> Any:
        return start(what, self.url, str(self.folder), which)

    def kill_api(self, index: int) -> None:
        self.apis[index].kill()
        self.apis[index].join()
        self.apis[index] = self._start("api", str(self.ports[index]))

    def kill_worker(self, index: int) -> None:
        self.workers[index].kill()
        self.workers[index].join()
        self.add_worker(index)

    def add_worker(self, index: int) -> None:
        self.names[index] = f"w{next(self._names)}"
        self.workers[index] = self._start("worker", self.names[index])

    def job(self, job_id: str) -> Job | None:
        return self.store.get(job_id)

    def wait(self, *, restart: bool = False) -> None:
        """Until all is made; with `restart` also by workers that end meanwhile, whose jobs are given back at once."""
        deadline = time.monotonic() + PATIENCE
        while any(self.store.counts()[status] for status in ACTIVE):
            assert time.monotonic() < deadline, self.store.counts()
            for index, worker in enumerate(self.workers):
                if restart and not worker.is_alive():
                    self.store.lost(f"{self.names[index]}-{worker.pid}")
                    self.add_worker(index)
            time.sleep(0.05)

    def close(self) -> None:
        for process in (*self.apis, *self.workers):
            process.kill()
            process.join()
        self.store.close()


@contextmanager
def house(*args: Any, **options: Any) -> Iterator[House]:
    built = House(*args, **options)
    try:
        yield built
    finally:
        built.close()


class Client(threading.Thread):
    """Asks for videos until it is enough, each with an Idempotency-Key, again if no answer comes; remembers what was acknowledged."""

    def __init__(self, ports: list[int], enough: threading.Event, most: int):
        super().__init__(daemon=True)
        self.ports, self.enough, self.most = ports, enough, most
        self.acknowledged: dict[str, str] = {}
        self.repeated = 0

    def run(self) -> None:
        with httpx.Client(timeout=10) as client:
            while not self.enough.is_set() and len(self.acknowledged) < self.most:
                prompt = f"video {uuid.uuid4().hex}"
                while (job_id := self._ask(client, prompt)) is None:
                    self.repeated += 1
                    time.sleep(0.05)
                self.acknowledged[job_id] = prompt

    def _ask(self, client: httpx.Client, prompt: str) -> str | None:
        url = f"http://127.0.0.1:{random.choice(self.ports)}/v1/videos"
        body = {"prompt": prompt, "seed": len(self.acknowledged)}
        try:
            answer = client.post(url, json=body, headers={"Idempotency-Key": prompt})
        except httpx.TransportError:
            return None
        return answer.json()["id"] if answer.is_success else None


def check_all(built: House, acknowledged: dict[str, str]) -> dict[str, int]:
    """Count what is wrong with the jobs: lost, done twice, crossed, or with half a file; and files that belong to none."""
    found = dict.fromkeys(("lost", "twice", "half"), 0)
    for job_id, prompt in acknowledged.items():
        job = built.job(job_id)
        if job is None or job.status != "completed" or job.order.prompt != prompt:
            found["lost"] += 1
            continue
        found["twice"] += [event.kind for event in built.store.events(job_id)].count("completed") != 1
        with built.results.open(job.files["video"]) as file:
            found["half"] += file.read() != right_video(job.order)
    Upkeep(built.store, built.results).do()
    jobs, _ = built.store.list(limit=100_000)
    wanted = {built.folder / job.files["video"] for job in jobs}
    found["forgotten files"] = len({path for path in built.folder.rglob("*") if path.is_file()} ^ wanted)
    found["more jobs than were asked for"] = len(jobs) - len(acknowledged)
    return found


def kill_in_rounds(built: House, rounds: int, jobs: int, clients: int, pause: float) -> None:
    enough = threading.Event()
    threads = [Client(built.ports, enough, jobs) for _ in range(clients)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    done = 0
    while done < rounds or sum(len(thread.acknowledged) for thread in threads) < jobs:
        time.sleep(random.uniform(0, pause))
        if done < rounds and built.store.counts()["in_progress"] > 0:  # all are at work again
            built.kill_api(random.randrange(len(built.apis)))
            built.kill_worker(random.randrange(len(built.workers)))
            done += 1
        assert time.monotonic() - begun < PATIENCE
    enough.set()
    for thread in threads:
        thread.join(60)
    asked = time.monotonic() - begun
    acknowledged = {job_id: prompt for thread in threads for job_id, prompt in thread.acknowledged.items()}
    built.wait()
    found = check_all(built, acknowledged)
    again = sum(job.attempt > 1 for job in built.store.list(limit=100_000)[0])
    print(
        f"\n{rounds} rounds of kill -9 on API and worker in {asked:.0f} s: {len(acknowledged)} jobs acknowledged, "
        f"{sum(thread.repeated for thread in threads)} requests repeated, {again} jobs begun again; {found}"
    )
    assert not any(found.values())


def test_nothing_acknowledged_is_lost_or_made_twice_however_processes_are_killed(tmp_path: Path) -> None:
    with house(f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path, workers=2) as built:
        kill_in_rounds(built, rounds=2, jobs=30, clients=2, pause=1.0)


@pytest.mark.slow
def test_twenty_rounds_and_a_thousand_jobs(tmp_path: Path) -> None:
    with house(f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path, workers=2) as built:
        kill_in_rounds(built, rounds=20, jobs=1000, clients=4, pause=3.0)


def test_two_apis_and_three_workers_share_a_postgresql(fresh_postgres: str, tmp_path: Path) -> None:
    with house(fresh_postgres, tmp_path, apis=2, workers=3) as built:
        kill_in_rounds(built, rounds=1, jobs=30, clients=4, pause=1.0)


@pytest.mark.slow
def test_ten_rounds_with_postgresql(fresh_postgres: str, tmp_path: Path) -> None:
    with house(fresh_postgres, tmp_path, apis=2, workers=3) as built:
        kill_in_rounds(built, rounds=10, jobs=1000, clients=8, pause=3.0)


def test_a_job_that_kills_its_worker_fails_after_three_and_the_next_is_made(tmp_path: Path) -> None:
    with house(f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path) as built:
        client = Client(built.ports, threading.Event(), 1)
        with httpx.Client() as http:
            while (poison := client._ask(http, "poison")) is None:
                time.sleep(0.05)
            good = client._ask(http, "good")
        built.wait(restart=True)
        ended, made = built.job(poison), built.job(good or "")
        assert ended is not None and (ended.error_code, ended.attempt) == ("worker_crashed", 3)
        assert made is not None and made.status == "completed"


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM that can be heard")
def test_sigterm_lets_a_worker_finish_its_step_and_end_well(tmp_path: Path) -> None:
    with house(f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path, workers=1) as built:
        enough = threading.Event()
        client = Client(built.ports, enough, 20)
        client.start()
        client.join(PATIENCE)
        built.workers[0].terminate()
        built.workers[0].join(60)
        assert built.workers[0].exitcode == 0
        counts = built.store.counts()
        assert (counts["in_progress"], sum(counts.values())) == (0, 20) and built.store.live_workers() == []
        built.add_worker(0)
        built.wait()
        assert not any(check_all(built, client.acknowledged).values())
        assert {job.crashes for job in built.store.list(limit=100)[0]} == {0}
