"""A server on this machine that speaks as much of OpenAI's protocol as is asked for, and has faults to order."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: object, **more: object) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, **more}]}).encode()


class FakeLLM:
    """Each request gets the next of `answers`, the last one again and again: a text, a whole body, or a function that answers by itself."""

    def __init__(self, *answers: str | bytes | Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []  # bodies
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.url = ""

    def next(self) -> str | bytes | Callable[[BaseHTTPRequestHandler], None]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    with contextlib.suppress(OSError):  # a client may leave
        handler.wfile.write(body)


def failing(status: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: reply(handler, status, body, **headers)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"data: {}\n\n" * 10_000)


@contextlib.contextmanager
def serving(*answers: str | bytes | Callable[[BaseHTTPRequestHandler], None]) -> Iterator[FakeLLM]:
    llm = FakeLLM(*answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            llm.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.note()
            answer = llm.next()
            if callable(answer):
                answer(self)
            else:
                reply(self, 200, answer if isinstance(answer, bytes) else completion(answer))

        def do_GET(self) -> None:  # nobody should
            self.note()
            reply(self, 200, completion("A dog walks."))

        def note(self) -> None:
            llm.headers.append(dict(self.headers))
            llm.paths.append(self.path)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        llm.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield llm
        finally:
            server.shutdown()
            thread.join()
