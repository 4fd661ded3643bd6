"""Which of several ways to make a video fits, and is the fastest; and how that is said."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import Literal

import torch

from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.distributed.cost import NEARLY
from hunyuan_video.memory import available_memory
from hunyuan_video.plan.parts import Loras, Parts
from hunyuan_video.plan.prediction import STAGES, Prediction, predict

log = logging.getLogger(__name__)

OFFLOADS: tuple[Literal["none", "models", "blocks"], ...] = ("none", "models", "blocks")


def choose(
    parts: Parts, sampling: FullSampling, runtime: Runtime, device: torch.device, loras: Loras = (), gpus: int = 1, here: int = 1
) -> Runtime:
    """`runtime`, with the degrees by which so many `gpus` share the video, with the fastest kind of offload that fits what is free now,
    where `here` processes share the host. Without a GPU there is nothing to move.

    Raises:
        ValueError: none fits; says what does not.
    """
    if device.type != "cuda":
        return replace(runtime, offload="none")
    memory, host = available_memory(device), available_memory(torch.device("cpu")) // here
    predictions = predict(parts, sampling, [replace(runtime, offload=offload) for offload in OFFLOADS], loras, gpus)
    best = fastest(predictions, memory, host)
    if best is None:
        raise ValueError(refusal(predictions, memory, host))
    log.info("Offload: %s (%.1f of %.1f GB free on the GPU will be used).", best.runtime.offload, best.wanted / 1e9, memory / 1e9)
    return best.runtime


def fastest(predictions: Sequence[Prediction], memory: int, host: int | None) -> Prediction | None:
    """The fastest that fits into the GPU's memory and, where it is known, the host's. In tiles if there is a choice, for that is how the
    VAE is meant to decode; and of several GPUs, each of which would have its own copy of the weights on the host, without one if that is
    nearly as fast, and then whole if they fit."""
    fitting = [prediction for prediction in predictions if prediction.fits(memory, host)]
    nearly = NEARLY * min((prediction.seconds for prediction in fitting), default=0)

    def order(prediction: Prediction) -> tuple[bool, bool, bool, float]:
        stays = prediction.gpus > 1 and prediction.runtime.offload == "none" and prediction.seconds <= nearly
        return not prediction.runtime.vae_tiling, not stays, stays and prediction.runtime.shard, prediction.seconds

    return min(fitting, key=order, default=None)


def proposal(predictions: Sequence[Prediction], memory: int, host: int | None) -> str:
    """What to ask `generate` for, in a sentence.

    Raises:
        ValueError: none fits; says what does not.
    """
    best = fastest(predictions, memory, host)
    if best is None:
        raise ValueError(refusal(predictions, memory, host))
    gpus = f" on each of {best.gpus} GPUs" if best.gpus > 1 else ""
    words = [f"--gpus {best.gpus}"] * (best.gpus > 1) + flags(best.runtime)
    return f"The fastest that fits {memory / 1e9:.1f} GB{gpus} takes {best.wanted / 1e9:.1f}: {' '.join(words)}"


def flags(runtime: Runtime) -> list[str]:
    """How to ask for a runtime on the command line: all that is not the default, and the offload."""
    words = [f"--speed {runtime.speed}"] * (runtime.speed != "exact")
    implied = Runtime(speed=runtime.speed, fp8_matmul=runtime.fp8_matmul)  # which implies fp8, and what the preset says
    for name, default in asdict(implied).items():
        value, flag = getattr(runtime, name), name.replace("_", "-")
        if name == "offload" or (value != default and not isinstance(value, bool)):
            words += [f"--{flag} {value}"]
        elif value != default:
            words += [f"--{flag}" if value else f"--no-{flag}"]
    return words + ["--fp8-matmul"] * runtime.fp8_matmul


def refusal(predictions: Sequence[Prediction], memory: int, host: int | None) -> str:
    """Why none fits, in a sentence."""
    least = min(predictions, key=lambda prediction: prediction.device)
    if least.wanted <= memory and host is not None:
        needed = min(prediction.host for prediction in predictions if prediction.wanted <= memory)
        return f"This video needs {needed / 1e9:.1f} GB of host memory, and {host / 1e9:.1f} GB are free; --fp8 and --text-fp8 take less."
    stage = max(reversed(STAGES), key=lambda name: least.stages[name])
    return (
        f"This video needs {least.wanted / 1e9:.1f} GB of GPU memory to {stage}, and {memory / 1e9:.1f} GB are free: "
        "make it smaller or shorter, or see what --fp8, --text-fp8 and tiles save with `hunyuan-video plan`."
    )


def everything(parts: Parts, runtime: Runtime, gpus: int = 1) -> list[Runtime]:
    """`runtime` with each kind of offload, in 16 and in 8 bits, decoding in tiles and whole. Of several GPUs, which share
    the tiles, also with weights spread over them."""
    places = [(offload, False) for offload in OFFLOADS] + [("none", True)] * (gpus > 1)
    bits = [True] if runtime.fp8 or parts.in_8_bits else [False, True]
    if runtime.pipefusion_patches is not None:  # which every block is needed for, again and again
        places = [(offload, False) for offload in ("none", "models")]
    choices = product(places, bits, (True, False) if gpus == 1 else (True,))
    return [
        replace(runtime, offload=offload, shard=spread, fp8=in_8_bits, vae_tiling=tiling)
        for (offload, spread), in_8_bits, tiling in choices
    ]


def table(predictions: Sequence[Prediction]) -> str:
    """One line each, and one that says what the numbers are."""
    names, many = list(predictions[0].stages), predictions[0].gpus > 1
    best = min(prediction.seconds for prediction in predictions)
    heads = f"{'offload':<8} " + f"{'shard':<6} " * many + f"{'8 bits':<7} {'tiles':<6}"
    lines = [heads + "".join(f"{name:>9}" for name in (*names, "GPU", "host", "time"))]
    for prediction in predictions:
        sizes = [*(prediction.stages[name] for name in names), prediction.wanted, prediction.host]
        choice = prediction.runtime
        spread, in_8_bits, tiles = ("yes" if on else "no" for on in (choice.shard, choice.fp8, choice.vae_tiling))
        lines.append(
            f"{choice.offload:<8} "
            + f"{spread:<6} " * many
            + f"{in_8_bits:<7} {tiles:<6}"
            + "".join(f"{size / 1e9:9.2f}" for size in sizes)
            + f"{prediction.seconds / best:9.2f}"
        )
    lines.append(
        "GB (10^9 bytes) at the fullest moment of each stage; GPU: what must be free there; host: memory beside it; time: times the fastest"
        + "; of several GPUs: of the fullest" * many
    )
    return "\n".join(lines)
