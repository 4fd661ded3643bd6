"""VBench's dimensions that need a network, by networks that a user has: the published formula around any that gives features.

A TOML file has a table of each dimension, with the path of its network: TorchScript (`.pt`), ONNX (`.onnx`) or a function
(`file.py:name`). What they are given and give:

    [subject_consistency]      # DINO ViT-B/16:  pictures [N, 3, size, size] -> features [N, D]
    [background_consistency]   # CLIP ViT-B/32:  the same
    [aesthetic_quality]        # CLIP and head:  pictures -> scores [N] of 0 to 10
    [imaging_quality]          # MUSIQ:          pictures of their own size, 0 to 1 -> scores [N] of 0 to 100
    [dynamic_degree]           # RAFT:           two pictures [1, 3, H, W] of 0 to 255 -> flow [1, 2, H, W]
    [overall_consistency]      # ViCLIP:         `network`: 8 frames [1, 8, 3, size, size] -> [1, D]; `text`: prompts -> [N, D]
    [temporal_style]           #                 the same

With anything else than the networks named here a score is not VBench's.

Letters: N pictures, D features, H height, W width.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from hunyuan_video.config import require
from hunyuan_video.motion.flow import is_dynamic
from hunyuan_video.pictures import CLIP_DEVIATION, CLIP_MEAN

Frames = UInt8[np.ndarray, "T H W 3"]
Network = Callable[..., Any]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = CLIP_MEAN, CLIP_DEVIATION
WITH_TEXT = ("overall_consistency", "temporal_style")
DIMENSIONS = (
    *("subject_consistency", "background_consistency", "aesthetic_quality", "imaging_quality", "dynamic_degree"),
    *WITH_TEXT,
)
LONGEST_SIDE = 512  # that MUSIQ is shown


@dataclass(frozen=True)
class Backbone:
    """The network of one dimension."""

    dimension: str
    network: str
    text: str | None = None
    size: int = 224

    def __post_init__(self) -> None:
        require(self.dimension in DIMENSIONS, f"There is no dimension {self.dimension!r} here; there are {', '.join(DIMENSIONS)}.")
        need = self.dimension in WITH_TEXT
        require(
            need == (self.text is not None), f"{self.dimension} {'needs' if need else 'has no'} `text`, what makes features of prompts."
        )

    def identity(self) -> str:
        """Of the files and settings, in hexadecimal: scores by others are others."""
        files = [Path(name.partition(".py:")[0] + (".py" if ".py:" in name else "")) for name in (self.network, self.text) if name]
        content = repr(sorted(asdict(self).items())).encode() + b"".join(path.read_bytes() for path in files)
        return hashlib.sha256(content).hexdigest()[:16]

    def load(self) -> Callable[[Frames, float, str], float]:
        """A function of frames, their rate and the prompt. Raises an error for what cannot be loaded."""
        network = load(self.network)
        if self.dimension in WITH_TEXT:
            assert self.text is not None
            text = load(self.text)
            return lambda frames, fps, prompt: _agreement(self, network, text, frames, prompt)
        if self.dimension == "dynamic_degree":
            return lambda frames, fps, prompt: _dynamic(network, frames, fps)
        if self.dimension == "imaging_quality":
            return lambda frames, fps, prompt: _imaging(network, frames)
        if self.dimension == "aesthetic_quality":
            return lambda frames, fps, prompt: float(_call(network, self.pictures(frames)).mean()) / 10
        return lambda frames, fps, prompt: consistency(_call(network, self.pictures(frames)))

    def pictures(self, frames: Frames) -> Float[Tensor, "N 3 _ _"]:
        """Each frame as the network was trained to see it: the short side of its size, and but for DINO the middle square of that."""
        return torch.cat([self._picture(frame) for frame in frames])  # one by one: a large clip is gigabytes

    def _picture(self, frame: UInt8[np.ndarray, "H W 3"]) -> Float[Tensor, "1 3 _ _"]:
        crops = self.dimension != "subject_consistency"
        x = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
        scale = self.size / min(x.shape[-2:])
        x = _resized(x, [max(self.size, int(side * scale)) for side in x.shape[-2:]], "bicubic" if crops else "bilinear")
        if crops:
            top, left = ((side - self.size) // 2 for side in x.shape[-2:])
            x = x[..., top : top + self.size, left : left + self.size]
        mean, deviation = (torch.tensor(each)[:, None, None] for each in (CLIP if crops else IMAGENET))
        return (x / 255 - mean) / deviation


def _resized(x: UInt8[Tensor, "N 3 _ _"], sizes: list[int], mode: str) -> Float[Tensor, "N 3 _ _"]:
    """Whole levels, as torchvision's resize without antialiasing gives them, which VBench calls."""
    return F.interpolate(x.float(), sizes, mode=mode).round().clamp(0, 255)


def read(path: Path) -> tuple[Backbone, ...]:
    """Of a TOML file; paths in it are beside it, unless they are absolute. Raises a ValueError for anything else."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return tuple(_of_table(name, table, path.parent) for name, table in tables.items())
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise ValueError(f"{path} holds no backbones ({error}); docs/evaluation.md shows such a file.") from error


def _of_table(name: str, table: Mapping[str, Any], beside: Path) -> Backbone:
    require(isinstance(table, dict) and "network" in table, f"[{name}] lacks `network`, the path of one.")
    given: dict[str, Any] = {key: str(beside / value) if key in ("network", "text") else value for key, value in table.items()}
    return Backbone(name, **given)


def load(name: str) -> Network:
    """A network, by its path. A file of Python is run: give none of a stranger's.

    Raises:
        FileNotFoundError: there is none.
        ImportError: ONNX Runtime is missing.
        ValueError: it is of no kind that is known.
    """
    path, _, function = name.partition(".py:")
    if function:
        spec = importlib.util.spec_from_file_location(f"backbone_{Path(path).name}", f"{path}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        require(hasattr(module, function), f"{path}.py has no function {function}.")
        return getattr(module, function)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file with a network.")
    if path.endswith(".onnx"):
        return _onnx(path)
    require(path.endswith(".pt"), f"{path} is neither TorchScript (.pt) nor ONNX (.onnx) nor a function (file.py:name).")
    return torch.jit.load(path).eval()


def _onnx(path: str) -> Network:
    try:
        from onnxruntime import InferenceSession  # pyright: ignore[reportMissingImports] (whoever has such a network has it)
    except ImportError as error:
        raise ImportError(f"{path} is run by ONNX Runtime, which is missing: pip install onnxruntime") from error
    session = InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    return lambda *given: session.run(None, {name: np.asarray(value) for name, value in zip(names, given, strict=True)})[0]


@torch.no_grad()
def _call(network: Network, *given: Any) -> Tensor:
    return torch.as_tensor(network(*given)).float()


# --- The published formulas ---


def consistency(features: Float[Tensor, "N D"]) -> float:
    """Of all frames but the first, how like the one before and the first they are, negative likeness counting as none: the mean
    (vbench/subject_consistency.py). 1 of a single frame."""
    x = F.normalize(features, dim=-1)
    if len(x) == 1:
        return 1.0
    before, first = (x[1:] * x[:-1]).sum(dim=-1), x[1:] @ x[0]
    return float((before.clamp_min(0) + first.clamp_min(0)).mean() / 2)


def _agreement(backbone: Backbone, network: Network, text: Network, frames: Frames, prompt: str) -> float:
    """The cosine between 8 frames of a video, the middle ones of 8 parts, and its prompt (vbench/overall_consistency.py)."""
    chosen = middles(len(frames), 8)
    seen = _call(network, backbone.pictures(frames[chosen])[None])
    return float(F.cosine_similarity(seen, _call(text, [prompt])).mean())


def middles(length: int, count: int) -> list[int]:
    """The frames in the middle of so many equal parts; the last one again and again of a clip that has fewer."""
    if length < count:
        return [*range(length), *[length - 1] * (count - length)]
    borders = np.linspace(0, length, count + 1).astype(int)
    return [int((start + end - 1) // 2) for start, end in pairwise(borders)]


def _dynamic(network: Network, frames: Frames, fps: float) -> float:
    def flow(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        pair = [torch.from_numpy(np.ascontiguousarray(each)).permute(2, 0, 1)[None].float() for each in (one, two)]
        return _call(network, *pair)[0].permute(1, 2, 0).numpy()

    return float(is_dynamic(list(frames), fps, flow))


def _imaging(network: Network, frames: Frames) -> float:
    """The mean of a quality from 0 to 100 over all frames, as a share (vbench/imaging_quality.py); of large frames, made small enough."""
    longest = max(frames.shape[1:3])
    sizes = [int(side * LONGEST_SIDE / longest) for side in frames.shape[1:3]]

    def picture(frame: np.ndarray) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
        return (_resized(x, sizes, "bilinear") if longest > LONGEST_SIDE else x.float()) / 255

    return float(torch.cat([_call(network, picture(frame)).reshape(1) for frame in frames]).mean()) / 100
