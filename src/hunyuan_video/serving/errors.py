"""Errors as OpenAI's clients read them: {"error": {message, type, param, code}} with every status. Imports no torch."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from hunyuan_video.serving.faults import for_strangers
from hunyuan_video.serving.jobs import NO_SPACE, KeyReusedError, QueueFullError

BUSY = 5  # seconds after which to ask again when the database or the disk gives no room
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {
    400: "invalid_value", 401: "invalid_api_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 409: "conflict",
    413: "request_too_large", 415: "unsupported_media_type", 416: "range_not_satisfiable", 421: "misdirected_request",
    429: "queue_full", 500: "server_error", 503: "unavailable",
}  # fmt: skip
_SENTENCES = {
    404: "There is nothing here; the paths are in /openapi.json.",
    405: "This path does not know this method; /openapi.json says which it knows.",
}


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """What comes with every status that is no success."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Mapping[str, str] = {}):
        super().__init__(message)
        self.status, self.message, self.headers = status, _whole(message), headers
        self.param = None if param is None else _whole(param)
        self.code = code or _CODES[status]

    def response(self) -> JSONResponse:
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        detail = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": detail}, self.status, dict(self.headers))


def _whole(text: str) -> str:
    """JSON can hold half a character, in names too, and answers cannot."""
    return text.encode(errors="backslashreplace").decode()


def refused(error: ValueError, fields: Mapping[str, str]) -> ApiError:
    """The answer to a value that cannot be. Our sentences begin with the name of the field, or `fields` knows their beginning."""
    said = str(error)
    beginning = next((name for start, name in fields.items() if re.match(rf"{re.escape(start)}\b", said)), None)
    return ApiError(400, for_strangers(said), param=beginning)


def unknown(kind: str, name: str, known: Iterable[str]) -> ApiError:
    """The answer to a name that nobody here knows, with the one that may be meant."""
    near = difflib.get_close_matches(name, known := list(known), 1, 0.5)
    said = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}."
    return ApiError(400, f"There is no {kind} {name[:100]!r}; {said}", param=name[:100], code="unknown_parameter")


def of_parameters(_: Request, error: Any) -> JSONResponse:
    """The answer to a parameter, or a field of a body, that is of another kind."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return ApiError(400, "The body is not valid JSON.", code="invalid_json").response()
    name = str(first["loc"][-1])
    said = "missing" if first["type"] == "missing" else f"{first['input']!r:.100}; {first['msg'].lower()}"
    return ApiError(400, f"{name} is {said}.", param=name).response()


def handle_errors(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Every error that one of these routes raises becomes an answer of this form."""

    def allowed(request: Request) -> str:
        """The methods of a path, of which Starlette says only those of its first route."""
        known = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
        return ", ".join(sorted({method for route in known for method in getattr(route, "methods", ())}))

    def ours(_: Request, error: Any) -> JSONResponse:
        return error.response()

    def starlettes(request: Request, error: Any) -> JSONResponse:
        status = error.status_code if error.status_code in _CODES else 400
        headers = {"allow": allowed(request)} if status == 405 else error.headers or {}
        return ApiError(status, _SENTENCES.get(status, f"{error.detail}."), headers=headers).response()

    def queue_full(_: Request, error: Any) -> JSONResponse:
        return ApiError(429, str(error), headers={"retry-after": str(error.retry_after)}).response()

    def key_reused(_: Request, error: Any) -> JSONResponse:
        return ApiError(409, str(error), code="idempotency_key_reused").response()

    def database(_: Request, error: Any) -> JSONResponse:
        return ApiError(503, "The database cannot be reached; try again in a moment.", headers={"retry-after": str(BUSY)}).response()

    def disk(_: Request, error: Any) -> JSONResponse:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise error
        said = "There is no room for files on this server; try again later."
        return ApiError(503, said, code=NO_SPACE, headers={"retry-after": str(BUSY)}).response()

    for kind, handler in (
        (ApiError, ours),
        (HTTPException, starlettes),
        (RequestValidationError, of_parameters),
        (QueueFullError, queue_full),
        (KeyReusedError, key_reused),
        (OperationalError, database),
        (InterfaceError, database),
        (TimeoutError, database),  # of the pool of connections
        (OSError, disk),
    ):
        app.add_exception_handler(kind, handler)
