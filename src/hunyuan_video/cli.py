"""The command `hunyuan-video`. Imports torch only inside commands, and after everything the user typed has been checked."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hunyuan_video import __version__, weights
from hunyuan_video.apps.parse import parse
from hunyuan_video.buckets import Resolution, sized
from hunyuan_video.commands import evaluate
from hunyuan_video.commands.bench import Bench
from hunyuan_video.commands.common import Computes, Flat, Loads, Repeatable, Which, rewrite_key
from hunyuan_video.commands.continue_clip import Continue
from hunyuan_video.commands.demo import Demo
from hunyuan_video.commands.given import Media
from hunyuan_video.commands.rating import Rate, Report
from hunyuan_video.commands.serving import Serve, Worker
from hunyuan_video.config import (
    LoadKey,
    Output,
    RewriteMode,
    Runtime,
    Sampling,
    check_prompt,
    check_solver,
    parse_bytes,
    require,
    why_not_continued,
)
from hunyuan_video.distributed.started import RanksError, is_main_process, world_size
from hunyuan_video.errors import is_out_of_memory
from hunyuan_video.files import LATENTS_SUFFIX, check_output, check_writable, read_prompts
from hunyuan_video.pictures import read_picture
from hunyuan_video.request import Adapter, Picture, Request
from hunyuan_video.rewriting.rewriter import Rewriter
from hunyuan_video.signals import enter

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
        prompts, (adapters, picture) = self._prompts(), _given(self.lora, self.image)
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
        adapters, picture = _given(self.lora, self.image)
        _say_what_is_read(self.resume)

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
        adapters, picture = _given(self.lora, self.image)
        _say_what_is_read(self.file)

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
        _say_what_is_read(self.file)

        from hunyuan_video.apps.generate import Given, decode

        print(decode(self.file, Given(self.which.weights, self.which.transformer), self.runtime, self.output))


@dataclass(frozen=True)
class Info:
    """Say what this installation is and has: versions, devices, attention kernels, weights."""

    weights: Path | None = None
    """root of the weights to look for"""

    def run(self) -> None:
        from hunyuan_video.apps.info import report

        print(report(self.weights))


@dataclass(frozen=True)
class Inspect:
    """Say what is in a weight file or folder: format, model, dtype, parameters, what is missing; of a LoRA, its rank and targets."""

    path: tyro.conf.Positional[Path]

    def run(self) -> None:
        from hunyuan_video.apps.inspect import report

        print(report(self.path))


@dataclass(frozen=True)
class Convert:
    """Write weights in another layout, one tensor at a time. Nothing is overwritten."""

    source: tyro.conf.Positional[Path]
    """a transformer's file or folder, or the root of a whole model"""
    out: tyro.conf.Positional[Path]
    """where to: a folder for diffusers, comfyui and a whole official model, else a file"""
    to: Literal["official", "diffusers", "comfyui", "single-file", "fp8", "gguf"]
    """official: .pt files; diffusers: a folder; comfyui: a folder like its models; single-file: .safetensors; fp8: the official .pt and
    _map.pt; gguf: Q8_0"""
    load_key: LoadKey = "module"
    """of an official file: the weights, or their average"""

    def run(self) -> None:
        from hunyuan_video.checkpoint.convert import convert

        for path in convert(self.source, self.out, self.to, self.load_key):
            print(path)


@dataclass(frozen=True)
class Download:
    """Fetch the official weights from Hugging Face, or what of them is missing; HF_ENDPOINT names a mirror."""

    to: Path | None = None
    """root of the weights (default: $MODEL_BASE, else ./ckpts)"""
    fp8: bool = False
    """the transformer in 8 bits, which is half the size, instead of bfloat16"""
    i2v: bool = False
    """the model that begins a video with a picture, into the same tree, instead of the one for text"""

    def run(self) -> None:
        from hunyuan_video.apps.download import download

        require(not (self.fp8 and self.i2v), "The image-to-video transformer was not published in 8 bits; leave out --fp8.")
        for line in download(self.to or _model_base() or weights.DEFAULT_ROOT, fp8=self.fp8, i2v=self.i2v):
            print(line, flush=True)


@dataclass(frozen=True)
class Verify:
    """Check whole weights: every name and shape, two blocks against Diffusers, and the SHA-256 of every file."""

    root: tyro.conf.Positional[Path | None] = None
    """root of the weights (default: $MODEL_BASE, else ./ckpts)"""
    write: bool = False
    """list the files in SHA256SUMS as they are now, for weights that did not come by download"""

    def run(self) -> None:
        from hunyuan_video.apps.verify import verify

        for finding in verify(self.root or _model_base() or weights.DEFAULT_ROOT, write=self.write):
            print(finding, flush=True)


@dataclass(frozen=True)
class Plan(Computes):
    """Say what a video takes on one GPU or several, with each kind of offload, in 16 and 8 bits, and on a CPU, before anything loads."""

    sampling: Annotated[Sampling, Flat] = field(default_factory=Sampling)
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime.open)
    lora: Annotated[tuple[str, ...], Repeatable] = ()
    """adapters, as for `generate`"""
    gpu_memory: str | None = None
    """such as 24GB or 22.5GiB (default: what this machine's GPU has free)"""
    gpus: int = 1
    """so many GPUs for one video, each with this memory"""
    weights: Path | None = None
    """root of the weights to plan for (default: the released 13B, which need not be there)"""
    transformer: Path | None = None
    """another transformer than theirs"""
    load_key: LoadKey = "module"
    """as for `generate`"""

    def run(self) -> None:
        memory = None if self.gpu_memory is None else parse_bytes(self.gpu_memory, "--gpu-memory")
        require(self.gpus >= 1, f"gpus is {self.gpus}; it must be 1 or more.")
        adapters, _ = _given(self.lora, None)
        found = None
        if self.weights is not None or self.transformer is not None:
            found = weights.find_or_embedded(self.weights, self.transformer, self.load_key)

        from hunyuan_video.apps.plan import report

        print(report(found, self.sampling, self.runtime, adapters, memory, self.gpus))


def _say_what_is_read(file: Path) -> None:
    log.info("Reading %s …", file)  # now: what follows takes seconds before the next sign of life


def _given(lora: tuple[str, ...], image: Path | None) -> tuple[tuple[Adapter, ...], Picture | None]:
    """Adapters and picture that a user named, checked and read."""
    adapters = tuple(map(Adapter.parse, lora))
    for adapter in adapters:
        adapter.check_file()
        weights.lora_file(adapter.path)
    return adapters, None if image is None else read_picture(image)


COMMANDS: dict[str, Any] = {
    "generate": Generate, "continue": Continue,
    "rewrite": Rewrite, "replay": Replay, "decode": Decode, "info": Info, "plan": Plan, "download": Download,
    "verify": Verify, "inspect": Inspect, "convert": Convert, "bench": Bench,
    "evaluate run": evaluate.Run, "evaluate score": evaluate.Score, "evaluate rate": Rate, "evaluate report": Report,
    "evaluate embedded": evaluate.Embedded,
    "serve": Serve, "worker": Worker, "demo": Demo,
}  # fmt: skip
TOGETHER = ("generate", "continue", "worker")  # with --gpus, in a process for each
GROUPS = {
    "train": ("text", "vae", "cache", "transformer", "lora", "recipe"),
    "data": ("curate", "prepare"),
    "evaluate": tuple(name.removeprefix("evaluate ") for name in COMMANDS if name.startswith("evaluate ")),
}


def main(argv: list[str] | None = None) -> int:
    """Entry point. Returns 0, 1 for a failure while working, 2 for a wrong request, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name in any script must not end a run on a narrow console
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)  # ours; what libraries tell is for them
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments == ["--version"]:
        print(f"hunyuan-video {__version__}")
        return 0
    run = run_together if arguments[0] in TOGETHER else run_guarded
    return run(lambda: _dispatch(arguments[0], arguments[1:]))


def run_together(work: Callable[[], None]) -> int:
    """`run_guarded`, for a command whose ranks make one thing, if torchrun has started several."""
    if world_size() == 1:
        return run_guarded(work)
    from hunyuan_video.distributed.watch import as_one

    return as_one(work, explain)


def run_guarded(work: Callable[[], None]) -> int:
    """Run a command: what the user can mend becomes one sentence, not a traceback."""
    try:
        work()
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if (explained := explain(error)) is None:
            raise
        sentence, code = explained
        print(f"hunyuan-video: {sentence}", file=sys.stderr)
        return code
    return 0


def explain(error: BaseException) -> tuple[str, int] | None:
    """The sentence and the exit code of what the user can mend, and None of what nobody foresaw."""
    if isinstance(error, ValueError | OSError | ImportError):
        return None if os.environ.get("HUNYUAN_VIDEO_TRACEBACK") else (_sentence(error), 2)
    if isinstance(error, RanksError):
        return str(error), error.code
    if is_out_of_memory(error):
        advice = "try --offload auto, --fp8 or a smaller video; in training --checkpoint-activations or a smaller --token-budget"
        return f"out of memory; {advice}. ({_sentence(error)})", 1
    return None


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        advice = {FileNotFoundError: "; check the name", IsADirectoryError: "; give a file"}.get(type(error), "")
        return f"{error.filename}: {error.strerror.lower()}{advice}."
    return " ".join(str(error).split()) or type(error).__name__


def _dispatch(name: str, arguments: list[str]) -> None:
    if name in GROUPS and (not arguments or arguments[0] in ("-h", "--help")):
        print(f"usage: hunyuan-video {name} {{{','.join(GROUPS[name])}}} [OPTIONS]\n\nEach has a --help of its own.")
        return
    if name in GROUPS and f"{name} {arguments[0]}" in COMMANDS:
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
    if (name, arguments[:1]) == ("data", ["curate"]):  # which needs nothing that training does
        from hunyuan_video.apps import curate

        return curate.run(arguments[1:])
    if name in GROUPS and arguments[0] in GROUPS[name]:
        from hunyuan_video.apps import train

        root = _model_base() if name == "data" else None  # before the others, of which the last one counts
        return train.run(name, arguments[0], ([] if root is None else ["--weights", str(root)]) + arguments[1:])
    if name not in COMMANDS:
        given = f"{name} {arguments[0]}" if name in GROUPS else name
        raise ValueError(f"There is no command {given!r}; `hunyuan-video --help` lists them.")
    given = parse(COMMANDS[name], arguments, f"hunyuan-video {name}")
    if hasattr(given, "which"):
        given = replace(given, which=replace(given.which, weights=given.which.weights or _model_base()))
    elif hasattr(given, "weights"):
        given = replace(given, weights=given.weights or _model_base())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(given, Generate | Continue | Worker) and given.gpus != 1 and world_size() == 1:
        return given.launch([name, *arguments])
    if isinstance(given, Generate | Continue | Worker) and given.gpus not in (1, world_size()):
        raise ValueError(f"--gpus is {given.gpus}, but torchrun has started {world_size()} processes; leave --gpus out.")
    if name not in TOGETHER and world_size() > 1:
        raise ValueError(f"`hunyuan-video {name}` works in one process, but torchrun has started {world_size()}; leave torchrun out.")
    given.run()


def _model_base() -> Path | None:
    base = os.environ.get("MODEL_BASE")
    return Path(base) if base else None


def _usage() -> str:
    lines = [f"  {name:<17} {command.__doc__.splitlines()[0]}" for name, command in COMMANDS.items()]
    lines.append(f"  {'train':<17} Train all weights, a LoRA, the VAE or the miniature: {', '.join(GROUPS['train'])}.")
    lines.append(f"  {'data':<17} Choose clips of long videos, and encode videos and images for training: {', '.join(GROUPS['data'])}.")
    return "\n".join(
        [
            "usage: hunyuan-video COMMAND [OPTIONS]",
            "",
            "Text to video with HunyuanVideo.",
            "",
            *lines,
            "",
            "`hunyuan-video COMMAND --help` lists a command's options; `hunyuan-video --version` says which one this is.",
        ]
    )


if __name__ == "__main__":
    enter(main)
