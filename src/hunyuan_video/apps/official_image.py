"""The official command line for image to video: what it has besides the one for text, and what its flags mean there."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

from hunyuan_video import weights
from hunyuan_video.apps import official
from hunyuan_video.buckets import Resolution, size_for
from hunyuan_video.config import Conditioning, FullSampling
from hunyuan_video.pictures import read_picture
from hunyuan_video.request import Adapter, Request, Strengths

SCRIPT = "sample_image2video.py"
DEFAULT_WEIGHT = f"ckpts/{weights.I2V}/transformers/mp_rank_00_model_states.pt"
TOLD: dict[str, Conditioning] = {"token_replace": "first_frame", "latent_concat": "latent_concat"}
OTHER_DEFAULTS = {
    "text_encoder": "llm-i2v",
    "tokenizer": "llm-i2v",
    "prompt_template": "dit-llm-encode-i2v",
    "prompt_template_video": "dit-llm-encode-video-i2v",
    "flow_shift": 17.0,
    "embedded_cfg_scale": None,
}
FIXED = official.FIXED | {name: OTHER_DEFAULTS[name] for name in ("text_encoder", "tokenizer", "prompt_template", "prompt_template_video")}
log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = official.build_parser(("clipL", "llm", "llm-i2v"))
    parser.prog, parser.description = SCRIPT, "HunyuanVideo image to video, with the official flags."
    parser.set_defaults(**OTHER_DEFAULTS)

    i2v = parser.add_argument_group("image to video")
    i2v.add_argument("--i2v-mode", action="store_true", help="begin with a picture: what this program always does")
    i2v.add_argument("--i2v-image-path", default="./assets/demo/i2v/imgs/0.png")
    i2v.add_argument("--i2v-resolution", choices=get_args(Resolution), default="720p", help="the size follows from the picture's shape")
    i2v.add_argument("--i2v-condition-type", choices=tuple(TOLD), default="token_replace", help="what the weights were trained for")
    i2v.add_argument("--i2v-stability", action="store_true", help="start with a trace of the picture (recommended: with --flow-shift 7.0)")
    i2v.add_argument("--i2v-dit-weight", default=DEFAULT_WEIGHT, help="file or folder (default: under --model-base)")

    lora = parser.add_argument_group("LoRA")
    lora.add_argument("--use-lora", action="store_true")
    lora.add_argument("--lora-path", default="")
    lora.add_argument("--lora-scale", type=float, default=1.0)
    lora.add_argument("--lora-rank", type=int, default=64, help="for training alone: a file says its own")

    training = parser.add_argument_group("training, without meaning here")
    training.add_argument("--gradient-checkpoint", action="store_true")
    training.add_argument("--gradient-checkpoint-layers", type=int, default=-1)
    return parser


def run() -> None:
    """The command: make the videos that the command line asks for, on all GPUs that torchrun has given processes to, if it has."""
    official.make(translate(build_parser().parse_args()))


def translate(args: argparse.Namespace) -> official.Command:
    """Check every flag, read the picture and find the weights.

    Raises:
        ValueError, FileNotFoundError: one sentence saying what came, what is right, and what to do.
    """
    _check(args)
    picture = read_picture(args.i2v_image_path)
    height, width, _ = picture.pixels.shape
    height, width = size_for(height, width, args.i2v_resolution)
    log.info("The video will be %d high and %d wide, by the shape of the picture.", height, width)
    adapters = ()
    if args.use_lora:
        adapters = (Adapter(Path(args.lora_path), Strengths(args.lora_scale)),)
        adapters[0].check_file()
    with official.in_official_words():
        sampling = replace(_sampling(args), height=height, width=width)
        request = Request(args.prompt, sampling, args.neg_prompt or None, picture, adapters)
        requests = request.numbered(args.num_videos)
        found = _found(args)
        found.check(request)
    return official.Command(requests, official.runtime_of(args), official.output_of(args), found, args.reproduce)


def _check(args: argparse.Namespace) -> None:
    official.check_facts(args, FIXED)
    official.check_command(args, SCRIPT)
    if not args.i2v_mode:
        raise ValueError(f"--i2v-mode is left out, but {SCRIPT} begins every video with a picture; add it, or use sample_video.py.")
    if args.dit_weight != official.DEFAULT_DIT_WEIGHT:
        raise ValueError("--dit-weight names a transformer for text, which does nothing here; give --i2v-dit-weight.")
    if args.use_lora != bool(args.lora_path):
        raise ValueError("--use-lora and --lora-path FILE go together; give both, or neither.")


def _sampling(args: argparse.Namespace) -> FullSampling:
    """The size is the picture's affair. A scale of 0 means none, as in the reference, whatever the --model."""
    return replace(
        official.sampling_of(args), guidance=args.embedded_cfg_scale or None, stability="stable" if args.i2v_stability else "dynamic"
    )


def _found(args: argparse.Namespace) -> weights.Weights:
    root = Path(args.model_base or os.environ.get("MODEL_BASE") or weights.DEFAULT_ROOT)
    transformer = None if args.i2v_dit_weight == DEFAULT_WEIGHT else Path(args.i2v_dit_weight)
    found = weights.find(root, transformer, args.load_key, picture=True)
    if found.conditioning not in ("text", TOLD[args.i2v_condition_type]):
        right = next(name for name, told in TOLD.items() if told == found.conditioning)
        raise ValueError(f"--i2v-condition-type is {args.i2v_condition_type}, but {found.transformer} was trained for {right}; give that.")
    return found
