"""The command `hunyuan-video`. Imports torch only inside commands, and after everything the user typed has been checked."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hunyuan_video import __version__
from hunyuan_video.apps.parse import parse
from hunyuan_video.commands import evaluate
from hunyuan_video.commands.bench import Bench
from hunyuan_video.commands.common import model_base
from hunyuan_video.commands.continue_clip import Continue
from hunyuan_video.commands.demo import Demo
from hunyuan_video.commands.generate import Generate, Rewrite
from hunyuan_video.commands.made import Decode, Replay
from hunyuan_video.commands.rating import Rate, Report
from hunyuan_video.commands.serving import Serve, Worker
from hunyuan_video.commands.weights import Convert, Download, Info, Inspect, Plan, Verify
from hunyuan_video.distributed.started import RanksError, world_size
from hunyuan_video.errors import is_out_of_memory
from hunyuan_video.signals import enter

log = logging.getLogger("hunyuan_video")


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
        advice = {
            FileNotFoundError: "; check the name",
            IsADirectoryError: "; give a file",
            FileExistsError: "; choose another name",
        }.get(type(error), "")
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

        root = model_base() if name == "data" else None  # before the others, of which the last one counts
        return train.run(name, arguments[0], ([] if root is None else ["--weights", str(root)]) + arguments[1:])
    if name not in COMMANDS:
        given = f"{name} {arguments[0]}" if name in GROUPS else name
        raise ValueError(f"There is no command {given!r}; `hunyuan-video --help` lists them.")
    given = parse(COMMANDS[name], arguments, f"hunyuan-video {name}")
    if hasattr(given, "which"):
        given = replace(given, which=replace(given.which, weights=given.which.weights or model_base()))
    elif hasattr(given, "weights"):
        given = replace(given, weights=given.weights or model_base())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(given, Generate | Continue | Worker) and given.gpus != 1 and world_size() == 1:
        return given.launch([name, *arguments])
    if isinstance(given, Generate | Continue | Worker) and given.gpus not in (1, world_size()):
        raise ValueError(f"--gpus is {given.gpus}, but torchrun has started {world_size()} processes; leave --gpus out.")
    if name not in TOGETHER and world_size() > 1:
        raise ValueError(f"`hunyuan-video {name}` works in one process, but torchrun has started {world_size()}; leave torchrun out.")
    given.run()


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
