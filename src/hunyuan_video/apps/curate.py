"""`hunyuan-video data curate`: from footage to lists of clips, on this machine or a Ray cluster."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from hunyuan_video.apps.parse import deferred, parse
from hunyuan_video.config import require
from hunyuan_video.curation import command, tiers
from hunyuan_video.curation.networks import Networks
from hunyuan_video.curation.workers import Processes, Workers
from hunyuan_video.rewriting.remote import Remote
from hunyuan_video.signals import goes_on

Flat = tyro.conf.arg(name="")


def curate(
    footage: Positional[tuple[Path, ...]],
    out: Path,
    networks: Annotated[Networks, Flat],
    thresholds: Path | None = None,
    caption_url: str | None = None,
    caption_model: str | None = None,
    workers: int = os.cpu_count() or 1,
    ray: bool = False,
) -> None:
    """Find the clips in long videos that are worth training on, and say why the others are not; run it again to continue.

    Args:
        footage: videos, and folders of them
        out: folder of the clips, their lists for each tier, and the report
        networks: your own
        thresholds: a TOML file of all thresholds, to begin with a copy of the one that counts else (docs/curation.md)
        caption_url: of a server that speaks OpenAI's protocol, with a model that sees; its key is read from $HUNYUAN_VIDEO_CAPTION_KEY
        caption_model: the model's name there
        workers: processes on this machine
        ray: work on the Ray cluster of $RAY_ADDRESS or of this machine instead; footage and OUT must be where all its machines see them
    """
    require(bool(footage), "No footage is given; name videos, or folders of them.")
    require(workers >= 1, f"workers is {workers}; it must be 1 or more.")
    require((caption_url is None) == (caption_model is None), "Of --caption-url and --caption-model only one is given; captions need both.")
    describer = None
    if caption_url is not None and caption_model is not None:
        describer = Remote(caption_url, caption_model, os.environ.get("HUNYUAN_VIDEO_CAPTION_KEY"), purpose="caption")
    config = command.Curation(footage, tiers.read(thresholds or tiers.OURS), networks, describer)
    with goes_on(), _workers(workers, ray) as pool:
        print(command.curate(config, out, pool), end="")


def _workers(count: int, ray: bool) -> AbstractContextManager[Workers]:
    if not ray:
        return Processes(count)
    from hunyuan_video.curation.cluster import Cluster

    return Cluster()


def run(arguments: list[str]) -> None:
    """Parse the options and do it."""
    parse(deferred(curate), arguments, "hunyuan-video data curate")()
