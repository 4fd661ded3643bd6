"""Who asks, and what goes out with every answer. Imports no torch."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import uuid
from collections.abc import Iterable, Mapping, MutableMapping
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hunyuan_video.config import require
from hunyuan_video.serving.errors import ApiError
from hunyuan_video.serving.rules import LOCAL

log = logging.getLogger(__name__)
SHORTEST_KEY = 16
LARGE, AT_ONCE = 2**20, 8  # bytes from which a body waits for its turn, and how many have one, for each is held in memory
SECONDS = 120.0  # in which such a body must have come, once it has its turn
HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


def read_keys(lines: Iterable[str]) -> dict[str, str]:
    """What is kept of keys that stand as NAME=KEY, one a line; empty lines and those that begin with # are passed over.

    Raises:
        ValueError: a line is none, a name comes twice, or a key is short. No sentence shows a key.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        name, equals, key = (part.strip() for part in line.partition("="))
        require(bool(equals and name), f"Line {number} of the keys is not NAME=KEY.")
        require(name not in keys, f"Line {number} of the keys has the name {name!r}, which an earlier one has; give each its own.")
        require(len(name) <= 200, f"Line {number} of the keys has a name of {len(name)} characters; the limit is 200.")
        require(
            len(key) >= SHORTEST_KEY,
            f"The key {name!r} has {len(key)} characters; it must have {SHORTEST_KEY} or more: python -c "
            "'import secrets; print(secrets.token_urlsafe(32))'",
        )
        keys[name] = digest_of(key)
    return keys


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def owner_of(keys: Mapping[str, str], authorization: str | None) -> str:
    """The name of the key in an Authorization header. A wrong key takes as long as a right one: digests are compared, with all of them.

    Raises an ApiError, 401, if there is none.
    """
    if not keys:
        return LOCAL
    scheme, _, key = (authorization or "").partition(" ")
    given = digest_of(key.strip())
    found = [name for name, digest in keys.items() if compare_digest(digest, given)]
    if scheme.lower() != "bearer" or not found:
        said = "The key is not known here." if key else "A key is missing."
        raise ApiError(401, f"{said} Send it in the header Authorization: Bearer KEY.", headers={"www-authenticate": "Bearer"})
    return found[0]


def refuse_pages(headers: Mapping[str, str]) -> None:
    """Where no key is asked for, any web page could have its visitor's browser order videos here, for browsers send forms without asking.
    But they say from where: this API has no pages, so none of these is ours. Raises an ApiError, 403."""
    if "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise ApiError(403, "A web page may not ask for this where no key is needed; start the server with keys.")


def is_own(host: str) -> bool:
    """Whether only this machine reaches the address, by any of its names."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def refuse_other_names(host: str) -> None:
    """Where no key is asked for, a page could have its own name lead to this machine, and its visitor's browser would then show it every
    answer as if it were of its own server. But the browser still says that name in the header Host. Raises an ApiError, 421."""
    with contextlib.suppress(ValueError):
        if is_own(urlsplit(f"//{host}").hostname or ""):
            return
    raise ApiError(421, "Without keys or invitations this server answers to http://localhost and http://127.0.0.1 alone.")


class Guard:
    """The outermost layer: ids and headers of answers, the limit of what comes in, and an answer also when something breaks inside."""

    def __init__(self, app: ASGIApp, max_body: int, is_open: bool, headers: Mapping[str, str] = HEADERS):
        self.app, self.max_body, self.is_open, self.headers = app, max_body, is_open, headers
        self.large = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id, started = f"req_{uuid.uuid4().hex}", False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update({**self.headers, "x-request-id": request_id})
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            if self.is_open:
                refuse_other_names(Headers(scope=scope).get("host", ""))
            self._check_length(scope)
            async with contextlib.AsyncExitStack() as turn:
                await self.app(scope, self._counted(receive, turn), answer)
        except ApiError as error:
            await error.response()(scope, receive, answer)
        except ClientDisconnect:
            return
        except Exception:  # the server's last word: nobody else would answer, and the next request must find it alive
            log.exception("%s failed (%s %s).", request_id, scope["method"], scope["path"])
            if not started:
                said = f"Something broke on the server; its log has more about {request_id}."
                await ApiError(500, said).response()(scope, receive, answer)

    def _check_length(self, scope: MutableMapping[str, Any]) -> None:
        length = Headers(scope=scope).get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > self.max_body:
            raise self._too_large()

    def _counted(self, receive: Receive, turn: contextlib.AsyncExitStack) -> Receive:
        taken, until, is_whole = 0, None, False

        async def counting() -> Message:
            nonlocal taken, until, is_whole
            try:
                async with asyncio.timeout_at(None if is_whole else until):
                    message = await receive()
            except TimeoutError as error:
                raise ApiError(408, "The body came too slowly; send it again.", code="too_slow", headers={"connection": "close"}) from error
            taken, is_whole = taken + len(message.get("body", b"")), not message.get("more_body", False)
            if taken > self.max_body:
                raise self._too_large()
            if taken > LARGE and until is None:
                await turn.enter_async_context(self.large)
                until = asyncio.get_running_loop().time() + SECONDS
            return message

        return counting

    def _too_large(self) -> ApiError:
        said = f"The body has more than {self.max_body} bytes, which is the limit; send less."
        return ApiError(413, said, headers={"connection": "close"})
