"""Files behind S3's interface, of a real server with a real client."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_studio import Studio, right_video

from hunyuan_video.config import FullSampling
from hunyuan_video.serving.jobs import NewJob, Order
from hunyuan_video.serving.migrations import upgrade
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.store import Store
from hunyuan_video.serving.worker import work

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of moto's and S3's libraries
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    s3fs = pytest.importorskip("s3fs", reason="S3's library is not there: pip install '.[s3]'")
    moto = pytest.importorskip("moto.server", reason="A server for S3 is not there: pip install 'moto[server]'")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    values = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}
    for name, value in values.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()  # it remembers the address of another test's server
    yield f"s3://{uuid.uuid4().hex}/videos"
    server.stop()


def test_files_come_back_from_s3_also_those_that_another_process_puts(bucket: str) -> None:
    results, job = Results(bucket), f"video_{uuid.uuid4().hex}"
    assert results.folders() == []
    Results(bucket).put(f"{job}/1/video.mp4", b"whole")
    with results.open(f"{job}/1/video.mp4") as file:
        assert file.read() == b"whole"
    assert results.size(f"{job}/1/video.mp4") == 5 and results.folders() == [job, f"{job}/1"]
    results.remove(job)
    results.remove(job)
    with pytest.raises(FileNotFoundError):
        results.size(f"{job}/1/video.mp4")
    assert results.folders() == []


def test_s3_that_does_not_answer_is_an_outage(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError):
        Results(bucket)


def test_a_worker_keeps_its_video_in_s3(bucket: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    upgrade(url)
    store, results = Store(url), Results(bucket)
    job = store.submit(NewJob(f"video_{uuid.uuid4().hex}", "ann", "fake", Order("a cat", FullSampling(num_steps=3))))
    work(store, results, Studio().craft(), name="w", model="fake", stop=lambda: store.counts()["completed"] == 1, poll=0.01)
    done = store.get(job.id)
    assert done is not None
    with results.open(done.files["video"]) as file:
        assert file.read() == right_video(job.order)
    store.close()
