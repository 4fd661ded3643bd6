"""Webhooks: what is sent, signed how, and where to."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import sqlalchemy.exc
from fastapi.testclient import TestClient
from served import HERE, SECRET, Served

from hunyuan_video.serving import webhooks
from hunyuan_video.serving.jobs import Delivery
from hunyuan_video.serving.webhooks import address_of, deliver, deliver_all

LISTED = ("127.0.0.1", "hooks.example.com")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path, keys={}, webhook_hosts=LISTED, webhook_secret=SECRET)
    yield served
    served.close()


@contextmanager
def receiver(*statuses: int, then: Callable[[], object] = lambda: None) -> Iterator[tuple[str, list[tuple[dict[str, str], str]]]]:
    """Answers one after the other, and keeps what came; a redirect leads to itself."""
    came: list[tuple[dict[str, str], str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"])).decode()))
            then()
            self.send_response(statuses[min(len(came), len(statuses)) - 1])
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook?x=1", came
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send_until(served: Served, enough: Callable[[], bool], at_once: int = 1) -> None:
    """Let the background task of the API work."""

    async def run() -> None:
        sending = asyncio.create_task(deliver_all(served.store, served.rules, look=0.01, pause=0.001, at_once=at_once))
        async with asyncio.timeout(60):
            while not enough():
                await asyncio.sleep(0.01)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    asyncio.run(run())


def ordered(served: Served, url: str) -> str:
    response = TestClient(served.app, base_url=HERE).post("/v1/videos", json={"prompt": "a cat", "webhook_url": url})
    assert response.status_code == 200, response.text
    return response.json()["id"]


def waiting(served: Served) -> bool:
    with served.store.engine.connect() as db:
        return db.exec_driver_sql("select count(*) from deliveries").scalar_one() > 0


def test_the_end_of_a_video_is_told_and_openais_client_believes_it(served: Served) -> None:
    client = openai.OpenAI(api_key="k", webhook_secret=SECRET)
    with receiver(200) as (url, came):
        done, failed = ordered(served, url), ordered(served, url)
        served.finish()
        served.store.fail(served.begin(), "server_error", "no")
        send_until(served, lambda: len(came) == 2 and not waiting(served))
    for (headers, body), job, kind in zip(came, (done, failed), ("video.completed", "video.failed"), strict=True):
        client.webhooks.verify_signature(body, headers)
        content = json.loads(body)
        assert content == {
            "id": headers["webhook-id"], "object": "event", "type": kind, "created_at": content["created_at"], "data": {"id": job},
        }  # fmt: skip
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.verify_signature(body.replace("completed", "failed").replace("}", " }"), headers)


def test_a_receiver_that_is_down_gets_it_again_under_the_same_id(served: Served) -> None:
    with receiver(500, 503, 204) as (url, came):
        ordered(served, url)
        served.finish()
        send_until(served, lambda: not waiting(served))
    assert len(came) == 3 and len({headers["webhook-id"] for headers, _ in came}) == 1


def test_a_redirect_is_not_followed(served: Served) -> None:
    with receiver(302, 200) as (url, came):
        ordered(served, url)
        served.finish()
        send_until(served, lambda: not waiting(served))
    assert len(came) == 2


def test_one_that_never_arrives_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_TRIES", 3)
    with receiver(500) as (url, came):
        ordered(served, url)
        served.finish()
        send_until(served, lambda: not waiting(served))
    assert len(came) == 3


def test_an_app_sends_while_it_runs(served: Served) -> None:
    arrived = threading.Event()
    with receiver(200, then=arrived.set) as (url, _), TestClient(served.app, base_url=HERE) as client:
        client.post("/v1/videos", json={"prompt": "a cat", "webhook_url": url})
        served.finish()
        assert arrived.wait(60)


@pytest.mark.parametrize("error", [sqlalchemy.exc.TimeoutError("pool"), sqlalchemy.exc.InterfaceError("select", {}, OSError("gone"))])
def test_whatever_the_database_says_webhooks_go_on(error: Exception, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    due, errors = served.store.due_delivery, [error]

    def failing_once(pause: float) -> Delivery | None:
        if errors:
            raise errors.pop()
        return due(pause)

    monkeypatch.setattr(served.store, "due_delivery", failing_once)
    with receiver(200) as (url, came):
        ordered(served, url)
        served.finish()
        send_until(served, lambda: not waiting(served))
    assert len(came) == 1


def test_a_slow_receiver_holds_up_no_other(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    other_came = threading.Event()
    with receiver(200, then=lambda: other_came.wait(60)) as (slow, held), receiver(200, then=other_came.set) as (url, came):
        ordered(served, slow)
        ordered(served, url)
        served.finish()
        served.finish()
        send_until(served, lambda: bool(came), at_once=2)
    assert held and came


def test_a_receiver_that_answers_a_byte_at_a_time_is_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "DEADLINE", 0.5)
    over, closed = asyncio.Event(), asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not over.is_set():
            writer.write(b"H")
            await asyncio.sleep(0.05)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        closed.set()

    async def run() -> str | None:
        async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server, httpx.AsyncClient() as client:
            port = server.sockets[0].getsockname()[1]
            delivery = Delivery(1, "video_" + "0" * 32, f"http://127.0.0.1:{port}/", "video.completed", 0.0, 0)
            try:
                return await asyncio.wait_for(deliver(client, delivery, served.rules), 30)
            finally:
                over.set()
                await closed.wait()

    assert asyncio.run(run()) == "the receiver did not answer within 0.5 s"


def resolves_to(*addresses: str) -> Callable[..., Any]:
    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 0)) for address in addresses]


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "::1", "fe80::1", "::ffff:10.0.0.1", "224.0.0.1"]
)
def test_a_name_that_leads_into_the_private_network_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolves_to("93.184.216.34", address))
    with pytest.raises(ValueError, match="no public address"):
        address_of("hooks.example.com", ("hooks.example.com",))


def test_an_address_that_is_listed_itself_may_be_private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolves_to("10.0.0.1"))
    assert address_of("10.0.0.1", ("10.0.0.1",)) == "10.0.0.1"


def test_it_goes_to_the_address_that_was_checked_and_asks_for_the_names_certificate(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[httpx.Request] = []
    monkeypatch.setattr(socket, "getaddrinfo", resolves_to("93.184.216.34"))

    async def run() -> str | None:
        transport = httpx.MockTransport(lambda request: (asked.append(request), httpx.Response(200))[1])
        async with httpx.AsyncClient(transport=transport) as client:
            delivery = Delivery(1, "video_" + "0" * 32, "https://hooks.example.com:8443/hook", "video.completed", 0.0, 0)
            return await deliver(client, delivery, served.rules)

    assert asyncio.run(run()) is None
    (request,) = asked
    assert (str(request.url), request.headers["host"]) == ("https://93.184.216.34:8443/hook", "hooks.example.com:8443")
    assert request.extensions["sni_hostname"] == "hooks.example.com"


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/", "https://other.example.com/", "https://hooks.example.com@other.example.com/", "ftp://127.0.0.1/",
        "https://u:p@hooks.example.com/", "https://hooks.example.com\\@x/", "https://hooks.example.com:x/", "https:///x",
        "hooks.example.com",
    ],
)  # fmt: skip
def test_other_places_are_refused_when_a_video_is_ordered(url: str, served: Served) -> None:
    error = TestClient(served.app, base_url=HERE).post("/v1/videos", json={"prompt": "a", "webhook_url": url})
    assert error.status_code == 400 and error.json()["error"]["param"] == "webhook_url"
