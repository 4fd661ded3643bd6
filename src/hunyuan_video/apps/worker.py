"""`hunyuan-video worker`: a pipeline that makes the videos of a queue, on one GPU, or on several that make each video together."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from hunyuan_video.apps.launch import added, check_gpus, launch
from hunyuan_video.apps.queue import model_name, open_place
from hunyuan_video.config import Place, Runtime, why_not_continued
from hunyuan_video.distributed.once import is_first, once
from hunyuan_video.distributed.started import world_size
from hunyuan_video.distributed.watch import doing
from hunyuan_video.distributed.world import process_group
from hunyuan_video.errors import is_out_of_memory
from hunyuan_video.leash import LEASH, end_with_holder, is_held, when_let_go
from hunyuan_video.memory import most_taken
from hunyuan_video.pipeline import HunyuanVideo, Step
from hunyuan_video.previews import Preview, fit
from hunyuan_video.recording import Frames
from hunyuan_video.request import Adapter, Request
from hunyuan_video.serving import orders
from hunyuan_video.serving.faults import BrokenError
from hunyuan_video.serving.media import Media
from hunyuan_video.serving.worker import Craft, work
from hunyuan_video.signals import Waiting
from hunyuan_video.weights import Weights

log = logging.getLogger(__name__)

Resume = tuple[int, Tensor] | None
TICK, END = "tick", "end"  # what the first rank says to the others besides which video they make next, and whether they go on with it


def run(found: Weights, runtime: Runtime, place: Place, loras: Path | None, name: str | None) -> None:
    """Work until a signal says to stop, on all ranks if there are several. Returns when the running step is done and its state kept."""
    with process_group(runtime.device):
        doing("loading weights")
        studio = Studio(found, runtime)
        studio.load(())  # before the queue hears of this worker, so that one that is heard of is ready
        if not is_first():
            return follow(studio)
        with _stopping() as stop:
            _lead(studio, place, loras, name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}", model_name(found), stop)


def _lead(studio: Studio, place: Place, loras: Path | None, name: str, model: str, stop: Callable[[], bool]) -> None:
    store, results = open_place(place)
    alone = world_size() == 1
    make = studio.make if alone else partial(lead, studio)
    craft = Craft(partial(orders.request_of, results=results, loras=loras), make, partial(Media, studio.show), most_taken)
    log.info("%s is ready.", name)
    try:
        work(store, results, craft, name=name, model=model, stop=stop, idle=_nothing if alone else partial(_say, TICK))
    finally:
        store.close()
    if not alone:
        _say(END)


def _nothing() -> None:
    doing("waiting for a job")


@contextlib.contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Whether this process was asked to stop: by a signal, or as the first of several ranks by its launcher, who has heard the signal."""
    if world_size() > 1:
        asked = threading.Event()
        if is_held():
            when_let_go(asked.set)
        yield asked.is_set
        return
    with Waiting() as waiting:
        end_with_holder()
        yield lambda: waiting.asked
        waiting.settle()


class Studio:
    """Makes videos, with the pipeline of the last one if it was loaded with the same LoRAs, and else with another. Merged into the weights
    while they are loaded, they act exactly as in `generate`; taking them out again would leave a rounding error behind."""

    def __init__(self, found: Weights, runtime: Runtime):
        self._found, self._runtime = found, runtime
        self._pipe: HunyuanVideo | None = None
        self._loaded: Any = None
        self._preview: Preview | None = None

    def load(self, adapters: Sequence[Adapter]) -> HunyuanVideo:
        """The pipeline with these adapters, by what their files are now."""
        wanted = once(lambda: [(adapter, _version(adapter.path)) for adapter in adapters])
        if self._pipe is None or wanted != self._loaded:
            self._pipe = None  # before the next one takes as much memory
            gc.collect()
            log.info("Loading %s%s …", self._found.root, "".join(f" with {adapter.path.name}" for adapter in adapters))
            self._pipe = HunyuanVideo.load(self._found, self._runtime, None, adapters)
            self._loaded = wanted
            self._preview = self._preview or fit(self._pipe.encode)
        return self._pipe

    def show(self, step: Step) -> Frames | None:
        """What a step has come to, as small frames; None if there is nothing to see yet."""
        return None if step.estimate is None or self._preview is None else self._preview(step.estimate)

    def make(self, request: Request, resume: Resume) -> Generator[Step]:
        """The steps of a video. Raises a BrokenError for what leaves a GPU unusable."""
        try:
            pipe = self.load(request.adapters)
            if resume is not None and (needs := why_not_continued(request.complete(pipe.defaults), self._runtime)) is not None:
                log.warning("The video begins anew: %s.", needs)
                resume = None
            with closing(pipe.steps(request, resume=resume)) as steps:  # pyright: ignore[reportArgumentType]
                yield from steps
        except RuntimeError as error:
            if "CUDA error" in str(error) and not is_out_of_memory(error):
                raise BrokenError(str(error)) from error
            raise


def _version(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_mtime_ns, state.st_size


def lead(studio: Studio, request: Request, resume: Resume) -> Generator[Step]:
    """As `Studio.make`, on the first of several ranks, which has the others make the same video, or stop with it."""
    _say((request, resume))
    try:
        with closing(studio.make(request, resume)) as steps:
            for step in steps:
                try:
                    yield step
                except GeneratorExit:
                    _say(False)
                    raise
                _say(True)
    except ValueError:  # which all have raised alike
        raise
    except Exception as error:  # whatever it is, others may wait for what will never come, so this group of ranks ends
        raise BrokenError(str(error)) from error


def _say(what: Any) -> None:
    once(lambda: what)


def _hear() -> Any:
    return once(lambda: None)


def follow(studio: Studio) -> None:
    """What the other ranks do until the first one is asked to stop."""
    while (order := _hear()) != END:
        if order == TICK:
            doing("waiting for a job")
            continue
        doing("making a video")
        with contextlib.suppress(ValueError), closing(studio.make(*order)) as steps:
            for _ in steps:
                if not _hear():
                    break


def launch_group(gpus: int, device: str, arguments: list[str]) -> None:
    """The command with `arguments` in a process for each GPU. A signal, or the end of whoever holds this process, lets the first rank stop
    after the running step; a second signal ends all at once."""
    check_gpus(gpus, device)
    reading, writing = os.pipe()
    let_go = threading.Lock()

    def stop() -> None:
        if let_go.acquire(blocking=False):
            os.close(writing)

    held = os.dup(0) if is_held() else None
    if held is not None:
        threading.Thread(target=lambda: (os.read(held, 1), stop()), name="leash", daemon=True).start()
    os.dup2(reading, 0)
    with Waiting() as waiting, added({LEASH: "1"}), _when(lambda: waiting.asked, stop):
        launch(gpus, device, arguments, ends_by_signals=False)
        waiting.settle()


@contextlib.contextmanager
def _when(happened: Callable[[], bool], do: Callable[[], None]) -> Iterator[None]:
    """Inside the block, `do` is done once something has happened."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            if happened():
                return do()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
