"""What commands have in common."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from hunyuan_video import weights
from hunyuan_video.config import LoadKey, Place, Runtime
from hunyuan_video.distributed.started import LAUNCHED
from hunyuan_video.leash import is_held
from hunyuan_video.pictures import read_picture
from hunyuan_video.request import Adapter, Picture

log = logging.getLogger("hunyuan_video")

Flat = tyro.conf.arg(name="")  # a nested config's fields become flags without a prefix
Repeatable = tyro.conf.UseAppendAction  # --lora A --lora B


@dataclass(frozen=True)
class Which:
    """Which weights."""

    weights: Path | None = None
    """root of the weights, or in an official one the folder of one of its models (default: $MODEL_BASE, else ./ckpts, else the embedded
    miniature)"""
    transformer: Path | None = None
    """another transformer than theirs: a file or folder of any layout (docs/which-files.md)"""

    def find(self, load_key: LoadKey, *, picture: bool = False) -> weights.Weights:
        """They, saying so if it is the miniature that nobody asked for. `picture` says that a video is to begin with one."""
        found = weights.find_or_embedded(self.weights, self.transformer, load_key, picture=picture)
        if found.is_embedded and self.weights is None and not (LAUNCHED in os.environ or is_held()):  # else who started this has said it
            missing = weights.locate(weights.DEFAULT_ROOT).missing()
            names = ", ".join(path.name for path in missing)
            what = "No official weights" if len(missing) == 4 else f"Incomplete official weights (no {names})"
            log.info("%s in ./%s: using the embedded miniature. %s.", what, weights.DEFAULT_ROOT, weights.HOW_TO_GET)
        return found


Loads = Annotated[Which, Flat]


class Computes:
    """A command that computes as its `runtime` says, for which `Runtime.open` is the default: what a speed means is filled in by the speed
    that the line says, and not before it is read."""

    runtime: Runtime

    def __post_init__(self) -> None:
        object.__setattr__(self, "runtime", replace(self.runtime))


Places = Annotated[Place, Flat]


def rewrite_key() -> str | None:
    """Of a server that rewrites prompts."""
    return os.environ.get("HUNYUAN_VIDEO_REWRITE_KEY")


def model_base() -> Path | None:
    """The root of the weights that the environment names, if it does."""
    base = os.environ.get("MODEL_BASE")
    return Path(base) if base else None


def adapters_of(lora: Iterable[str]) -> tuple[Adapter, ...]:
    """Adapters that a user named. Raises an error for one that is not there, or is none."""
    adapters = tuple(map(Adapter.parse, lora))
    for adapter in adapters:
        adapter.check_file()
        weights.lora_file(adapter.path)
    return adapters


def picture_of(file: Path | None) -> Picture | None:
    """A picture that a user named, if they did."""
    return None if file is None else read_picture(file)


def say_what_is_read(file: Path) -> None:
    log.info("Reading %s …", file)  # now: what follows takes seconds before the next sign of life
