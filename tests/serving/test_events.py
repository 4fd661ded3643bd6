"""Following a video by server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from served import HERE, Served, picture

from hunyuan_video.serving import events, routes
from hunyuan_video.serving.jobs import Event


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(events, "LOOK", 0.01)
    served = Served(tmp_path, keys={})
    yield served
    served.close()


@pytest.fixture
def client(served: Served) -> TestClient:
    return TestClient(served.app, base_url=HERE)


def parsed(text: str) -> list[tuple[str, int | None, dict]]:
    """Kind, id and data of each event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((fields["event"], int(fields["id"]) if "id" in fields else None, json.loads(fields["data"])))
    return found


def ordered(client: TestClient) -> str:
    return client.post("/v1/videos", json={"prompt": "a cat", "num_steps": 2}).json()["id"]


def test_a_finished_video_tells_its_whole_story_and_the_stream_ends(client: TestClient, served: Served) -> None:
    made = ordered(client)
    served.finish()
    response = client.get(f"/v1/videos/{made}/events")
    assert response.headers["content-type"].startswith("text/event-stream") and response.text.startswith("retry: ")
    story = parsed(response.text)
    assert [kind for kind, _, _ in story] == ["queued", "step", "step", "preview", "completed"]
    assert story[1][2] | {"at": 0} == {"at": 0, "stage": "denoise", "step": 1, "total": 2, "progress": 46}
    assert story[-1][2]["video"] == client.get(f"/v1/videos/{made}").json()


def test_who_comes_again_hears_only_what_is_new(client: TestClient, served: Served) -> None:
    made = ordered(client)
    served.finish()
    story = parsed(client.get(f"/v1/videos/{made}/events").text)
    again = client.get(f"/v1/videos/{made}/events", headers={"Last-Event-ID": str(story[2][1])})
    assert parsed(again.text) == story[3:]
    over = client.get(f"/v1/videos/{made}/events", headers={"Last-Event-ID": str(story[-1][1])})
    assert over.status_code == 200 and parsed(over.text) == []
    assert client.get(f"/v1/videos/{made}/events", headers={"Last-Event-ID": "x"}).status_code == 400


def test_previews_come_while_a_video_is_made_and_silence_is_broken(
    client: TestClient, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.0)
    ordered(client)
    claim = served.begin()

    async def follow() -> list[str]:
        stream = events.follow(served.store, served.results, claim.job, 0, 24)
        heard = []
        async for text in stream:
            heard.append(text)
            if text.startswith(":") and len(heard) < 5:
                content = picture(kind="WEBP")
                served.store.report(claim, "denoise", 1, 2, preview=served.results.put(f"{claim.folder}/preview.webp", content))
            elif "event: preview" in text:
                served.store.fail(claim, "server_error", "no")
        return heard

    heard = asyncio.run(follow())
    story = parsed("".join(heard))
    assert [kind for kind, _, _ in story] == ["queued", "step", "preview", "failed"]
    assert story[2][2]["picture"].startswith("data:image/webp;base64,")
    assert story[3][2]["video"]["error"]["code"] == "server_error" and any(text.startswith(":") for text in heard)


def test_an_end_between_two_looks_at_the_database_is_told_as_it_is(
    client: TestClient, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, look = ordered(client), served.store.events

    def events_after_the_end(job_id: str, after: int = 0) -> list[Event]:
        if served.store.counts()["queued"]:
            served.finish()
        return look(job_id, after)

    monkeypatch.setattr(served.store, "events", events_after_the_end)
    story = parsed(client.get(f"/v1/videos/{made}/events").text)
    assert [kind for kind, _, _ in story].count("completed") == 1 and story[-1][2]["video"]["status"] == "completed"


def test_a_video_that_is_deleted_ends_the_stream(client: TestClient, served: Served) -> None:
    made = ordered(client)

    async def follow() -> str:
        heard = ""
        job = served.store.get(made)
        assert job is not None
        async for text in events.follow(served.store, served.results, job, 0, 24):
            heard += text
            served.store.delete(made)
        return heard

    assert [kind for kind, _, _ in parsed(asyncio.run(follow()))][-1] == "deleted"


def test_one_owner_follows_so_many_at_once(client: TestClient, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ordered(client)
    served.finish()
    followers = served.app.state.service.followers
    followers["local"] = routes.MAX_FOLLOWERS
    refused = client.get(f"/v1/videos/{made}/events")
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "too_many_followers"
    followers["local"] -= 1
    assert [client.get(f"/v1/videos/{made}/events").status_code for _ in range(2)] == [200, 200]
    assert followers["local"] == routes.MAX_FOLLOWERS - 1  # an end makes room


def test_many_who_follow_hold_no_thread(served: Served) -> None:
    """More of them than there are threads, and the next request is answered all the same."""

    async def crowd(address: str) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=address, limits=limits, timeout=30, trust_env=False) as client:
            made = (await client.post("/v1/videos", json={"prompt": "a cat"})).json()["id"]
            heard: list[str] = []
            all_follow = asyncio.Event()

            async def follow() -> None:
                async with client.stream("GET", f"/v1/videos/{made}/events") as response:
                    async for line in response.aiter_lines():
                        if line.startswith("event: "):
                            heard.append(line)
                        if heard.count("event: queued") == 60:
                            all_follow.set()

            followers = [asyncio.create_task(follow()) for _ in range(60)]
            await all_follow.wait()
            assert (await client.get(f"/v1/videos/{made}")).json()["status"] == "queued"
            await client.post(f"/v1/videos/{made}/cancel")
            await asyncio.gather(*followers)
            assert heard.count("event: failed") == 60

    with served.listening() as address:
        asyncio.run(crowd(address))
