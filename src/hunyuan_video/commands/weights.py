"""What is done with weights before a video is made: fetched, checked, looked at, converted, planned for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hunyuan_video import weights
from hunyuan_video.commands.common import Computes, Flat, Repeatable, adapters_of, model_base
from hunyuan_video.config import LoadKey, Runtime, Sampling, parse_bytes, require


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
        for line in download(self.to or model_base() or weights.DEFAULT_ROOT, fp8=self.fp8, i2v=self.i2v):
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

        for finding in verify(self.root or model_base() or weights.DEFAULT_ROOT, write=self.write):
            print(finding, flush=True)


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
        adapters = adapters_of(self.lora)
        found = None
        if self.weights is not None or self.transformer is not None:
            found = weights.find_or_embedded(self.weights, self.transformer, self.load_key)

        from hunyuan_video.apps.plan import report

        print(report(found, self.sampling, self.runtime, adapters, memory, self.gpus))


@dataclass(frozen=True)
class Info:
    """Say what this installation is and has: versions, devices, attention kernels, weights."""

    weights: Path | None = None
    """root of the weights to look for"""

    def run(self) -> None:
        from hunyuan_video.apps.info import report

        print(report(self.weights))
