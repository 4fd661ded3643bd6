"""Clips from any server with OpenAI's videos API: asked for, waited for and fetched, several at a time. Imports no torch.

Which video was asked for is written down before it is waited for, so an interrupted run pays for none twice; and so is each failure. An
order whose answer is lost is sent again under the same Idempotency-Key, by which a server that knows such keys makes one video of both.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

import httpx

from hunyuan_video.config import require
from hunyuan_video.containers import open_container, video_stream
from hunyuan_video.evaluation.study import Prompt, Study
from hunyuan_video.files import replacing

log = logging.getLogger(__name__)

TRIES = 3
TIMEOUT = 60.0  # seconds without a byte
PATIENCE = 6 * 3600.0  # seconds for one video
BUSY = (408, 409, 429, 500, 502, 503, 504)  # who says one of these may be asked again
UNFINISHED = ("queued", "in_progress")  # states of a video that may still be completed
GONE = (404, 410)  # who says one of these of a video has it no more


class FailedError(Exception):
    """A clip that was not made; the message is the server's."""


@dataclass(frozen=True)
class Endpoint:
    url: str
    """such as https://api.openai.com/v1"""
    body: Mapping[str, Any]
    """what goes with each prompt: model, size, seconds, and what else the server knows"""
    key: str | None = None
    seeds: bool = False
    """whether it takes a `seed`, as `hunyuan-video serve` does"""
    in_flight: int = 4
    pause: float = 2.0
    """seconds between two looks at a video"""

    def __post_init__(self) -> None:
        require(self.url.startswith(("http://", "https://")), f"{self.url!r} is no address; give one such as http://127.0.0.1:8000/v1.")
        require(self.in_flight >= 1, f"in_flight is {self.in_flight}; it must be 1 or more.")
        require(self.pause > 0, f"pause is {self.pause}; it must be above 0 seconds.")


def fetch(study: Study, name: str, endpoint: Endpoint) -> Iterator[tuple[Prompt, str | None]]:
    """Make what is missing; yields each prompt when its clip is there, or with why it is not. What is said to have failed has been tried
    `TRIES` times, unless the server refused it."""
    stop = Event()
    headers = {} if endpoint.key is None else {"Authorization": f"Bearer {endpoint.key}"}
    with httpx.Client(base_url=endpoint.url.rstrip("/") + "/", headers=headers, timeout=TIMEOUT, follow_redirects=True) as client:
        with ThreadPoolExecutor(endpoint.in_flight) as pool:
            making = _Making(study, name, endpoint, client, stop)
            jobs = {pool.submit(making.clip, prompt): prompt for prompt in study.missing(name)}
            try:
                for job in as_completed(jobs):
                    yield jobs[job], job.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Making:
    study: Study
    name: str
    endpoint: Endpoint
    client: httpx.Client
    stop: Event

    def clip(self, prompt: Prompt) -> str | None:
        """None, or why there is none."""
        reason = "the run was stopped"
        for number in range(TRIES):
            if self.stop.is_set():
                return reason
            try:
                return self._try(prompt)
            except (FailedError, httpx.HTTPError) as error:
                if self.stop.is_set():
                    return reason
                reason = str(error) or type(error).__name__
                self._note(prompt, reason)
                if isinstance(error, _RefusedError):
                    return reason
            self.stop.wait(self.endpoint.pause * 2**number)
        return reason

    def _try(self, prompt: Prompt) -> None:
        """Raises a FailedError, or an httpx.HTTPError where the server cannot be reached."""
        asked = self.study.folder / "asked" / self.name / f"{prompt.id}.json"
        known = json.loads(asked.read_text(encoding="utf-8")) if asked.is_file() else {}
        video = known if "id" in known else self._ask(prompt, asked, known.get("nonce") or secrets.token_hex(16))
        try:
            self._wait(video)
            self._download(video["id"], self.study.clip(self.name, prompt.id))
        except _GoneError:
            asked.unlink(missing_ok=True)  # only another order can make the clip; after all else this one is still to be had
            raise
        asked.unlink(missing_ok=True)

    def _wait(self, video: Mapping[str, Any]) -> None:
        """Until it can be fetched."""
        deadline = time.monotonic() + PATIENCE
        while video["status"] in UNFINISHED:
            if self.stop.wait(self.endpoint.pause) or time.monotonic() > deadline:
                raise FailedError(f"video {video['id']} was {video['status']} when it was waited for no longer")
            video = self._json(self.client.get(_path(video["id"])))
        if video["status"] != "completed":  # failed, cancelled, expired, or whatever else a server has
            error = video.get("error")
            told = error.get("message") if isinstance(error, dict) else error
            raise _GoneError(str(told or f"the server says no more than that it is {video['status']}"))

    def _ask(self, prompt: Prompt, asked: Path, nonce: str) -> dict[str, Any]:
        seed = {"seed": self.study.seed_of(prompt.id)} if self.endpoint.seeds else {}
        body = {"prompt": prompt.prompt, **self.endpoint.body, **seed}
        _keep(asked, {"nonce": nonce})
        key = hashlib.sha256(json.dumps([nonce, body]).encode()).hexdigest()  # another order of the same clip has another
        video = self._json(self.client.post("videos", json=body, headers={"Idempotency-Key": key}))
        _keep(asked, video)
        return video

    def _download(self, id: str, to: Path) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        with replacing(to) as (temporary, _):
            with self.client.stream("GET", f"{_path(id)}/content") as response:
                _check(response)
                with temporary.open("wb") as file:
                    for piece in response.iter_bytes():
                        file.write(piece)
            try:
                with open_container(temporary) as container:
                    video_stream(container)
            except ValueError as error:
                raise _GoneError(f"what came as video {id} is none ({error})") from error

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        _check(response)
        try:
            found = response.json()
        except ValueError:  # no JSON, or not all of it
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("id"), str) or "status" not in found:
            raise FailedError("the server's answer is no video with id and status; is it an address of the videos API?")
        return found

    def _note(self, prompt: Prompt, reason: str) -> None:
        """A line more of what went wrong; lines are written whole, by one process."""
        line = json.dumps({"system": self.name, "id": prompt.id, "time": int(time.time()), "reason": reason}, ensure_ascii=False)
        with (self.study.folder / "failures.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        log.warning("%s, prompt %s: %s", self.name, prompt.id, reason)


def _path(id: str) -> str:
    """Whatever a server calls a video."""
    return f"videos/{quote(id, safe='')}"


def _keep(path: Path, what: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as (temporary, _):
        temporary.write_text(json.dumps(what), encoding="utf-8")


class _RefusedError(FailedError):
    """The server will say the same again."""


class _GoneError(FailedError):
    """No video will ever come of this order."""


def _check(response: httpx.Response) -> None:
    """Raises a FailedError for an answer that is none of success."""
    if response.is_success:
        return
    try:
        response.read()
        told = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        told = response.text[:200]
    if response.status_code in BUSY:
        kind = FailedError
    else:
        kind = _GoneError if response.request.method == "GET" and response.status_code in GONE else _RefusedError
    raise kind(f"{response.status_code}: {told}")
