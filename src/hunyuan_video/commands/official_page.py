"""`python3 gradio_server.py`: the web page with the official flags. `hunyuan-video demo` is the same in our own words."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from hunyuan_video.apps.official import (
    DEFAULT_DIT_WEIGHT,
    build_parser,
    check_facts,
    check_model,
    flag,
    in_official_words,
    runtime_of,
    sampling_of,
)
from hunyuan_video.commands.common import Which
from hunyuan_video.commands.demo import Demo
from hunyuan_video.config import Place, Sampling
from hunyuan_video.weights import find_or_embedded

FOLDER = Path("gradio_outputs")  # where the official page writes, whatever --save-path says
# Flags that say where the page's controls stand, and what of our settings each is about.
CONTROLS = {
    "video_size": ("height", "width"),
    "video_length": ("num_frames",),
    "infer_steps": ("num_steps",),
    "flow_shift": ("shift",),
    "flow_solver": ("solver",),
    "use_linear_quadratic_schedule": ("schedule", "linear_steps"),
    "cfg_scale": ("cfg_scale",),
    "embedded_cfg_scale": ("guidance",),
    "seed": ("seed",),
}
NOT_OF_A_PAGE = ("num_videos", "name_suffix", "save_path_suffix", "reproduce", "ulysses_degree", "ring_degree")


def run() -> None:
    """The command."""
    page = translate(parser().parse_args())
    page.run()


def parser() -> argparse.ArgumentParser:
    """The official flags, and what a page needs besides."""
    made = build_parser()
    made.prog, made.description = "gradio_server.py", "HunyuanVideo in a web browser, with the official flags."
    ours = made.add_argument_group("ours")
    ours.add_argument("--api-key-file", type=Path, help="lines NAME=KEY, of those who may log in (default: $HUNYUAN_VIDEO_API_KEYS)")
    ours.add_argument("--loras", type=Path, help="folder of LoRA files that may be chosen")
    return made


def translate(args: argparse.Namespace) -> Demo:
    """The page that the flags ask for. What stands at its official default is as the weights were made for.

    Raises:
        ValueError, FileNotFoundError: one sentence saying what came, what is right, and what to do.
    """
    official = parser().parse_args([])
    for name in NOT_OF_A_PAGE:
        if getattr(args, name) != getattr(official, name):
            raise ValueError(f"{flag(name)} is for sample_video.py, and does nothing for a page; leave it out.")
    check_facts(args)
    with in_official_words():
        full = sampling_of(args)
    said = [fields for name, fields in CONTROLS.items() if getattr(args, name) != getattr(official, name)]
    base, transformer = args.model_base or os.environ.get("MODEL_BASE"), args.dit_weight
    page = Demo(
        place=Place(data=FOLDER if args.save_path == official.save_path else Path(args.save_path)),
        api_key_file=args.api_key_file,
        loras=args.loras,
        prompt=args.prompt or "",
        negative_prompt=args.neg_prompt or "",
        sampling=Sampling(**{field: getattr(full, field) for fields in said for field in fields}),
        runtime=runtime_of(args),
        which=Which(None if base is None else Path(base), None if transformer == DEFAULT_DIT_WEIGHT else Path(transformer)),
        load_key=args.load_key,
    )
    check_model(find_or_embedded(page.which.weights, page.which.transformer, page.load_key), args.model)
    return page
