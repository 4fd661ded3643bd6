"""A worker: takes the job whose turn it is, makes its video, and takes the next one. Imports no torch; what makes videos is a function."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hunyuan_video.serving.attempt import Attempt, Files, Make, Outcome
from hunyuan_video.serving.faults import patiently
from hunyuan_video.serving.jobs import Order
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.store import Store
from hunyuan_video.serving.upkeep import Upkeep, has_room

log = logging.getLogger(__name__)

POLL = 0.5  # seconds between two looks at an empty queue


@dataclass(frozen=True)
class Craft:
    """How videos are made.

    `request_of` makes of an order what `make` takes, and `make(request, resume)` gives the steps of its video, as `HunyuanVideo.steps`;
    `resume` is None, or (steps done, latents) to go on from. `files` gives what makes files of one video's
    steps. `memory` says how many bytes it has all taken at most, if it knows.
    """

    request_of: Callable[[Order], object]
    make: Make
    files: Callable[[], Files]
    memory: Callable[[], int | None] = lambda: None


def work(
    store: Store,
    results: Results,
    craft: Craft,
    *,
    name: str,
    model: str | None = None,
    stop: Callable[[], bool],
    idle: Callable[[], None] = lambda: None,
    poll: float = POLL,
) -> None:
    """Make videos until `stop()`: then the state after the running step is kept and its job given back. `name` is this worker's, and no
    other's; `model` is which orders it makes (None: all); `idle` is called whenever nothing waits, every `poll` seconds.

    Raises:
        BrokenError: what makes videos cannot go on; the job has been told.
    """
    upkeep, full = Upkeep(store, results), False
    while not stop():
        upkeep.do()
        if full and not has_room(results):
            time.sleep(poll)
            continue
        claim = patiently(lambda: store.claim(name, model), stop)
        if claim is None:
            idle()
            time.sleep(poll)
            continue
        log.info("%s, attempt %d: begun.", claim.job.id, claim.job.attempt)
        attempt = Attempt(store, results, craft.make, craft.files(), claim, stop, craft.memory)
        outcome = attempt.run(partial(craft.request_of, claim.job.order))
        full = outcome is Outcome.NO_ROOM
        log.info("%s, attempt %d: %s.", claim.job.id, claim.job.attempt, outcome.value)
    patiently(lambda: store.gone(name), stop)
