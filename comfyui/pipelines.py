"""What goes from node to node as a model: what to load. It is loaded when something is first made with it, and kept until another one is,
or ComfyUI frees its memory."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from hunyuan_video.config import PER_VIDEO, Runtime
from hunyuan_video.pipeline import HunyuanVideo, Step
from hunyuan_video.previews import Preview, fit
from hunyuan_video.request import Adapter
from hunyuan_video.weights import Weights, lora_file

from . import host

ModelType = host.io.Custom("HUNYUAN_VIDEO_MODEL")


@dataclass(frozen=True)
class Model:
    """Weights, how to compute with them, and the LoRAs that act in them. Nothing of it is loaded."""

    weights: Weights
    runtime: Runtime
    adapters: tuple[Adapter, ...] = ()

    def key(self) -> tuple[object, ...]:
        """Equal for models that the same loaded weights serve."""
        as_loaded = replace(self.runtime, speed="exact", **{name: getattr(Runtime(), name) for name in PER_VIDEO})
        return self.weights, as_loaded, tuple((adapter, version(adapter.path)) for adapter in self.adapters)


def version(path: Path) -> tuple[int, int]:
    """Another one for a LoRA's file that was written anew."""
    state = lora_file(path).stat()
    return state.st_mtime_ns, state.st_size


@dataclass(frozen=True)
class Loaded:
    """A pipeline, and what its latents look like."""

    pipe: HunyuanVideo
    preview: Preview

    def picture(self, step: Step) -> Image.Image | None:
        """The middle of the video as a denoising step sees it, small; None before the first one."""
        if step.estimate is None:
            return None
        frames = self.preview(step.estimate)
        return Image.fromarray(frames[len(frames) // 2])


# ComfyUI runs nodes in inference mode, whose tensors not even another thread may write to. What loads or computes leaves it.
as_usual = torch.inference_mode(False)

_kept: dict[tuple[object, ...], Loaded] = {}  # one at the most: two models of 26 GB are more than a machine has


@as_usual
def loaded(model: Model) -> Loaded:
    """What `model` says, loaded now if it is not what was used last.

    Raises:
        ValueError, FileNotFoundError: as `HunyuanVideo.load`.
    """
    key = model.key()
    if key not in _kept:
        release()
        host.make_room()
        pipe = HunyuanVideo.load(model.weights, model.runtime, None, model.adapters)
        _kept[key] = Loaded(pipe, fit(pipe.encode))
    return _kept[key]


def pipeline(model: Model) -> HunyuanVideo:
    """The same, with what the runtime says of each video alone."""
    return loaded(model).pipe.sharing(model.runtime)


def release() -> None:
    """Let go of what is loaded."""
    _kept.clear()
    gc.collect()  # of models and their hooks, which hold each other
