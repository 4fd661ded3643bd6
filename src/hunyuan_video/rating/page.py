"""The page for raters over HTTP: its files, and what they ask for. No answer tells which system made a clip."""

from __future__ import annotations

from collections.abc import Collection
from hmac import compare_digest
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict

from hunyuan_video.rating.desk import Desk
from hunyuan_video.rating.store import CrowdedError, Rater
from hunyuan_video.serving import security
from hunyuan_video.serving.errors import ApiError, of_parameters

LASTS = 180 * 24 * 3600  # seconds
MAX_BODY = 4096  # bytes
NEVER = "Thu, 01 Jan 1970 00:00:00 GMT"  # for all clips, of which the real times would say which were made together
STATIC = Path(__file__).with_name("static")
FILES = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "words.js": ("words.js", "text/javascript"),
}
HEADERS = security.HEADERS | {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class Invitation(BaseModel):
    invitation: str = ""


class Answers(BaseModel):
    model_config = ConfigDict(extra="forbid")

    answers: dict[str, str]
    latency_ms: int


def create_page(desk: Desk, invitations: Collection[str] = (), *, is_local: bool = True) -> FastAPI:
    """The application of a desk. Who has one of the `invitations` may rate, or anybody if there are none; `is_local` says that only this
    machine reaches it, and no other name of it is then answered to."""
    cookie = f"rater-{desk.digest}"  # browsers send a host's cookies to all its ports, where other studies' pages may be
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(ApiError, lambda _, error: error.response())  # pyright: ignore[reportAttributeAccessIssue]
    app.add_exception_handler(RequestValidationError, of_parameters)
    for path, (name, kind) in FILES.items():
        app.add_api_route(f"/{path}", _static(name, kind), methods=["GET"])

    def whose(request: Request) -> Rater:
        rater = desk.rater(request.cookies.get(cookie, ""))
        if rater is None:
            raise ApiError(401, "You are not known here; open the page anew, and begin.", code="join_first")
        return rater

    def seen(rater: Rater, secret: str, number: int | None = None) -> dict[str, Any]:
        try:
            return desk.view(rater, number) | {"link": f"r/{secret}"}
        except LookupError as error:
            raise _not_there(number) from error

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/api/join")
    def join(request: Request, given: Invitation) -> Response:
        """Answers with the first task; whoever has joined goes on."""
        secret = request.cookies.get(cookie, "")
        rater = desk.rater(secret)
        if rater is not None:
            return JSONResponse(seen(rater, secret))
        invitation = given.invitation.encode("utf-8", "replace")  # JSON can hold half a character, which is nobody's
        if invitations and not any(compare_digest(invitation, known.encode()) for known in invitations):
            raise ApiError(403, "This needs a link of invitation; ask whoever has sent you here for one.", code="not_invited")
        try:
            rater, secret = desk.join()
        except CrowdedError as error:
            raise ApiError(429, str(error), code="too_many_raters", headers={"retry-after": "600"}) from error
        return _known(request, JSONResponse(seen(rater, secret)), cookie, secret)

    @app.get("/r/{secret}")
    def come_back(request: Request, secret: str) -> Response:
        """On another device, say."""
        response = RedirectResponse("../", 303)
        return response if desk.rater(secret) is None else _known(request, response, cookie, secret)

    @app.get("/api/task")
    def following(request: Request) -> dict[str, Any]:
        """Of who has not joined yet, only what it will be about."""
        secret = request.cookies.get(cookie, "")
        rater = desk.rater(secret)
        return {"mode": desk.design.mode} if rater is None else seen(rater, secret)

    @app.get("/api/task/{number}")
    def task(request: Request, number: int) -> dict[str, Any]:
        return seen(whose(request), request.cookies[cookie], number)

    @app.post("/api/task/{number}")
    def vote(request: Request, number: int, given: Answers) -> dict[str, Any]:
        """Answers with what follows."""
        rater = whose(request)
        try:
            desk.vote(rater, number, given.answers, given.latency_ms)
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        except LookupError as error:
            raise _not_there(number) from error
        return seen(rater, request.cookies[cookie])

    @app.get("/media/{name}.mp4")
    def media(request: Request, name: str) -> Response:
        path = desk.clip(whose(request), name)
        if path is None:
            raise ApiError(404, "There is no such clip for you.")
        headers = {"etag": f'"{name}"', "last-modified": NEVER, "cache-control": "private, max-age=86400"}
        return FileResponse(path, headers=headers, media_type="video/mp4", stat_result=path.stat())

    app.add_middleware(security.Guard, max_body=MAX_BODY, is_open=is_local and not invitations, headers=HEADERS)
    return app


def _static(name: str, kind: str) -> Any:
    content = (STATIC / name).read_bytes()

    def send() -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return send


def _known(request: Request, response: Response, cookie: str, secret: str) -> Response:
    secure = request.url.scheme == "https"  # behind a proxy, what it says
    response.set_cookie(cookie, secret, LASTS, httponly=True, samesite="lax", secure=secure)
    return response


def _not_there(number: int | None) -> ApiError:
    return ApiError(404, f"You have not come to {number} yet.")
