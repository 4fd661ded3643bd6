"""`hunyuan-video generate` and `rewrite`: from words to videos, and to better words."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from hunyuan_video import weights
from hunyuan_video.buckets import Resolution, sized
from hunyuan_video.commands.common import (
    Computes,
    Flat,
    Loads,
    Repeatable,
    Which,
    adapters_of,
    picture_of,
    rewrite_key,
    say_what_is_read,
)
from hunyuan_video.commands.given import Media
from hunyuan_video.config import (
    LoadKey,
    Output,
    RewriteMode,
    Runtime,
    Sampling,
    check_prompt,
    check_solver,
    why_not_continued,
)
from hunyuan_video.distributed.started import RanksError, is_main_process
from hunyuan_video.files import LATENTS_SUFFIX, check_output, check_writable, read_prompts
from hunyuan_video.request import Request
from hunyuan_video.rewriting.rewriter import Rewriter

log = logging.getLogger("hunyuan_video")


@dataclass(frozen=True)
class Generate(Computes):
    """Make videos from prompts."""

    prompt: tyro.conf.Positional[str] = ""
    """what to show, in a sentence or two"""
    negative_prompt: str | None = None
    """what to steer away from when cfg_scale is above 1 (default: that of the weights, else the official one)"""
    image: Path | None = None
    """a picture to begin with (image to video, for weights trained for it); it is scaled and cropped to the video's size"""
    media: Annotated[Media, Flat] = field(default_factory=Media)
    resolution: Resolution | None = None
    """the size by the shape of the picture, as the official image-to-video code picks it, in place of height and width"""
    lora: Annotated[tuple[str, ...], Repeatable] = ()
    """FILE, FILE:STRENGTH or FILE:STRENGTH,BLOCKS=STRENGTH such as style.safetensors:0.8,single_blocks.0-19=0, as often as there are files:
    adapters for the transformer, in any dialect (docs/lora.md)"""
    sampling: Annotated[Sampling, Flat] = field(default_factory=Sampling)
    output: Annotated[Output, Flat] = field(default_factory=Output)
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime.open)
    num_videos: int = 1
    """how many videos of each prompt, with seeds counting up"""
    prompts_file: Path | None = None
    """a text file with one prompt a line, instead of PROMPT"""
    which: Loads = field(default_factory=Which)
    load_key: LoadKey = "module"
    """of an official transformer's file: the weights, or their average"""
    save_state: Path | None = None
    """keep the state of the run in this .safetensors file after every step"""
    resume: Path | None = None
    """continue from a file that --save-state wrote; all settings come from it, and what it was made with from you again"""
    rewrite: RewriteMode | None = None
    """rewrite the prompt first: normal, to be understood, also from Chinese; master, to look its best (docs/rewriting.md)"""
    rewriter: Annotated[Rewriter, Flat] = field(default_factory=Rewriter)
    gpus: int = 1
    """how many of this machine's GPUs make each video together; with --device cpu, how many processes (docs/many-gpus.md)"""

    def run(self) -> None:
        if self.resume is not None:
            return self._resume()
        requests, found = self.check()

        log.info("Loading %s …", found.root)  # now: what follows takes seconds before the first sign of life

        from hunyuan_video.apps.generate import make_videos
        from hunyuan_video.apps.rewrite import rewrite_and_say

        rewrite = None
        if self.rewrite is not None:
            rewrite = partial(rewrite_and_say, mode=self.rewrite, rewriter=self.rewriter, key=rewrite_key())
        for path in make_videos(found, self.runtime, requests, self.output, self.save_state, rewrite):
            print(path)

    def launch(self, arguments: list[str]) -> None:
        """The same in a process for each GPU, where `arguments` were the command's."""
        if self.resume is None:
            requests, found = self.check()
            log.info("Starting %d processes …", self.gpus)  # now: what follows takes seconds before the first sign of life

            from hunyuan_video.apps.launch import check_shared, launch

            check_shared(self.gpus, self.runtime, found, requests[0])
            device = self.runtime.device
        else:
            self._refuse_more_than_resuming()

            from hunyuan_video.apps.generate import SavedState
            from hunyuan_video.apps.launch import launch

            device = SavedState.read(self.resume, self.output.out).made.runtime.device
        try:
            launch(self.gpus, device, arguments)
        except RanksError as error:
            state = self.resume or self.save_state
            if str(error).startswith("Rank 0 ") and state is not None and state.exists():  # who would have said it
                from hunyuan_video.apps.generate import say_what_is_kept

                say_what_is_kept(state)
            raise

    def check(self) -> tuple[list[Request], weights.Weights]:
        """What is asked for, and the weights; refuses what can be refused before anything is loaded."""
        prompts, adapters, picture = self._prompts(), adapters_of(self.lora), picture_of(self.image)
        if self.rewrite is None and self.rewriter != Rewriter():
            raise ValueError(
                "--rewrite-url and --rewrite-model say who rewrites the prompt, but not that it is rewritten; add --rewrite normal."
            )
        self.rewriter.backend(rewrite_key())  # refuses what is no address and no model
        sampling = self.sampling if self.resolution is None else sized(self.sampling, picture, self.resolution)
        found = self.which.find(self.load_key, picture=picture is not None)
        more = {"keyframes": self.media.keyframes(), "video": self.media.clip(sampling, found.sampling())}
        each = [Request(prompt, sampling, self.negative_prompt, picture, adapters, **more) for prompt in prompts]
        requests = [numbered for request in each for numbered in request.numbered(self.num_videos)]
        if self.save_state is not None and len(requests) > 1:
            raise ValueError(f"--save-state keeps the state of one video, but {len(requests)} were asked for.")
        if is_main_process():  # who writes
            check_output(self.output)
            if self.save_state is not None:
                check_writable(self.save_state, suffixes=(LATENTS_SUFFIX,))
                if self.save_state.exists():
                    raise FileExistsError(f"{self.save_state} exists already; continue it with --resume, or choose another name.")
        found.check(requests[0])
        complete = requests[0].complete(found.sampling())
        check_solver(complete, self.runtime)
        if self.save_state is not None and (needs := why_not_continued(complete, self.runtime)) is not None:
            raise ValueError(
                f"--save-state keeps latents, which is not all that this video continues from: {needs}; leave that or --save-state out."
            )
        return requests, found

    def _refuse_more_than_resuming(self) -> None:
        plain = Generate(
            output=Output(out=self.output.out),
            which=self.which,
            lora=self.lora,
            image=self.image,
            media=self.media,
            resume=self.resume,
            gpus=self.gpus,
        )
        if self != plain:
            raise ValueError(
                "--resume continues the video in its file, which holds prompt and settings; give nothing else but --weights, "
                "--transformer, --lora, --image, --last, --keyframe and --video, as for its start, --out and --gpus."
            )

    def _resume(self) -> None:
        assert self.resume is not None
        self._refuse_more_than_resuming()
        adapters, picture = adapters_of(self.lora), picture_of(self.image)
        say_what_is_read(self.resume)

        from hunyuan_video.apps.generate import Given, resume

        given = Given(self.which.weights, self.which.transformer, adapters, picture, self.media.keyframes(), self.media.video)
        print(resume(self.resume, given, self.output.out))

    def _prompts(self) -> list[str]:
        if self.prompts_file is None:
            check_prompt(self.prompt)
            return [self.prompt]
        if self.prompt:
            raise ValueError("A prompt and --prompts-file were given; give one of them.")
        return read_prompts(self.prompts_file)


@dataclass(frozen=True)
class Rewrite:
    """Rewrite a prompt in the words that the model was trained on, also from Chinese, and print it."""

    prompt: tyro.conf.Positional[str]
    """what to show, in English or Chinese"""
    mode: RewriteMode = "normal"
    """normal: to be understood; master: composition, light, camera and finish"""
    rewriter: Annotated[Rewriter, Flat] = field(default_factory=Rewriter)

    def run(self) -> None:
        from hunyuan_video.apps.rewrite import rewrite_all

        print(rewrite_all([self.prompt], self.mode, self.rewriter, rewrite_key())[self.prompt].prompt)
