"""The official command line: every flag and default of the reference's parser, translated to our settings.

Flags that were dead or broken there work here; those whose other values would only break the released weights are refused with a
sentence. Torch is imported after everything is checked, and before any weight is read.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import randbelow
from typing import Any, get_args

from hunyuan_video import weights
from hunyuan_video.apps.parse import Parser
from hunyuan_video.config import SIZE_MULTIPLE, DType, FullSampling, Output, Runtime, Solver
from hunyuan_video.distributed.started import is_main_process, world_size
from hunyuan_video.files import check_output
from hunyuan_video.request import Request

DEFAULT_DIT_WEIGHT = "ckpts/hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.pt"
log = logging.getLogger(__name__)

MODELS = {True: "HYVideo-T/2-cfgdistill", False: "HYVideo-T/2"}  # by whether they have embedded guidance
DTYPES: dict[str, DType] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

# Facts about the released weights that the reference has flags for. Any other value would load wrong or not at all.
FIXED = {
    "latent_channels": 16,
    "rope_theta": 256,
    "text_encoder": "llm",
    "tokenizer": "llm",
    "text_states_dim": 4096,
    "text_len": 256,
    "prompt_template": "dit-llm-encode",
    "prompt_template_video": "dit-llm-encode-video",
    "hidden_state_skip_layer": 2,
    "apply_final_norm": False,
    "text_encoder_2": "clipL",
    "tokenizer_2": "clipL",
    "text_states_dim_2": 768,
    "text_len_2": 77,
    "denoise_type": "flow",
}


# What our settings are called there, for error messages.
OFFICIAL_NAMES = {
    "height": "The height of --video-size",
    "width": "The width of --video-size",
    "num_frames": "--video-length",
    "num_steps": "--infer-steps",
    "shift": "--flow-shift",
    "guidance": "--embedded-cfg-scale",
    "linear_steps": "--linear-schedule-end",
    "seed": "--seed",
    "num_videos": "--num-videos",
    "name_suffix": "--name-suffix",
    "The prompt": "--prompt",
    "The negative prompt": "--neg-prompt",
}


def build_parser(encoders: tuple[str, ...] = ("clipL", "llm")) -> argparse.ArgumentParser:
    """The parser for text to video; `encoders` are what a language model may be called."""
    parser = Parser(prog="sample_video.py", description="HunyuanVideo text to video, with the official flags.", allow_abbrev=False)
    precisions = tuple(DTYPES)

    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=tuple(MODELS.values()), default=MODELS[True])
    model.add_argument("--latent-channels", type=int, default=16)
    model.add_argument("--precision", choices=precisions, default="bf16", help="of the transformer")
    model.add_argument("--rope-theta", type=int, default=256)
    model.add_argument("--vae", choices=("884-16c-hy",), default="884-16c-hy")
    model.add_argument("--vae-precision", choices=precisions, default="fp16")
    model.add_argument("--vae-tiling", action="store_true", default=True, help="always on, as in the reference")
    model.add_argument("--text-encoder", choices=encoders, default="llm")
    model.add_argument("--text-encoder-precision", choices=precisions, default="fp16")
    model.add_argument("--text-states-dim", type=int, default=4096)
    model.add_argument("--text-len", type=int, default=256)
    model.add_argument("--tokenizer", choices=encoders, default="llm")
    model.add_argument("--prompt-template", default="dit-llm-encode")
    model.add_argument("--prompt-template-video", default="dit-llm-encode-video")
    model.add_argument("--hidden-state-skip-layer", type=int, default=2)
    model.add_argument("--apply-final-norm", action="store_true")
    model.add_argument("--text-encoder-2", choices=("clipL",), default="clipL")
    model.add_argument("--text-encoder-precision-2", choices=precisions, default="fp16")
    model.add_argument("--text-states-dim-2", type=int, default=768)
    model.add_argument("--tokenizer-2", choices=("clipL",), default="clipL")
    model.add_argument("--text-len-2", type=int, default=77)

    schedule = parser.add_argument_group("denoising schedule")
    schedule.add_argument("--denoise-type", default="flow")
    schedule.add_argument("--flow-shift", type=float, default=7.0)
    schedule.add_argument("--flow-reverse", action="store_true", help="from noise to data: what this program always does")
    schedule.add_argument("--flow-solver", choices=get_args(Solver), default="euler")
    schedule.add_argument("--use-linear-quadratic-schedule", action="store_true")
    schedule.add_argument("--linear-schedule-end", type=int, default=25, help="steps in the linear part of that schedule")

    inference = parser.add_argument_group("inference")
    inference.add_argument("--model-base", help="root of all weights (default: $MODEL_BASE, else ckpts)")
    inference.add_argument("--dit-weight", default=DEFAULT_DIT_WEIGHT, help="file or folder (default: under --model-base)")
    inference.add_argument("--model-resolution", choices=("540p", "720p"), default="540p", help="the released weights serve both")
    inference.add_argument("--load-key", choices=("module", "ema"), default="module")
    inference.add_argument("--use-cpu-offload", action="store_true")
    inference.add_argument("--batch-size", type=int, default=1)
    inference.add_argument("--infer-steps", type=int, default=50)
    inference.add_argument("--disable-autocast", action="store_true", help="this program never uses autocast")
    inference.add_argument("--save-path", default="./results")
    inference.add_argument("--save-path-suffix", default="")
    inference.add_argument("--name-suffix", default="")
    inference.add_argument("--num-videos", type=int, default=1)
    inference.add_argument("--video-size", type=int, nargs="+", default=[720, 1280], help="height width, or one number for both")
    inference.add_argument("--video-length", type=int, default=129)
    inference.add_argument("--prompt")
    inference.add_argument("--seed-type", choices=("file", "random", "fixed", "auto"), default="auto")
    inference.add_argument("--seed", type=int)
    inference.add_argument("--neg-prompt")
    inference.add_argument("--cfg-scale", type=float, default=1.0)
    inference.add_argument("--embedded-cfg-scale", type=float, default=6.0)
    inference.add_argument("--use-fp8", action="store_true")
    inference.add_argument("--reproduce", action="store_true", help="use deterministic algorithms only")

    parallel = parser.add_argument_group("parallel")
    parallel.add_argument("--ulysses-degree", "--ulysses_degree", type=int, default=1, help="(default: with the ring degree, what fits)")
    parallel.add_argument("--ring-degree", "--ring_degree", type=int, default=1)
    parallel.add_argument("--timeout", type=int, default=120, help="ours: seconds without a sign of life from a GPU before all end")
    return parser


def run() -> None:
    """The command: make the videos that the command line asks for, on all GPUs that torchrun has given processes to, if it has."""
    args = build_parser().parse_args()
    command = translate(args)
    check_model(command.found, args.model)
    command.found.check(command.requests[0])
    make(command)


def make(command: Command) -> None:
    """Make the videos, and print where they are."""
    if is_main_process():  # who writes
        check_output(command.output)
        log.info("Loading %s …", command.found.root)  # now: what follows takes seconds before the next sign of life
    if command.reproduce:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which PyTorch asks for, and reads when it starts

    import torch

    from hunyuan_video.apps.generate import make_videos

    if command.reproduce:
        torch.use_deterministic_algorithms(True)
    for path in make_videos(command.found, command.runtime, command.requests, command.output):
        print(path)


@dataclass(frozen=True)
class Command:
    """What a command line asks for."""

    requests: list[Request]
    runtime: Runtime
    output: Output
    found: weights.Weights
    reproduce: bool


def translate(args: argparse.Namespace) -> Command:
    """Check every flag and find the weights.

    Raises:
        ValueError, FileNotFoundError: one sentence saying what came, what is right, and what to do.
    """
    check_facts(args)
    check_command(args, "sample_video_parallel.py")
    with in_official_words():
        # The reference takes its own negative prompt for an empty one.
        requests, output = Request(args.prompt, sampling_of(args), args.neg_prompt or None).numbered(args.num_videos), output_of(args)
    root = Path(args.model_base or os.environ.get("MODEL_BASE") or weights.DEFAULT_ROOT)
    transformer = None if args.dit_weight == DEFAULT_DIT_WEIGHT else Path(args.dit_weight)
    return Command(
        requests=requests,
        runtime=runtime_of(args),
        output=output,
        found=weights.find(root, transformer, args.load_key),
        reproduce=args.reproduce,
    )


def check_command(args: argparse.Namespace, script: str) -> None:
    """Raises a ValueError if there is no prompt, or one process for what several are to share; `script` is which to start."""
    if args.prompt is None:
        raise ValueError("--prompt is missing; describe the video in a sentence or two.")
    degrees = args.ulysses_degree, args.ring_degree
    if degrees != (1, 1) and world_size() == 1:
        raise ValueError(
            f"--ulysses-degree {degrees[0]} and --ring-degree {degrees[1]} are for several GPUs, but this is one process: start it by "
            f"`torchrun --nproc_per_node={math.prod(degrees)} {script} …`, or leave them at 1."
        )


def check_facts(args: argparse.Namespace, fixed: Mapping[str, Any] = FIXED) -> None:
    """Raises a ValueError for another value than the released weights need, or this program knows."""
    for name, value in fixed.items():
        if (given := getattr(args, name)) != value:
            raise ValueError(f"{flag(name)} is {given}; the released weights need {value}, so leave the flag out.")
    if args.batch_size != 1:
        raise ValueError(f"--batch-size is {args.batch_size}; videos are made one at a time, so ask for several with --num-videos.")
    if args.text_encoder_precision_2 not in ("fp16", args.text_encoder_precision):
        raise ValueError("--text-encoder-precision-2 differs from --text-encoder-precision; both encoders run in the latter.")


@contextlib.contextmanager
def in_official_words() -> Iterator[None]:
    """Inside the block, errors call settings as the official flags do."""
    try:
        yield
    except ValueError as error:
        name = next((name for name in OFFICIAL_NAMES if str(error).startswith(f"{name} ")), "")
        raise ValueError(OFFICIAL_NAMES.get(name, "") + str(error).removeprefix(name)) from error


def runtime_of(args: argparse.Namespace) -> Runtime:
    degrees = args.ulysses_degree, args.ring_degree
    return Runtime(
        dtype=_dtype(args.precision, "bf16"),
        vae_dtype=_dtype(args.vae_precision, "fp16"),
        text_dtype=_dtype(args.text_encoder_precision, "fp16"),
        offload="models" if args.use_cpu_offload else "none",
        fp8=args.use_fp8,
        ulysses_degree=None if degrees == (1, 1) else degrees[0],
        ring_degree=None if degrees == (1, 1) else degrees[1],
        timeout=args.timeout,
    )


def check_model(found: weights.Weights, given: str) -> None:
    """Refuse the wrong `--model` for the weights, which decides about embedded guidance; `given` is what was said.

    Raises:
        ValueError: it is; names the right one.
    """
    embedded = found.embedded_guidance
    right = given if embedded is None else MODELS[embedded]
    if given != right:
        has = "has" if embedded else "has no"
        raise ValueError(f"--model is {given}, but {found.transformer} {has} embedded guidance: give --model {right}.")


def output_of(args: argparse.Namespace) -> Output:
    folder = f"{args.save_path}_{args.save_path_suffix}" if args.save_path_suffix else args.save_path
    return Output(out=Path(folder), format="mp4", name_suffix=args.name_suffix)


def sampling_of(args: argparse.Namespace) -> FullSampling:
    if len(args.video_size) > 2:
        raise ValueError(f"--video-size has {len(args.video_size)} numbers; give height and width, or one number for both.")
    # Rounded up, as in the reference; only sizes above 0 mean anything.
    height, width = (-(-size // SIZE_MULTIPLE) * SIZE_MULTIPLE for size in (args.video_size[0], args.video_size[-1]))
    if [height, width] != [args.video_size[0], args.video_size[-1]]:
        log.info("The video will be %d high and %d wide: sizes are rounded up to multiples of %d.", height, width, SIZE_MULTIPLE)
    return FullSampling(  # what weights say of their use changes no official default
        height=height,
        width=width,
        num_frames=args.video_length,
        num_steps=args.infer_steps,
        shift=args.flow_shift,
        schedule="linear-quadratic" if args.use_linear_quadratic_schedule else "shift",
        linear_steps=min(args.linear_schedule_end, args.infer_steps - 1) if args.use_linear_quadratic_schedule else None,
        guidance=args.embedded_cfg_scale if args.model == MODELS[True] else None,
        cfg_scale=max(1.0, args.cfg_scale),
        seed=_seed(args.seed_type, args.seed),
        solver=args.flow_solver,
    )


def _seed(kind: str, seed: int | None) -> int:
    if kind == "file":
        raise ValueError("--seed-type file would read seeds beside the prompts of a file, which this command does not take; use --seed.")
    if kind == "fixed" and seed is None:
        raise ValueError("--seed-type fixed needs --seed.")
    return randbelow(2**31) if seed is None or kind == "random" else seed


def _dtype(given: str, official: str) -> DType:
    """The official default means the official dtype on a GPU, and on a CPU whatever is best there: float16 would take hours."""
    return "auto" if given == official else DTYPES[given]


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")
