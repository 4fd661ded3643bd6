"""A language model behind a URL that speaks OpenAI's protocol, as vLLM, Ollama, llama.cpp and hosted ones do."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from hunyuan_video.config import require
from hunyuan_video.rewriting.backend import MAX_ANSWER_BYTES, BackendError, Messages

_PASSING = (408, 409, 425, 429)  # and all from 500


@dataclass(frozen=True)
class Remote:
    """`url` is what clients call the base, such as http://localhost:11434/v1; the key is shown to nobody but that server."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    """seconds, for a whole answer; a server may load its model first"""
    purpose: str = "rewrite"
    """what it is asked for, as settings and the key's variable name it"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/").removesuffix("/chat/completions"))
        _check_url(self.url, self.purpose, self.variable)
        require(
            bool(self.model.strip()), f"{self.purpose}_model is empty; give the model's name at the server ({self.url}/models lists them)."
        )
        if self.key is not None:
            object.__setattr__(self, "key", self.key.strip())
            require(
                self.key.isascii() and self.key.isprintable() and " " not in self.key,
                f"The key in ${self.variable} has characters that no key has, such as a line break; set the variable again.",
            )

    @property
    def name(self) -> str:
        return f"remote {self.model}"

    @property
    def variable(self) -> str:
        """Of the environment, from which the key is read."""
        return f"HUNYUAN_VIDEO_{self.purpose.upper()}_KEY"

    def answer(self, messages: Messages) -> str:
        # Nothing but what every server knows: newer hosted models refuse max_tokens and a temperature.
        body = json.dumps({"model": self.model, "messages": messages}).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "hunyuan-video"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return _content(self._post(Request(f"{self.url}/chat/completions", body, headers)))

    def _post(self, request: Request) -> bytes:
        end = time.monotonic() + self.timeout
        try:
            with build_opener(_Stay).open(request, timeout=self.timeout) as response:
                return _read(response, end)
        except HTTPError as error:
            with error:
                raise BackendError(self._refusal(error), passing=error.code in _PASSING or error.code >= 500) from None
        except (OSError, HTTPException) as error:
            if isinstance(getattr(error, "reason", error), TimeoutError):
                raise BackendError(f"{self.url} did not answer within {self.timeout:g} seconds", passing=True) from error
            reason = getattr(error, "reason", None) or error
            raise BackendError(f"{self.url} cannot be reached ({str(reason) or type(reason).__name__})", passing=True) from error

    def _refusal(self, error: HTTPError) -> str:
        if 300 <= error.code < 400:
            return (
                f"{self.url} sends elsewhere ({error.code}), where the prompt and the key do not go; give the address that answers itself"
            )
        if error.code in (401, 403):  # whose words may hold the key
            return f"{self.url} refuses the key ({error.code}); set ${self.variable} to one that it knows"
        if error.code == 404:
            return f"{self.url} knows no chat/completions, or no model {self.model!r} (404)"
        return f"{self.url} failed with status {error.code}"


class _Stay(HTTPRedirectHandler):
    """Follows no redirect, for it would take the prompt and the key to somebody else."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


def _check_url(url: str, purpose: str, variable: str) -> None:
    example = "such as http://localhost:11434/v1"
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        right = parts.scheme in ("http", "https") and bool(host) and url.isascii() and url.isprintable() and " " not in url
        _ = parts.port  # raises
    except ValueError:
        right = False
    require(right, f"{purpose}_url is {url[:200]!r}; it must be an http or https address, {example}.")
    bare = not (parts.username or parts.password or parts.query or parts.fragment)  # pyright: ignore[reportPossiblyUnboundVariable]
    require(bare, f"{purpose}_url must be a plain address, {example}; a key goes into ${variable}.")


def _read(response: HTTPResponse, end: float) -> bytes:
    """The whole body; a server that never ends is left."""
    body = b""
    while chunk := response.read1(2**16):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise BackendError("the answer is endless", passing=False)
        if time.monotonic() > end:
            raise TimeoutError
    return body


def _content(body: bytes) -> str:
    """Of the first choice."""
    try:
        whole: Any = json.loads(body)
        choice = whole["choices"][0]
        content = choice["message"]["content"]
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if part.get("type") == "text")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BackendError("what came is no answer of a chat model (choices[0].message.content)", passing=True) from error
    if not isinstance(content, str) or not content.strip():
        raise BackendError("the answer is empty", passing=True)
    if choice.get("finish_reason") == "length":
        raise BackendError("the answer was cut off by the server's limit of tokens", passing=True)
    return content
