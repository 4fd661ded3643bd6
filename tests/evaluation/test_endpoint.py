"""Clips from a server: our own API with a worker that makes real files, and what goes wrong with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from media_files import at, write_video
from served import ANN, Served

from hunyuan_video.apps.study import ByEndpoint, run
from hunyuan_video.evaluation.endpoint import TRIES, Endpoint, fetch
from hunyuan_video.evaluation.seen import read
from hunyuan_video.evaluation.study import Prompt, Source, Study, System
from hunyuan_video.serving.jobs import INTERNAL, Order

PROMPTS = tuple(Prompt(f"{number:04}", f"cat number {number}") for number in range(3))
SOURCE = Source("own.txt", "00", rewritten=False, benchmark="own")
CLIENT = httpx.Client  # as it is without a script


@pytest.fixture
def study(tmp_path) -> Study:
    return Study.create(tmp_path / "study", SOURCE, PROMPTS, seed=5).with_systems([System("api", "endpoint")])


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    served.close()


@pytest.fixture(scope="module")
def address(served: Served) -> Iterator[str]:
    with served.listening() as address:
        yield f"{address}/v1"


def asked_of(address: str, key: str = ANN, **body: object) -> Endpoint:
    return Endpoint(address, {"num_steps": 1} | body, key, seeds=True, in_flight=2, pause=0.01)


@contextmanager
def working(served: Served, made: Callable[[Order], bytes | None]) -> Iterator[list[Order]]:
    """A worker who makes what `made` says of an order, or fails; and the orders that he had."""
    stop, orders = threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            claim = served.store.claim("w", "tiny")
            if claim is None:
                stop.wait(0.01)
                continue
            orders.append(claim.job.order)
            content = made(claim.job.order)
            if content is None:
                served.store.fail(claim, INTERNAL, "out of paint")
            else:
                served.finish(claim, content)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield orders
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def filmed(tmp_path) -> Callable[[Order], bytes]:
    """A clip of as many frames as the seed says."""
    return lambda order: write_video(tmp_path / f"{order.sampling.seed}.mp4", at(24, order.sampling.seed)).read_bytes()


def reasons(study: Study) -> list[str]:
    return [json.loads(line)["reason"] for line in (study.folder / "failures.jsonl").read_text(encoding="utf-8").splitlines()]


def test_each_prompt_is_made_once_with_its_seed(study, served, address, filmed):
    with working(served, filmed) as orders:
        assert {(prompt.id, why) for prompt, why in fetch(study, "api", asked_of(address))} == {(prompt.id, None) for prompt in PROMPTS}
        assert list(fetch(study, "api", asked_of(address))) == []
    assert [len(read(study.clip("api", prompt.id)).frames) for prompt in PROMPTS] == [5, 6, 7] and len(orders) == 3


def test_what_failed_is_tried_again_and_written_down(study, served, address, filmed):
    failures = iter([True, False])
    with working(served, lambda order: None if order.sampling.seed == 6 and next(failures) else filmed(order)) as orders:
        assert all(why is None for _, why in fetch(study, "api", asked_of(address)))
    assert len(orders) == 4 and reasons(study) == ["out of paint"]


def test_what_fails_again_and_again_is_left_for_the_next_run(study, served, address, filmed):
    made = ByEndpoint(asked_of(address))
    with working(served, lambda order: None if order.sampling.seed == 6 else filmed(order)):
        with pytest.raises(OSError, match=r"1 of 3 clips of api were not made; .*failures\.jsonl says why"):
            made.make(study, "api")
    assert reasons(study) == ["out of paint"] * TRIES
    with working(served, filmed) as orders:
        made.make(study, "api")
    assert len(orders) == 1 and study.missing("api") == ()


def test_what_a_server_refuses_is_not_asked_again(study, address):
    found = {why for _, why in fetch(study, "api", asked_of(address, num_steps=10**6))}
    assert len(found) == 1 and "num_steps" in str(found) and len(reasons(study)) == 3


def test_a_video_that_was_asked_for_before_is_not_paid_for_twice(study, served, address, filmed):
    run_1 = fetch(study, "api", asked_of(address))
    with working(served, filmed) as orders:
        next(run_1)
        run_1.close()  # what else is on its way is left there
        waiting = [json.loads(path.read_text()) for path in (study.folder / "asked" / "api").glob("*.json")]
        list(fetch(study, "api", asked_of(address)))
    assert study.missing("api") == () and len(orders) == 3, waiting


def test_what_comes_and_is_no_video_is_a_failure(study, served, address):
    with working(served, lambda order: b"<html>"):
        found = {why for _, why in fetch(study, "api", asked_of(address))}
    assert found and all("is none" in str(why) for why in found) and len(study.missing("api")) == 3


def test_an_address_of_something_else_is_said_so(study, address):
    found = {why for _, why in fetch(study, "api", asked_of(address.removesuffix("/v1")))}
    assert found and all(str(why).startswith("404") for why in found)


def test_settings_are_part_of_the_study_and_the_key_is_not(study, served, address, filmed):
    with working(served, filmed):
        made = run(study.folder, SOURCE, PROMPTS, 5, {"other": ByEndpoint(asked_of(address))})
    assert made.system("other").made_with == {"url": address, "num_steps": 1, "seeds": True}
    assert ANN not in (study.folder / "study.json").read_text(encoding="utf-8")


class Scripted:
    """A server that makes one answer after the other to orders, to looks and to who fetches; the last one again and again."""

    def __init__(
        self, orders: Iterable[httpx.Response] = (), looks: Iterable[httpx.Response] = (), contents: Iterable[httpx.Response] = ()
    ):
        self.answers = {"order": list(orders) or [video("queued")], "look": list(looks) or [video("completed")], "content": list(contents)}
        self.asked: list[str] = []
        self.keys: list[str] = []
        self.paths: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        kind = "order" if request.method == "POST" else "content" if request.url.path.endswith("/content") else "look"
        self.asked.append(kind)
        self.paths.append(request.url.raw_path.decode())
        if kind == "order":
            self.keys.append(request.headers["idempotency-key"])
        left = self.answers[kind]
        answer = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def video(status: str, **more: object) -> httpx.Response:
    return httpx.Response(200, json={"id": "video_1", "status": status} | more)


@pytest.fixture
def one(study) -> Study:
    """A study of one prompt."""
    return Study.create(study.folder.parent / "one", SOURCE, PROMPTS[:1], seed=5).with_systems([System("api", "endpoint")])


@pytest.fixture
def content(tmp_path) -> httpx.Response:
    return httpx.Response(200, content=write_video(tmp_path / "made.mp4", at(24, 5)).read_bytes())


@pytest.fixture
def fetched(one, monkeypatch) -> Callable[[Scripted], str | None]:
    """Fetches the one clip from such a server, and gives why there is none."""

    def fetch_it(server: Scripted) -> str | None:
        monkeypatch.setattr(httpx, "Client", partial(CLIENT, transport=httpx.MockTransport(server)))
        ((_, why),) = fetch(one, "api", asked_of("http://test/v1"))
        return why

    return fetch_it


def orders_of(study: Study) -> list[Path]:
    """What has been asked for and not come."""
    return list((study.folder / "asked" / "api").glob("*.json"))


@pytest.mark.parametrize("status", [429, 503])
def test_who_is_busy_while_a_video_is_fetched_is_not_paid_again(one, fetched, content, status):
    server = Scripted(contents=[httpx.Response(status), content])
    assert fetched(server) is None and one.missing("api") == () and orders_of(one) == []
    assert server.asked.count("order") == 1 and server.asked.count("content") == 2


@pytest.mark.parametrize("status", [401, 403, 503])
def test_an_order_is_kept_when_a_look_at_it_is_refused(one, fetched, content, status):
    why = fetched(Scripted(looks=[httpx.Response(status)]))
    assert why is not None and why.startswith(str(status)) and len(orders_of(one)) == 1
    server = Scripted(contents=[content])
    assert fetched(server) is None and "order" not in server.asked


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("kind", ["looks", "contents"])
def test_what_a_server_has_no_more_is_asked_for_anew(one, fetched, content, kind, status):
    gone = httpx.Response(status)
    server = Scripted(**{"contents": [content]} | {kind: [gone, {"looks": video("completed"), "contents": content}[kind]]})
    assert fetched(server) is None and server.asked.count("order") == 2 and orders_of(one) == []
    assert len(set(server.keys)) == 2


def test_an_order_whose_answer_is_lost_is_the_same_order_when_sent_again(one, fetched, content):
    lost = httpx.Response(200, headers={"content-type": "application/json"}, content=b'{"id"')
    assert fetched(Scripted(orders=[lost])) is not None  # and is so in another run
    (kept,) = orders_of(one)
    server = Scripted(orders=[lost, video("queued")], contents=[content])
    nonce = json.loads(kept.read_text())["nonce"]
    assert fetched(server) is None and len(server.keys) == 2 and len(set(server.keys)) == 1
    assert nonce not in server.keys[0] and orders_of(one) == []


def test_a_video_that_is_none_is_asked_for_anew(one, fetched, content):
    server = Scripted(contents=[httpx.Response(200, content=b"<html>"), content])
    assert fetched(server) is None and server.asked.count("order") == 2


def test_half_an_answer_is_a_failure_and_keeps_the_order(one, fetched, content):
    half = httpx.Response(200, headers={"content-type": "application/json"}, content=b'{"id": "video_1", "sta')
    server = Scripted(looks=[half, video("completed")], contents=[content])
    assert fetched(server) is None and server.asked.count("order") == 1
    assert "no video with id and status" in reasons(one)[0]


def test_half_an_answer_to_every_order_ends_no_study(fetched):
    why = fetched(Scripted(orders=[httpx.Response(200, headers={"content-type": "application/json"}, content=b'{"id"')]))
    assert "no video with id and status" in str(why)


def test_a_videos_id_is_no_path(one, fetched, content):
    odd = httpx.Response(200, json={"id": "../\n?#1", "status": "queued"})
    server = Scripted(orders=[odd], contents=[content])
    assert fetched(server) is None and server.paths[1] == "/v1/videos/..%2F%0A%3F%231"


def test_looks_without_a_pause_are_refused():
    with pytest.raises(ValueError, match="it must be above 0 seconds"):
        Endpoint("http://127.0.0.1:1", {}, pause=0.0)


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
def test_what_ends_without_a_video_is_not_waited_for(one, fetched, content, status):
    server = Scripted(looks=[video("in_progress"), video(status, error=None), video("completed")], contents=[content])
    assert fetched(server) is None and server.asked.count("order") == 2
    assert reasons(one) == [f"the server says no more than that it is {status}"]
