"""Which of several ways to compute the same is the fastest where it works: measured once on a machine, and kept for the next process."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from hunyuan_video.kernels import kept

log = logging.getLogger(__name__)

TIE = 0.9  # of the first one's time: what must be beaten by more than the noise of a machine
ROUNDS = 12  # at most; the first one only warms up
SECONDS = 0.25  # after which no other round begins, if there were three
BEHIND = 1.5  # times the fastest so far
AGREE = 0.03  # what comes of a way that is farther from what is expected, as a share of its norm, is broken here

Way = TypeVar("Way")
Run = Callable[[Way], Tensor]

_fastest: dict[str, str] = {}
_said: set[str] = set()


class Trial(NamedTuple):
    """What is measured: `run` computes it in a way that it is given, and `expected` is what should come of it."""

    run: Callable[..., Tensor]
    expected: Tensor


def fastest(
    what: str,
    question: kept.Question,
    versions: Mapping[str, str],
    load: Callable[[str], Way | None],
    trial: Callable[[], Trial],
    device: torch.device,
) -> str | None:
    """The name of the fastest way that works, the first one if there is a tie; None: none works.

    `versions` has the ways' names in order, and the version of each: its time is another one's after an update. `load` gives a way by its
    name, or None where it is missing. `trial` is called only where nothing is known yet, and `what` is said after a name in the log.
    """
    names = [*versions]
    complete: kept.Question = {
        **{"what": what, "machine": kept.machine(device), "torch": torch.__version__, "threads": torch.get_num_threads()},
        **question,
        "ways": [f"{name} {version}" for name, version in versions.items()],
    }
    key = json.dumps([complete, str(device)], sort_keys=True)
    if key not in _fastest:
        seconds = kept.recall(complete)
        if not seconds or not seconds.keys() <= {*names} or load(_best(seconds)) is None:
            seconds, lasting = _measured(what, names, load, trial(), device)
            if not seconds:
                return None
            if lasting:
                kept.keep(complete, seconds)
        _fastest[key] = _best(seconds)
        times = ", ".join(f"{name} {1000 * taken:.2f} ms" for name, taken in seconds.items())
        log.info("%s by %s, the fastest here (%s).", what.capitalize(), _fastest[key], times)
    return _fastest[key]


def _best(seconds: Mapping[str, float]) -> str:
    first, best = next(iter(seconds)), min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] < TIE * seconds[first] else first


def _measured(
    what: str, names: Sequence[str], load: Callable[[str], Way | None], trial: Trial, device: torch.device
) -> tuple[dict[str, float], bool]:
    """The seconds of each way that works, and whether the next process need not try the others again."""
    ways, lasting = {}, True
    for name in names:
        if (way := load(name)) is None:
            continue
        try:
            if _works(f"{name} {what}", way, trial):
                ways[name] = way
        except (torch.OutOfMemoryError, MemoryError):
            say(f"Without {name} {what} this time: there is not enough memory to try it.")
            lasting = False
    return measure(ways, trial.run, device) if ways else {}, lasting


def _works(name: str, way: object, trial: Trial) -> bool:
    try:
        out, expected = trial.run(way).float(), trial.expected.float()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # other people's packages: what they raise on a GPU that they do not know is their own
        say(f"Without {name}, which fails here: {type(error).__name__}: {error}")
        return False
    agrees = bool((out - expected).norm() <= AGREE * expected.norm())  # not so where there is a NaN
    if not agrees:
        say(f"Without {name}, which computes something else than PyTorch here.")
    return agrees


def say(sentence: str) -> None:
    """In the log, once."""
    if sentence not in _said:
        _said.add(sentence)
        log.info("%s", sentence)


def measure(ways: Mapping[str, Way], run: Run[Way], device: torch.device) -> dict[str, float]:
    """The least seconds of each way: whatever disturbs a machine only adds to them. They take turns, so that this is unfair to all alike;
    who is far behind is left out of the next rounds."""
    taken = dict.fromkeys(ways, math.inf)
    end = _now(device) + SECONDS
    for number in range(ROUNDS):
        in_front = BEHIND * min(taken.values())
        for name in [name for name, least in taken.items() if least <= in_front]:
            start = _now(device)
            run(ways[name])
            seconds = _now(device) - start
            if number > 0:  # before, caches are filled and memory is taken
                taken[name] = min(taken[name], seconds)
        if number > 2 and _now(device) > end:
            break
    return taken


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
