"""The site: who comes in, and whose files are given to whom."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from desks import Kept, site_of
from fastapi.testclient import TestClient
from served import ANN, BOB

from hunyuan_video.serving.jobs import Job
from hunyuan_video.serving.security import digest_of

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'hunyuan-video[demo]'")
KEYS = {"ann": digest_of(ANN), "bob": digest_of(BOB)}


def client_of(kept: Kept, address: str = "http://localhost") -> TestClient:
    return TestClient(site_of(kept.desk), address, follow_redirects=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    kept = Kept(tmp_path_factory.mktemp("site"), KEYS)
    yield kept
    kept.close()


@pytest.fixture(scope="module")
def job(kept: Kept) -> Job:
    """Ann's, made."""
    kept.make("ann")
    return kept.finish(kept.begin())


@pytest.fixture(scope="module")
def client(kept: Kept) -> TestClient:
    return client_of(kept, "https://testserver")


@pytest.fixture
def stranger(client: TestClient) -> TestClient:
    client.cookies.clear()
    return client


def log_in(client: TestClient, name: str, key: str) -> int:
    client.cookies.clear()
    return client.post("/login", data={"name": name, "key": key}).status_code


@pytest.mark.parametrize(
    "path", ["/config", "/gradio_api/info", "/gradio_api/upload", "/videos/video_0/video", "/theme.css", "/assets/x.js"]
)
def test_a_stranger_gets_nothing(stranger: TestClient, path: str) -> None:
    assert stranger.get(path).status_code == stranger.post(path).status_code == 401


def test_a_stranger_is_led_to_the_login(stranger: TestClient) -> None:
    answer = stranger.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "login")
    assert stranger.get("/login").status_code == stranger.get("/health").status_code == 200


def test_a_key_opens_the_page_by_a_cookie_that_scripts_and_other_sites_do_not_get(stranger: TestClient) -> None:
    answer = stranger.post("/login", data={"name": "ann", "key": ANN})
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 303 and all(word in cookie for word in ("httponly", "secure", "samesite=strict")) and ANN not in cookie
    page = stranger.get("/")
    assert page.status_code == 200 and "gradio" in page.text
    assert stranger.post("/logout").status_code == 303 and stranger.get("/").status_code == 303


def test_a_wrong_key_opens_nothing(stranger: TestClient) -> None:
    assert [log_in(stranger, *given) for given in (("ann", BOB), ("", ""), ("eve", ANN))] == [401] * 3
    assert stranger.post("/login", content=b"x" * 5000).status_code == 413
    assert stranger.get("/").status_code == 303


def test_a_video_is_its_owners_alone(client: TestClient, job: Job) -> None:
    paths = [f"/videos/{job.id}/{what}" for what in ("video", "thumbnail", "spritesheet")]
    log_in(client, "bob", BOB)
    assert [client.get(path).status_code for path in paths] == [404] * 3
    log_in(client, "ann", ANN)
    assert [client.get(path).status_code for path in paths] == [200] * 3
    part = client.get(paths[0], headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content, part.headers["content-type"]) == (206, b"ftyp", "video/mp4")


@pytest.mark.parametrize(
    "path",
    [
        "{id}/state",
        "{id}/..%2f..%2fjobs.db",
        "{id}/%2e%2e/jobs.db",
        "..%2f..%2fjobs.db/video",
        "video_%00/video",
        "{id}/video.mp4",
        "{id}/",
    ],
)
def test_nothing_but_a_videos_files_is_given(client: TestClient, job: Job, path: str) -> None:
    log_in(client, "ann", ANN)
    assert client.get(f"/videos/{path.format(id=job.id)}").status_code == 404


def test_gradio_gives_no_file_of_the_server_away(client: TestClient, kept: Kept, job: Job) -> None:
    log_in(client, "ann", ANN)
    folder = kept.served.folder
    for path in (folder / "jobs.db", folder / "files" / job.files["video"], Path(__file__), Path("/etc/passwd")):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_a_browser_is_told_to_fetch_nothing_from_elsewhere(stranger: TestClient) -> None:
    policy = stranger.get("/login").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy


@pytest.fixture(scope="module")
def open_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    kept = Kept(tmp_path_factory.mktemp("open"))
    yield client_of(kept)
    kept.close()


def test_without_keys_the_page_is_for_this_machines_names_alone(open_client: TestClient) -> None:
    assert open_client.get("/").status_code == 200
    assert open_client.get("/", headers={"Host": "127.0.0.1:8081"}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "10.0.0.1"):
        assert open_client.get("/", headers={"Host": host}).status_code == 421


def test_gradio_tells_nobody_and_offers_no_other_door(open_client: TestClient) -> None:
    config = json.loads(open_client.get("/config").text)
    assert config["analytics_enabled"] is False and config.get("footer_links") == []
    assert all(event["api_visibility"] == "private" for event in config["dependencies"])


def test_the_site_is_made_without_torch_and_without_a_connection(tmp_path: Path) -> None:
    code = """
import socket, sys
def refuse(*_): raise AssertionError("a connection")
socket.socket.connect = socket.getaddrinfo = refuse
from hunyuan_video import weights
from hunyuan_video.demo.offer import Offer
import hunyuan_video.apps.demo, hunyuan_video.demo.site
assert not {"torch", "transformers"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
