"""The web application: the page, the videos' files for whom they are, and who comes in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hunyuan_video.demo import login
from hunyuan_video.demo.desk import Desk
from hunyuan_video.demo.form import Form
from hunyuan_video.demo.layout import CSS, THEME
from hunyuan_video.demo.page import build
from hunyuan_video.serving.content import send_content
from hunyuan_video.serving.errors import ApiError
from hunyuan_video.serving.jobs import check_id
from hunyuan_video.serving.rules import LOCAL
from hunyuan_video.serving.security import is_own

MAX_UPLOAD, MAX_LOGIN = "20mb", 4096  # bytes
AROUND = 2**16  # bytes that Gradio has around what is sent
LOGIN = Path(__file__).with_name("login.html").read_text(encoding="utf-8")
OPEN = ("/login", "/health")  # what may be asked for by anybody
ELSEWHERE = ("/gradio_api/file=http:", "/gradio_api/file=https:")  # where Gradio would fetch from other hosts for its users
HEADERS = {
    # Gradio's templates are made into functions, and its styles stand in the page. Nothing comes from another host, and nothing goes there.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def create_site(desk: Desk, opening: Form) -> FastAPI:
    """The application of a desk; its page has its fields at `opening`."""
    app = FastAPI(title="HunyuanVideo", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(ApiError, lambda _, error: error.response())  # pyright: ignore[reportAttributeAccessIssue]
    keys = desk.rules.keys

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/videos/{job_id}/{what}")
    def file(request: Request, job_id: str, what: str) -> Response:
        job = desk.store.get(job_id, whose(keys, request)) if check_id(job_id) else None
        if job is None or what not in job.files:
            raise HTTPException(404, "There is no such file of yours.")
        return send_content(request, job, what, desk.results)

    @app.get("/login")
    def ask() -> Response:
        return HTMLResponse(LOGIN)

    @app.post("/login")
    async def come_in(request: Request) -> Response:
        given = parse_qs((await _body(request)).decode(errors="replace"))
        name, key = (given.get(field, [""])[0].strip() for field in ("name", "key"))
        if not login.admits(keys, name, key):
            return HTMLResponse(LOGIN.replace("<!-- said -->", "<p class='wrong'>That is not a key of that name.</p>"), 401)
        response = RedirectResponse("./", 303)
        secure = request.url.scheme == "https"  # behind a proxy, what it says (uvicorn's proxy_headers)
        response.set_cookie(
            login.COOKIE, login.session(keys, name, time.time()), login.LASTS, httponly=True, samesite="strict", secure=secure
        )
        return response

    @app.post("/logout")
    def leave() -> Response:
        response = RedirectResponse("login", 303)
        response.delete_cookie(login.COOKIE, httponly=True, samesite="strict")
        return response

    page: dict[str, Any] = {"theme": THEME, "css": CSS, "max_file_size": MAX_UPLOAD, "footer_links": []}
    off = dict.fromkeys(("run_history", "ssr_mode", "enable_monitoring", "pwa", "mcp_server"), False)
    gr.mount_gradio_app(app, build(desk, opening), "/", auth_dependency=lambda request: whose(keys, request), **page, **off)
    app.add_middleware(Guard, keys=keys, max_body=desk.rules.max_body + AROUND)
    return app


def whose(keys: Mapping[str, str], request: Request) -> str | None:
    """Who asks; None of a stranger."""
    return login.owner_of(keys, request.cookies.get(login.COOKIE), time.time()) if keys else LOCAL


class Guard:
    """Before everything else: strangers only get to the login, nobody sends more than `max_body` bytes, every answer has the headers."""

    def __init__(self, app: ASGIApp, keys: Mapping[str, str], max_body: int):
        self.app, self.keys, self.max_body = app, keys, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if not self.keys and not is_own(Request(scope).url.hostname or ""):
            # Somebody's web page that has its name point at this machine, and so would be taken for ours by the browser.
            return await Response("Without keys this is for http://localhost alone.", 421)(scope, receive, answered)
        if scope["path"].startswith(ELSEWHERE):
            return await Response("This gives its own files alone.", 403)(scope, receive, answered)
        if scope["path"] in OPEN or whose(self.keys, Request(scope)) is not None:
            return await self.app(scope, self._counted(receive), answered)
        wants_page = scope["method"] == "GET" and scope["path"] == "/"
        response = RedirectResponse("login", 303) if wants_page else Response("Log in first.", 401)
        await response(scope, receive, answered)

    def _counted(self, receive: Receive) -> Receive:
        taken = 0

        async def counting() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.max_body:
                # Which the innermost application answers, for Gradio's would make another error a broken server.
                raise HTTPException(413, f"This is more than {self.max_body} bytes; send a smaller picture.", {"connection": "close"})
            return message

        return counting


async def _body(request: Request) -> bytes:
    """Of a login, which is short."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_LOGIN:
            raise HTTPException(413, "That is no key.")
    return body
