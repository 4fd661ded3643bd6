"""What Prometheus reads."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from served import HERE, Served

from hunyuan_video.serving.api import create_app
from hunyuan_video.serving.jobs import NewJob, Order
from hunyuan_video.serving.store import Store


def samples(client: TestClient) -> dict[tuple[str, ...], float]:
    text = client.get("/metrics").text
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items(), reverse=True))): sample.value  # the bound last
        for sample in found
        if sample.name.startswith("hunyuan_video")
    }


def test_jobs_steps_errors_and_memory_are_counted(tmp_path: Path) -> None:
    served = Served(tmp_path, keys={})
    client = TestClient(served.app, base_url=HERE)
    assert samples(client)["hunyuan_video_jobs", "queued"] == 0
    for _ in range(4):
        client.post("/v1/videos", json={"prompt": "a cat"})
    served.finish()
    served.store.fail(served.begin(), "out_of_memory", "no")
    served.store.report(served.begin(), "denoise", 1, 4, memory=12345)
    found = samples(client)
    assert [found["hunyuan_video_jobs", status] for status in ("queued", "in_progress", "completed", "failed")] == [1, 1, 1, 1]
    assert found["hunyuan_video_queue_age_seconds",] > 0 and found["hunyuan_video_workers",] == 1
    assert found["hunyuan_video_errors_total", "out_of_memory"] == 1
    assert found["hunyuan_video_worker_peak_memory_bytes", "w"] == 12345
    assert found["hunyuan_video_step_seconds_count", "denoise"] == 5 and found["hunyuan_video_stage_seconds_count", "denoise"] == 1
    assert found["hunyuan_video_job_seconds_count", "completed"] == found["hunyuan_video_job_seconds_count", "failed"] == 1
    assert found["hunyuan_video_step_seconds_bucket", "denoise", "+Inf"] == 5
    assert samples(TestClient(create_app(served.store, served.results, served.rules), base_url=HERE)).keys() == found.keys()
    served.close()


def test_times_are_those_of_the_steps_and_outlive_the_jobs(tmp_path: Path) -> None:
    served, now = Served(tmp_path, keys={}), [1000.0]
    store = Store(str(served.store.engine.url), lease=10_000, clock=lambda: now[0])
    client = TestClient(create_app(store, served.results, served.rules), base_url=HERE)
    job = store.submit(NewJob("video_" + "1" * 32, "local", "tiny", Order("a cat", served.rules.defaults)))
    now[0] += 5
    claim = store.claim("w")
    assert claim is not None
    for stage, step, total, seconds in (("encode", 1, 1, 2), ("denoise", 1, 2, 20), ("denoise", 2, 2, 40), ("decode", 1, 1, 3)):
        now[0] += seconds
        store.report(claim, stage, step, total)
    store.finish(claim, {}, {})
    store.delete(job.id)
    found = samples(client)
    sums = {"job": ("completed", 70), "stage": ("denoise", 60), "step": ("denoise", 60)}
    assert all(found[f"hunyuan_video_{kind}_seconds_sum", label] == seconds for kind, (label, seconds) in sums.items())
    assert [found["hunyuan_video_step_seconds_bucket", "denoise", bound] for bound in ("10.0", "30.0", "60.0", "+Inf")] == [0, 1, 2, 2]
    assert found["hunyuan_video_stage_seconds_sum", "decode"] == 3 and found["hunyuan_video_stage_seconds_sum", "encode"] == 2
    store.close()
    served.close()
