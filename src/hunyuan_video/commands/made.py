"""`hunyuan-video replay` and `decode`: from files that tell how they were made to videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from hunyuan_video.commands.common import Computes, Flat, Loads, Repeatable, Which, adapters_of, picture_of, say_what_is_read
from hunyuan_video.commands.given import Media
from hunyuan_video.config import Output, Runtime


@dataclass(frozen=True)
class Replay:
    """Make the video of a file again from the settings inside it, and compare the frames."""

    file: tyro.conf.Positional[Path]
    output: Annotated[Output, Flat] = field(default_factory=Output)
    device: str | None = None
    """where to compute (default: as when the file was made)"""
    which: Loads = field(default_factory=Which)
    lora: Annotated[tuple[str, ...], Repeatable] = ()
    """the LoRA files or folders that it was made with, known by their content; their strengths stand in the video's file"""
    image: Path | None = None
    """the picture that it begins with, if it does"""
    media: Annotated[Media, Flat] = field(default_factory=Media)

    def run(self) -> None:
        adapters, picture = adapters_of(self.lora), picture_of(self.image)
        say_what_is_read(self.file)

        from hunyuan_video.apps.generate import Given, replay

        given = Given(self.which.weights, self.which.transformer, adapters, picture, self.media.keyframes(), self.media.video)
        path, identical = replay(self.file, given, self.device, self.output)
        print(path)
        print(
            "The frames are identical."
            if identical
            else "The frames differ: the device, its thread count, the number of GPUs, what these sent in 8 bits or a library version is "
            "not the same, or something else made it."
        )


@dataclass(frozen=True)
class Decode(Computes):
    """Make a video of latents that `generate --format latents` wrote."""

    file: tyro.conf.Positional[Path]
    output: Annotated[Output, Flat] = field(default_factory=Output)
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime.open)
    which: Loads = field(default_factory=Which)

    def run(self) -> None:
        say_what_is_read(self.file)

        from hunyuan_video.apps.generate import Given, decode

        print(decode(self.file, Given(self.which.weights, self.which.transformer), self.runtime, self.output))
