"""What comes in from a browser: no file but what it has uploaded, and no more than is allowed."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from desks import Kept, listening
from served import picture

from hunyuan_video.demo import desk
from hunyuan_video.serving import orders
from hunyuan_video.serving.store import Store

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'hunyuan-video[demo]'")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # of what Gradio asks pandas for
    "ignore::ResourceWarning",  # of pictures that it leaves open
)


class Visitor:
    """Somebody who speaks to the page without a browser, and says what they like."""

    def __init__(self, kept: Kept, address: str):
        self.kept, self.http = kept, httpx.Client(base_url=address, timeout=30, trust_env=False)
        config = self.http.get("/config").json()
        self.components = {component["id"]: component for component in config["components"]}
        self.events = config["dependencies"]

    def generate(self, field: str, value: Any) -> bool:
        """Press the button with one field at `value`; whether that went well."""
        return self.press("generate", {"prompt": "a cat", field: value})

    def press(self, name: str, fields: dict[str, Any], act: dict[str, Any] | None = None) -> bool:
        pressed = next(i for i, component in self.components.items() if component["props"].get("elem_id") == name)
        event = next(event for event in self.events if [pressed, "click"] in event["targets"])
        props = [self.components[i]["props"] for i in event["inputs"]]
        data = [fields.get(own.get("elem_id", ""), own.get("value")) for own in props]
        body = {"data": data, "fn_index": event["id"], "session_hash": "visitor", "event_data": act}
        self.http.post("/gradio_api/queue/join", json=body).raise_for_status()
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": "visitor"}) as events:
            for line in events.iter_lines():
                said = json.loads(line.removeprefix("data: ") or "{}")
                if said.get("msg") == "process_completed":
                    return said["success"]
        raise AssertionError("The page said nothing.")

    def upload(self, content: bytes, name: str = "x.png") -> str:
        return self.http.post("/gradio_api/upload", files={"files": (name, content)}).json()[0]

    @property
    def jobs(self) -> int:
        return len(self.kept.store.list()[0])


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    kept = Kept(tmp_path_factory.mktemp("sealed"))
    with listening(kept.desk) as address:
        visitor = Visitor(kept, address)
        yield visitor
        visitor.http.close()
    kept.close()


def file_at(path: Path | str, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}} | more


def test_a_picture_that_was_uploaded_is_taken(visitor: Visitor) -> None:
    before = visitor.jobs
    assert visitor.generate("picture", file_at(visitor.upload(picture()))) and visitor.jobs == before + 1


@pytest.mark.parametrize(
    "around",
    [
        lambda path: file_at(path),
        lambda path: file_at(path, orig_name="x.svg"),
        lambda path: file_at(path, is_stream=True),
        lambda path: {"path": path},
    ],
    ids=["plain", "svg", "stream", "bare"],
)
def test_a_file_of_the_server_is_not(visitor: Visitor, tmp_path: Path, around: Callable[[str], Any]) -> None:
    secret, before = tmp_path / "secret.png", visitor.jobs
    secret.write_bytes(picture())
    assert not visitor.generate("picture", around(str(secret))) and visitor.jobs == before


def test_a_file_of_the_server_is_not_copied_for_any_field(visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secret := tmp_path / "secret.png").write_bytes(picture(level=99))
    (uploads := tmp_path / "uploads").mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    for field in ("prompt", "seed", "size"):
        for value in (file_at(secret), file_at(uploads / ".." / secret.name), {"path": str(uploads), "deep": [file_at(secret)]}):
            assert not visitor.generate(field, value)
    assert list(uploads.iterdir()) == []


def test_a_file_without_end_is_not_read(visitor: Visitor) -> None:
    assert not visitor.generate("picture", file_at("/dev/zero"))
    assert visitor.http.get("/health").status_code == 200


@pytest.mark.parametrize("field", ["picture", "prompt"])
def test_the_server_asks_no_other_host_for_a_file(visitor: Visitor, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    asked: list[str] = []
    own = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **also: asked.append(host) or own("127.0.0.1", *more, **also))
    address = "http://pictures.example/x.png"
    assert not visitor.generate(field, file_at(address)) and not visitor.generate(field, [{"deep": file_at(address)}])
    assert visitor.http.get(f"/gradio_api/file={address}").status_code == 403
    assert {host for host in asked if host != "127.0.0.1"} == set()


def test_nothing_waits_for_the_store_or_a_picture_where_the_page_is_served(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: set[str] = set()

    def watch(owner: Any, name: str) -> None:
        own = getattr(owner, name)

        def watched(*arguments: Any, **more: Any) -> Any:
            with suppress(RuntimeError):
                asyncio.get_running_loop()
                waited.add(name)
            return own(*arguments, **more)

        monkeypatch.setattr(owner, name, watched)

    for name in ("submit", "get", "list", "cancel", "delete"):
        watch(Store, name)
    for place in (orders, desk):
        watch(place, "picture_in")
    assert visitor.generate("picture", file_at(visitor.upload(picture())))
    job = visitor.kept.store.list()[0][0]
    for act in ("show", "again", "cancel", "delete"):
        assert visitor.press("gallery", {}, {"act": act, "job": job.id})
    assert visitor.kept.store.get(job.id) is None and waited == set()


def test_nobody_sends_more_than_is_allowed(visitor: Visitor) -> None:
    from hunyuan_video.demo.site import AROUND

    most = visitor.kept.desk.rules.max_body + AROUND
    sent = itertools.repeat(b" " * 2**20, most // 2**20 + 1)  # in pieces, without saying how many
    assert visitor.http.post("/gradio_api/queue/join", content=sent).status_code == 413
    files = [("files", (f"{number}.png", b" " * 2**20)) for number in range(most // 2**20 + 1)]  # each of which might come alone
    assert visitor.http.post("/gradio_api/upload", files=files).status_code == 413
