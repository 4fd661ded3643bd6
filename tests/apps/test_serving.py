"""`serve` and `worker` as a user starts them, with the embedded model at a small size."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from adapters import random_lora
from PIL import Image
from ports import free_port

from hunyuan_video import checkpoint, weights
from hunyuan_video.apps.worker import Studio
from hunyuan_video.checkpoint.lora import save_lora
from hunyuan_video.config import FullSampling, Runtime, Sampling
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.recording import Recording
from hunyuan_video.request import Adapter, Request, Strengths
from hunyuan_video.serving import attempt, orders
from hunyuan_video.serving.jobs import Job, NamedLora, NewJob, Order
from hunyuan_video.serving.media import Media
from hunyuan_video.serving.migrations import upgrade
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.store import Store
from hunyuan_video.serving.worker import Craft, work
from hunyuan_video.video import save_recording

SMALL = {"height": 32, "width": 32, "num_frames": 5}
PATIENCE = 300.0


@pytest.fixture(scope="module")
def found() -> weights.Weights:
    return weights.locate(weights.EMBEDDED)


@pytest.fixture(scope="module")
def studio(found: weights.Weights) -> Studio:
    return Studio(found, Runtime(device="cpu", attention="sdpa"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    upgrade(url)
    store = Store(url)
    yield store
    store.close()


def sampling(found: weights.Weights, steps: int = 4) -> FullSampling:
    return Sampling(num_steps=steps, seed=7, **SMALL).over(found.sampling())


def submit(store: Store, order: Order) -> Job:
    return store.submit(NewJob(f"video_{uuid.uuid4().hex}", "ann", "tiny", order))


def make(studio: Studio, store: Store, results: Results, stop: Callable[[], bool], loras: Path | None = None) -> None:
    craft = Craft(lambda order: orders.request_of(order, results, loras), studio.make, lambda: Media(studio.show))
    work(store, results, craft, name="w", stop=stop, poll=0.01)


def file_of(store: Store, results: Results, job: Job) -> bytes:
    done = store.get(job.id)
    assert done is not None and done.status == "completed", done
    with results.open(done.files["video"]) as file:
        return file.read()


def generated(pipe: HunyuanVideo, request: Request, path: Path) -> bytes:
    """The file that `generate` would write."""
    with Recording(".mp4") as recording:
        for step in pipe.steps(request):
            if step.new_frames is not None:
                recording.add(step.new_frames)
            made = step.provenance
        return save_recording(recording, path, metadata=made.to_json()).read_bytes()


def idle(store: Store) -> bool:
    return not any(store.counts()[status] for status in ("queued", "in_progress"))


def test_a_video_that_was_interrupted_ends_byte_for_byte_as_one_that_was_not(
    studio: Studio, found: weights.Weights, store: Store, tmp_path: Path
) -> None:
    results, order = Results(tmp_path / "files"), Order("A cat walks on the grass", sampling(found))
    job = submit(store, order)
    make(studio, store, results, lambda: (now := store.get(job.id)) is not None and now.step >= 2)
    kept = store.get(job.id)
    assert kept is not None and (kept.status, kept.state_step) == ("queued", 3)
    make(studio, store, results, lambda: idle(store))
    whole = generated(studio.load(()), orders.request_of(order, results, None), tmp_path / "video.mp4")
    assert file_of(store, results, job) == whole
    denoised = [event.data["step"] for event in store.events(job.id) if event.data.get("stage") == "denoise"]
    assert denoised == [1, 2, 3, 3, 4]  # it went on from the third


def test_loras_of_a_job_act_exactly_as_those_of_generate_and_are_gone_in_the_next(
    studio: Studio, found: weights.Weights, store: Store, tmp_path: Path
) -> None:
    results, loras = Results(tmp_path / "files"), tmp_path / "loras"
    loras.mkdir()
    model = checkpoint.load_transformer(found.transformer, torch.float32, torch.device("cpu"))
    save_lora(random_lora(model), loras / "style.safetensors", "kohya")
    plain = Order("A cat", sampling(found, 2))
    styled = Order("A cat", sampling(found, 2), loras=(NamedLora("style", "0.8"),))
    jobs = [submit(store, order) for order in (styled, plain)]
    make(studio, store, results, lambda: idle(store), loras)
    with_lora, without = (file_of(store, results, job) for job in jobs)
    adapters = (Adapter(loras / "style.safetensors", Strengths(0.8)),)
    pipe = HunyuanVideo.load(found, Runtime(device="cpu", attention="sdpa"), None, adapters)
    assert with_lora == generated(pipe, Request("A cat", styled.sampling, adapters=adapters), tmp_path / "video.mp4")
    assert without == generated(studio.load(()), Request("A cat", plain.sampling), tmp_path / "video.mp4")


def test_a_video_has_a_picture_and_a_sheet_and_shows_itself_meanwhile(
    studio: Studio, found: weights.Weights, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "SHOW_EVERY", 0.0)
    results, order = Results(tmp_path / "files"), Order("A cat", sampling(found, 2))
    job = submit(store, order)
    make(studio, store, results, lambda: idle(store))
    done = store.get(job.id)
    assert done is not None
    sizes = {}
    for kind in ("thumbnail", "spritesheet"):
        with results.open(done.files[kind]) as file, Image.open(file) as picture:
            sizes[kind] = (picture.format, picture.size)
    assert sizes == {"thumbnail": ("WEBP", (32, 32)), "spritesheet": ("WEBP", (3 * 32, 2 * 32))}
    assert [event.data["step"] for event in store.events(job.id) if event.kind == "preview"] == [1, 2]


# --- As commands ---


class Server:
    """`hunyuan-video serve` with the embedded model."""

    def __init__(self, folder: Path, *flags: str):
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "hunyuan_video", "serve", "--port", str(self.port), "--data", str(folder), "--device", "cpu"]
        self.log = folder.with_name("log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *flags], stderr=log)

    def wait_until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
            try:
                if what():
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        pytest.fail(f"not within {PATIENCE} s")

    def ask(self, prompt: str, steps: int = 2) -> str:
        body = {"prompt": prompt, "size": "32x32", "num_frames": 5, "num_steps": steps, "seed": 1}
        answer = httpx.post(f"{self.url}/v1/videos", json=body, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()["id"]

    def look(self, job_id: str) -> dict[str, Any]:
        return httpx.get(f"{self.url}/v1/videos/{job_id}", timeout=30).json()

    def is_ready(self) -> bool:
        return httpx.get(f"{self.url}/ready").status_code == 200


@contextmanager
def server(folder: Path, *flags: str) -> Iterator[Server]:
    started = Server(folder, *flags)
    try:
        yield started
    finally:
        started.process.kill()  # its processes end with it
        started.process.wait()


def processes_with(word: str) -> list[int]:
    """Those whose command line has it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in words and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_restart_in_the_middle_of_ten_videos_loses_none(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    with server(folder) as first:
        first.wait_until(first.is_ready)
        jobs = [first.ask(f"video {number}") for number in range(10)]
        first.wait_until(lambda: first.look(jobs[2])["status"] == "completed")
        first.process.kill()
        first.process.wait()
        deadline = time.monotonic() + 60
        while processes_with(str(folder)):  # nobody is left behind
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with server(folder) as second:
        second.wait_until(lambda: second.look(jobs[5])["status"] == "completed")
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(60) == 128 + signal.SIGTERM and not processes_with(str(folder))
    with server(folder) as third:
        third.wait_until(lambda: third.look(jobs[9])["status"] == "completed")
        ended = [third.look(job) for job in jobs]
        assert [(job["status"], job["prompt"]) for job in ended] == [("completed", f"video {number}") for number in range(10)]
        crashes = [job.crashes for job in Store(f"sqlite:///{folder / 'jobs.db'}").list(limit=20)[0]]
        print(f"\n10 of 10 videos made over a kill -9 and a SIGTERM of the server; {sum(crashes)} ended with their worker")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_processes_make_one_video_together_as_generate_does_and_cancel_and_drain_together(tmp_path: Path) -> None:
    folder, fast = tmp_path / "server", ("--attention", "sdpa")
    with server(folder, "--gpus", "2", *fast) as served:
        served.wait_until(served.is_ready)
        job, cancelled = served.ask("A cat"), served.ask("A dog", steps=100)
        served.wait_until(lambda: served.look(cancelled)["status"] == "in_progress" and served.look(cancelled)["progress"] > 3)
        httpx.post(f"{served.url}/v1/videos/{cancelled}/cancel")
        served.wait_until(lambda: served.look(cancelled)["status"] == "failed")
        assert served.look(cancelled)["error"]["code"] == "cancelled"
        content = httpx.get(f"{served.url}/v1/videos/{job}/content").content
        unfinished = served.ask("A fox", steps=100)
        served.wait_until(lambda: served.look(unfinished)["status"] == "in_progress" and served.look(unfinished)["progress"] > 3)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 128 + signal.SIGTERM and not processes_with(str(folder))
    released = Store(f"sqlite:///{folder / 'jobs.db'}").get(unfinished)
    assert released is not None and (released.status, released.crashes) == ("queued", 0) and released.state_step > 0
    command = [sys.executable, "-m", "hunyuan_video", "generate", "A cat", "--gpus", "2", "--device", "cpu", *fast, "--seed", "1"]
    small = ["--height", "32", "--width", "32", "--num-frames", "5", "--num-steps", "2", "--out", str(tmp_path / "out")]
    path = subprocess.run([*command, *small], check=True, capture_output=True, text=True).stdout.strip()
    assert content == Path(path).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ray_places_workers_and_starts_anew_what_it_loses(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    folder = tmp_path / "server"
    with server(folder, "--workers", "ray") as served:
        served.wait_until(served.is_ready)
        first = served.ask("A cat")
        served.wait_until(lambda: served.look(first)["status"] == "completed")
        second = served.ask("A dog", steps=100)
        served.wait_until(lambda: served.look(second)["status"] == "in_progress")
        (actor,) = processes_with("ray::Holder")
        os.kill(actor, signal.SIGKILL)
        served.wait_until(lambda: served.look(second)["status"] == "completed")
        assert processes_with("ray::Holder") not in ([], [actor])
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 128 + signal.SIGTERM
        assert not [pid for pid in processes_with(str(folder)) if pid in processes_with("hunyuan_video")]
