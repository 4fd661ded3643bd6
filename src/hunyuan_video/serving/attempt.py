"""One attempt at a job: its steps told to the store, its state kept, its files put where they can be had, and how it ended."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.exc import InterfaceError, OperationalError

from hunyuan_video.serving.faults import BrokenError, patiently, reason_of
from hunyuan_video.serving.jobs import CANCELLED, INTERNAL, NO_SPACE, Claim, LeaseLostError
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.store import Store

log = logging.getLogger(__name__)

KEEP_EVERY = 5.0  # seconds of work that an interruption may cost; more often would slow fast models down
SHOW_EVERY = 1.0  # seconds between two previews


class Made(Protocol):
    """A `Provenance`."""

    @property
    def sampling(self) -> Any: ...

    def to_json(self) -> dict[str, Any]: ...


class Step(Protocol):
    """A piece of work done, as `pipeline.Step`."""

    @property
    def stage(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def provenance(self) -> Made: ...
    @property
    def latents(self) -> Any: ...
    @property
    def new_frames(self) -> Any: ...


Make = Callable[[Any, tuple[int, Any] | None], Generator[Any]]


@dataclass(frozen=True)
class State:
    """Latents after `step` denoising steps of what `made` describes."""

    step: int
    made: dict[str, Any]
    latents: Any


class Files(Protocol):
    """What makes files of one video's steps, inside its block."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: object) -> None: ...

    def keep(self, state: State, path: Path) -> None:
        """Write a state, whole or not at all."""
        ...

    def read(self, path: Path) -> State:
        """What `keep` wrote. Raises a ValueError if it is damaged."""
        ...

    def preview(self, step: Any) -> bytes | None:
        """A small moving picture (WebP) of how far it is; None if there is none."""
        ...

    def add(self, step: Any) -> None:
        """Take the new frames of a step of decoding."""
        ...

    def finish(self, last: Any, folder: Path) -> dict[str, Path]:
        """Write the files of the video, of which this was the last step, into the folder; returns them by what they are."""
        ...


class Outcome(Enum):
    """How an attempt ended."""

    DONE = "done"
    FAILED = "failed"
    NO_ROOM = "failed for want of disk space"
    CANCELLED = "cancelled"
    RELEASED = "given back"
    LOST = "lost to another worker, or deleted"


class _CancelledError(RuntimeError):
    """Whoever asked for the video wants it no more."""


class Heartbeat:
    """Inside the block the lease is renewed, however long a step takes."""

    def __init__(self, store: Store, claim: Claim):
        self.cancelling = self.lost = False
        self._store, self._claim = store, claim
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat of {claim.job.id}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """Raises a LeaseLostError or a _CancelledError if it was told so."""
        if self.lost:
            raise LeaseLostError("The heartbeat has found it.")
        if self.cancelling:
            raise _CancelledError

    def _beat(self) -> None:
        while not self._over.wait(self._store.lease / 3):
            try:
                self.cancelling = self._store.renew(self._claim)
            except LeaseLostError:
                self.lost = True
                return
            except (OperationalError, InterfaceError):  # the database is away; it may be back before the lease has ended
                continue


class Attempt:
    """What a worker does with a claim. `stop()` says that it is to be given back after the running step, `memory()` how many bytes this
    worker has taken at most."""

    def __init__(
        self,
        store: Store,
        results: Results,
        make: Make,
        files: Files,
        claim: Claim,
        stop: Callable[[], bool],
        memory: Callable[[], int | None],
    ):
        self._store, self._results, self._make, self._files = store, results, make, files
        self._claim, self._stop, self._memory = claim, stop, memory
        self._kept_step, self._kept_at, self._shown_at = 0, time.monotonic(), 0.0
        self._heartbeat = Heartbeat(store, claim)

    def run(self, request: Callable[[], object]) -> Outcome:
        """Make the video that `request()` asks for.

        Raises:
            BrokenError: what makes videos cannot go on.
        """
        job = self._claim.job.id
        try:
            with self._heartbeat:
                return self._run(request())
        except LeaseLostError:
            return Outcome.LOST
        except _CancelledError:
            return self._fail(CANCELLED, "Cancelled.", Outcome.CANCELLED)
        except Exception as error:  # whatever one video does, the worker makes the next
            cause = (error.__cause__ or error) if isinstance(error, BrokenError) else error
            code, message = reason_of(cause)
            log.error("%s: %s: %s", job, code, cause, exc_info=cause if code == INTERNAL else None)
            outcome = self._fail(code, message, Outcome.NO_ROOM if code == NO_SPACE else Outcome.FAILED)
            if isinstance(error, BrokenError):
                raise
            return outcome
        except KeyboardInterrupt:  # asked to end at once; anything else that ends the process is a crash, and counted as one
            with contextlib.suppress(LeaseLostError):
                self._release()
            raise

    def _run(self, request: object) -> Outcome:
        last = None
        with self._files, closing(self._steps(request)) as steps:
            for last in steps:
                if last.new_frames is not None:
                    self._files.add(last)
                is_last = last.stage == "decode" and last.step == last.total
                stopping = self._stop() and not is_last
                if self._tell(last, keep=stopping):
                    raise _CancelledError
                self._heartbeat.check()
                if stopping:
                    self._release()
                    return Outcome.RELEASED
            assert last is not None
            self._finish(last)
        return Outcome.DONE

    def _steps(self, request: object) -> Generator[Any]:
        """From the kept state on, if it is of the same video by the same means, so that the end is the same to the last bit."""
        state = self._kept()
        if state is None:
            return self._make(request, None)
        steps = self._make(request, (state.step, state.latents))
        first = next(steps)
        if _described(first) == state.made:
            self._kept_step = state.step
            return _followed(first, steps)
        steps.close()
        log.warning("%s: its state was made with other weights or by other means; it begins anew.", self._claim.job.id)
        return self._make(request, None)

    def _kept(self) -> State | None:
        name = self._claim.job.state
        if name is None:
            return None
        try:
            with tempfile.TemporaryDirectory(prefix="hunyuan-video-") as folder:
                path = Path(folder) / "state.safetensors"
                with self._results.open(name) as file:
                    path.write_bytes(file.read())
                return self._files.read(path)
        except (ValueError, FileNotFoundError) as error:
            log.warning("%s: its state cannot be read (%s); it begins anew.", self._claim.job.id, error)
            return None

    def _tell(self, step: Step, keep: bool) -> bool:
        """Say how far it is; returns whether to cancel. The state is kept now and then, and when it must be."""
        state = self._keep(step, keep) if step.latents is not None else None
        preview = self._show(step) if step.stage == "denoise" else None
        report = (self._claim, step.stage, step.step, step.total)
        more: dict[str, Any] = {"state": state, "state_step": self._kept_step, "preview": preview, "memory": self._memory()}
        return patiently(lambda: self._store.report(*report, **more), self._stop)

    def _keep(self, step: Step, must: bool) -> str | None:
        done = step.step if step.stage == "denoise" else step.provenance.sampling.num_steps
        if done <= self._kept_step or not (must or time.monotonic() - self._kept_at > KEEP_EVERY):
            return None
        try:
            with tempfile.TemporaryDirectory(prefix="hunyuan-video-") as folder:
                path = Path(folder) / "state.safetensors"
                self._files.keep(State(done, _described(step), step.latents), path)
                self._heartbeat.check()
                name = self._put(f"{self._claim.folder}/state.safetensors", path)
        except OSError as error:
            if not must:
                raise
            log.warning("%s: its state could not be kept (%s).", self._claim.job.id, error)  # it goes on from an earlier one
            return None
        self._kept_step, self._kept_at = done, time.monotonic()
        return name

    def _show(self, step: Step) -> str | None:
        if time.monotonic() - self._shown_at < SHOW_EVERY or (picture := self._files.preview(step)) is None:
            return None
        self._heartbeat.check()
        self._shown_at = time.monotonic()
        try:
            return self._results.put(f"{self._claim.folder}/preview.webp", picture)
        except ConnectionError as error:
            log.warning("%s: a preview could not be kept (%s).", self._claim.job.id, error)  # the next one may
            return None

    def _put(self, name: str, path: Path) -> str:
        return patiently(lambda: self._results.put(name, path), self._stop)

    def _finish(self, last: Step) -> None:
        with tempfile.TemporaryDirectory(prefix="hunyuan-video-") as folder:
            files = self._files.finish(last, Path(folder))
            self._heartbeat.check()
            names = {kind: f"{self._claim.folder}/{path.name}" for kind, path in files.items()}
            for kind, path in files.items():
                self._put(names[kind], path)
            # If the lease is lost, the files stay: `Upkeep` removes attempts that nobody wants, and knows which these are.
            patiently(lambda: self._store.finish(self._claim, names, last.provenance.to_json()), self._stop)

    def _fail(self, code: str, message: str, outcome: Outcome) -> Outcome:
        try:
            patiently(lambda: self._store.fail(self._claim, code, message), self._stop)
        except LeaseLostError:
            return Outcome.LOST
        return outcome

    def _release(self) -> None:
        patiently(lambda: self._store.release(self._claim), self._stop)


def _described(step: Step) -> dict[str, Any]:
    """What it is a step of, as it comes back from a file."""
    return json.loads(json.dumps(step.provenance.to_json()))


def _followed(first: Any, steps: Generator[Any]) -> Generator[Any]:
    with closing(steps):
        yield first
        yield from steps
