"""`hunyuan-video continue`: what comes after a clip."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from hunyuan_video.clips import read_clip
from hunyuan_video.commands.common import Computes, Flat, Loads, Repeatable, Which, adapters_of
from hunyuan_video.config import SIZE_MULTIPLE, LoadKey, Output, Runtime, Sampling, check_solver, require
from hunyuan_video.distributed.started import is_main_process
from hunyuan_video.files import check_output
from hunyuan_video.request import Clip, Continued, Request
from hunyuan_video.weights import Weights

log = logging.getLogger("hunyuan_video")


@dataclass(frozen=True)
class Continue(Computes):
    """Go on from a clip: its last frames are held, and what comes after them is made, as often as you like."""

    clip: tyro.conf.Positional[Path]
    """a video, an animated picture, a picture or a folder of frames; what is written is this, and what comes after it"""
    prompt: str | None = None
    """what happens (default: what the clip was made from, if its file says so)"""
    times: int | None = None
    """how many videos of num_frames frames follow each other (default: 1, or as seconds say)"""
    seconds: float | None = None
    """how many seconds are to come after the clip, at 24 frames a second; what is made is as long, or a bit longer"""
    overlap: int | None = None
    """with how many frames of what is there each video begins, 4n + 1 (default: what suits the weights)"""
    negative_prompt: str | None = None
    """what to steer away from when cfg_scale is above 1 (default: that of the weights, else the official one)"""
    lora: Annotated[tuple[str, ...], Repeatable] = ()
    """adapters, as for `generate`"""
    sampling: Annotated[Sampling, Flat] = field(default_factory=Sampling)
    output: Annotated[Output, Flat] = field(default_factory=Output)
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime.open)
    which: Loads = field(default_factory=Which)
    load_key: LoadKey = "module"
    gpus: int = 1
    """these two as for `generate`"""

    def run(self) -> None:
        found = self.which.find(self.load_key)
        request, clip, continued = self.check(found)
        log.info("Loading %s …", found.root)  # now: what follows takes seconds before the first sign of life

        from hunyuan_video.apps.generate import continue_clip

        print(continue_clip(found, self.runtime, request, clip, continued, self.output))

    def launch(self, arguments: list[str]) -> None:
        """The same in a process for each GPU, where `arguments` were the command's."""
        found = self.which.find(self.load_key)
        request, *_ = self.check(found)
        log.info("Starting %d processes …", self.gpus)  # now: what follows takes seconds before the first sign of life

        from hunyuan_video.apps.launch import check_shared, launch

        check_shared(self.gpus, self.runtime, found, request)
        launch(self.gpus, self.runtime.device, arguments)

    def check(self, found: Weights) -> tuple[Request, Clip, Continued]:
        """What is asked for; refuses what can be refused before anything is loaded."""
        adapters = adapters_of(self.lora)
        require(self.output.format != "latents", "format is 'latents', but the clip is frames; choose a video format.")
        if is_main_process():  # who writes
            check_output(self.output)
        given = self.sampling.height, self.sampling.width
        require((given[0] is None) == (given[1] is None), "height and width belong together; give both, or leave out both.")
        clip = read_clip(self.clip, size=None if given[0] is None or given[1] is None else (given[0], given[1]))
        height, width = (side // SIZE_MULTIPLE * SIZE_MULTIPLE for side in clip.pixels.shape[1:3])
        require(min(height, width) > 0, f"{self.clip} is smaller than {SIZE_MULTIPLE} pixels; give --height and --width.")
        if clip.pixels.shape[1:3] != (height, width):
            clip = read_clip(self.clip, size=(height, width))
        sampling = replace(self.sampling, height=height, width=width)
        request = Request(self.prompt or _prompt_of(self.clip), sampling, self.negative_prompt, adapters=adapters)
        complete = request.complete(found.sampling())
        most = min(len(clip.pixels), max(1, complete.num_frames - 1))  # a picture has one frame
        overlap = min(found.overlap, (most - 1) // 4 * 4 + 1) if self.overlap is None else self.overlap
        continued = Continued(clip.sha256, self._times(complete.num_frames - overlap), overlap)
        continued.check(len(clip.pixels), complete.num_frames)
        found.check(request.after(Clip(clip.pixels[-overlap:]).trimmed(), found.given))
        check_solver(complete, self.runtime)
        return request, clip, continued

    def _times(self, new: int) -> int:
        """So many videos, each of which has so many new frames."""
        require(self.times is None or self.seconds is None, "--times and --seconds say the same; give one of them.")
        if self.seconds is None:
            return 1 if self.times is None else self.times
        require(self.seconds > 0 and new > 0, f"seconds is {self.seconds}; it must be above 0, and the overlap less than num_frames.")
        return math.ceil(self.seconds * 24 / new)


def _prompt_of(clip: Path) -> str:
    """Raises a ValueError if its file says none."""
    from hunyuan_video.video import read_metadata

    try:
        return str(read_metadata(clip)["prompt"])
    except (ValueError, KeyError, IsADirectoryError) as error:
        raise ValueError(f"{clip} does not say what it was made from; say what happens in it by --prompt.") from error
