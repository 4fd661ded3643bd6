"""Clients that we did not write: OpenAI's own, all its methods, sync and async, against a real server."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from served import ANN, BOB, MP4, Served, picture

from hunyuan_video.video import save_video
from hunyuan_video.weights import EMBEDDED

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server with a worker."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "loras").mkdir()
    (folder / "loras" / "style.safetensors").write_bytes(b"")
    served = Served(folder, loras=folder / "loras")
    with served.working(), served.listening() as address:
        yield address
    served.close()


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=ANN, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def done(client: openai.OpenAI) -> Any:
    """A finished video."""
    return client.videos.create_and_poll(prompt="a cat", size="1280x720", seconds="4", poll_interval_ms=20)


def test_create_and_poll_gives_a_finished_video_of_what_was_asked_for(done: Any) -> None:
    assert (done.status, done.progress, done.size, done.seconds, done.prompt) == ("completed", 100, "1280x720", "4", "a cat")
    assert done.error is None and done.object == "video" and done.expires_at > done.created_at


def test_create_then_poll_by_the_servers_own_pace(client: openai.OpenAI) -> None:
    queued = client.videos.create(prompt="a cat")
    assert queued.status == "queued"
    assert client.videos.poll(queued.id).status == "completed"


def test_our_fields_go_through_extra_body(client: openai.OpenAI) -> None:
    ours = {"num_steps": 3, "seed": 9, "cfg_scale": 1.5, "negative_prompt": "blur", "loras": [{"name": "style", "strengths": 0.5}]}
    video = client.videos.create(prompt="a cat", extra_body=ours)
    assert video.model_extra is not None
    parameters = video.model_extra["parameters"]
    assert {name: parameters[name] for name in ours} == ours | {"loras": [{"name": "style", "strengths": "0.5"}]}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_goes_as_bytes_or_in_a_body(kind: str, client: openai.OpenAI) -> None:
    given = picture(kind=kind)
    assert client.videos.create(prompt="a cat", input_reference=given).model_extra["parameters"]["input_reference"] is True  # pyright: ignore
    assert client.videos.create(prompt="a cat", input_reference=("x.txt", given)).id


def test_a_list_pages_by_itself(client: openai.OpenAI) -> None:
    made = [client.videos.create(prompt=f"cat {number}").id for number in range(5)]
    with openai.OpenAI(base_url=client.base_url, api_key=BOB, max_retries=0) as other:
        assert list(other.videos.list()) == []
    newest = []
    for video in client.videos.list(limit=2):
        newest.append(video.id)
        if len(newest) == 5:
            break
    assert newest == made[::-1]
    assert client.videos.list(order="asc", limit=1).data[0].id not in made


@pytest.mark.parametrize("variant", ["video", "thumbnail", "spritesheet"])
def test_each_variant_is_downloaded(variant: Any, client: openai.OpenAI, done: Any, tmp_path: Path) -> None:
    content = client.videos.download_content(done.id, variant=variant)
    content.write_to_file(tmp_path / "file")
    assert (content.read() == MP4) is (variant == "video") and (tmp_path / "file").stat().st_size > 0


def test_a_remix_knows_where_it_comes_from(client: openai.OpenAI, done: Any) -> None:
    remix = client.videos.remix(done.id, prompt="a blue cat")
    assert (remix.remixed_from_video_id, remix.prompt, remix.size) == (done.id, "a blue cat", "1280x720")


def test_an_extension_by_the_file_of_a_video(client: openai.OpenAI, tmp_path: Path) -> None:
    path = save_video(np.zeros((5, 64, 64, 3), np.uint8), tmp_path / "video.mp4", metadata=None)
    extension = client.videos.extend(prompt="and then", seconds="4", video=path)
    assert extension.seconds == "4" and extension.model_extra["parameters"]["input_reference"] is True  # pyright: ignore


def test_an_edit_by_the_file_of_a_video(client: openai.OpenAI, tmp_path: Path) -> None:
    path = save_video(np.zeros((129, 64, 64, 3), np.uint8), tmp_path / "video.mp4", metadata=None)
    edit = client.videos.edit(prompt="as a drawing", video=path)
    assert edit.prompt == "as a drawing" and edit.model_extra["parameters"]["strength"] == 0.6  # pyright: ignore


def test_what_weights_cannot_is_a_bad_request_with_a_sentence(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="here") as raised:
        client.videos.create_character(video=MP4, name="b")
    assert raised.value.code == "not_supported"
    with pytest.raises(openai.NotFoundError):
        client.videos.get_character("c")


def test_errors_have_the_clients_types(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.videos.create(prompt="a", extra_body={"num_stepps": 5})
    assert (raised.value.param, raised.value.code, raised.value.type) == ("num_stepps", "unknown_parameter", "invalid_request_error")
    assert raised.value.request_id is not None and "did you mean 'num_steps'?" in raised.value.message
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve("video_1")
    with openai.OpenAI(base_url=client.base_url, api_key="wrong", max_retries=0) as other, pytest.raises(openai.AuthenticationError):
        other.videos.list()


def test_delete_and_models(client: openai.OpenAI) -> None:
    made = client.videos.create(prompt="a cat")
    assert client.videos.delete(made.id).deleted is True
    assert [model.id for model in client.models.list()] == ["tiny"] and client.models.retrieve("tiny").id == "tiny"


def test_raw_and_streamed_answers(client: openai.OpenAI, done: Any, tmp_path: Path) -> None:
    raw = client.videos.with_raw_response.retrieve(done.id)
    assert raw.headers["x-request-id"].startswith("req_") and raw.parse().id == done.id
    again = client.videos.with_raw_response.create(prompt="a cat", extra_headers={"Idempotency-Key": "k"})
    assert again.parse().id == client.videos.create(prompt="a cat", extra_headers={"Idempotency-Key": "k"}).id
    with client.videos.with_streaming_response.download_content(done.id) as content:
        content.stream_to_file(tmp_path / "video.mp4")
    assert (tmp_path / "video.mp4").read_bytes() == MP4


def test_the_async_client_can_all_of_it(address: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=ANN, max_retries=0) as client:
            video = await client.videos.create_and_poll(prompt="a cat", input_reference=picture(), poll_interval_ms=20)
            assert video.status == "completed" and (await client.videos.retrieve(video.id)).id == video.id
            assert (await client.videos.poll(video.id)).id == video.id
            assert (await client.videos.create(prompt="a dog")).status == "queued"
            assert [found.id async for found in client.videos.list(limit=100)].count(video.id) == 1
            assert (await client.videos.download_content(video.id)).read() == MP4
            assert (await client.videos.remix(video.id, prompt="b")).remixed_from_video_id == video.id
            path = save_video(np.zeros((1, 64, 64, 3), np.uint8), tmp_path / "video.mp4", metadata=None)
            assert (await client.videos.extend(prompt="b", seconds="4", video=path)).id
            raw = await client.videos.with_raw_response.retrieve(video.id)
            assert raw.headers["x-request-id"]
            async with client.videos.with_streaming_response.download_content(video.id) as content:
                assert await content.read() == MP4
            for refused in (client.videos.edit(prompt="b", video=MP4), client.videos.create_character(name="b", video=MP4)):
                with pytest.raises(openai.BadRequestError):
                    await refused
            with pytest.raises(openai.NotFoundError):
                await client.videos.get_character("c")
            assert (await client.videos.delete(video.id)).deleted

    asyncio.run(run())


@pytest.mark.slow
def test_aiperf_measures_it(address: str, tmp_path: Path) -> None:
    aiperf = os.environ.get("AIPERF") or shutil.which("aiperf")
    if aiperf is None:
        pytest.skip("aiperf is not there; it has requirements of its own: install it apart and name the command in $AIPERF")
    command = [
        aiperf, "profile", "--model", "tiny", "--url", address, "--endpoint-type", "video-generation", "--api-key", ANN,
        "--request-count", "8", "--concurrency", "2", "--tokenizer", str(EMBEDDED / "text_encoder"), "--ui", "none",
        "--artifact-dir", str(tmp_path), "--extra-inputs", "size:64x64",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    report = next(tmp_path.rglob("profile_export_aiperf.json")).read_text(encoding="utf-8")
    print(report)
    assert re.search(r'"request_count":\s*\{[^}]*"avg":\s*8', report)
