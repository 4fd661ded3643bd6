"""Read and write video files with their metadata; frames uint8 [T, H, W, 3] <-> tensors in [-1, 1].

A file appears whole or not at all: it is written under a temporary name beside its place, flushed to the disk, then renamed.
How frames are encoded is in `recording`.

T, H, W: frames, height and width in pixels. B, C: videos and channels of latents, whose T, H and W are the VAE's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hunyuan_video.containers import open_container
from hunyuan_video.files import LATENTS_SUFFIX, VIDEO_SUFFIXES, check_writable, put_beside, replacing
from hunyuan_video.pictures import reading
from hunyuan_video.recording import ENCODERS, Frames, Recording, pyav

FramesTensor = UInt8[Tensor, "T H W 3"]
MARK = "hunyuan_video"  # tells our metadata from another program's comment
MAX_HEADER_BYTES = 2**20  # of safetensors; ours are far smaller, and one of 200,000 entries takes seconds to parse


def to_frames(x: Float[Tensor, "3 T H W"]) -> Frames:
    """Pixels of a video in [-1, 1]; what lies outside is clipped. Rounds to the nearest level (the official code truncates)."""
    if x.isnan().any():
        raise ValueError("The video to convert holds NaN: some step ran in too narrow a precision; use bfloat16 or float32.")
    return to_levels(x).cpu().numpy()


def to_levels(x: Float[Tensor, "3 T H W"]) -> UInt8[Tensor, "T H W 3"]:
    """What `to_frames` computes, where the pixels are."""
    pixels = (x.detach().float() * 127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return rearrange(pixels, "C T H W -> T H W C").contiguous()


def to_tensor(frames: Frames) -> Float[Tensor, "3 T H W"]:
    """The video in [-1, 1], float32, of which `to_frames` gives exactly these frames back."""
    return rearrange(torch.tensor(np.ascontiguousarray(frames)), "T H W C -> C T H W").float().div_(127.5).sub_(1)


def save_video(
    frames: Frames | FramesTensor,
    path: str | Path,
    *,
    fps: int | float = 24,
    crf: int | None = None,
    metadata: dict | None = None,
    overwrite: bool = True,
) -> Path:
    """Write frames in the format that the suffix names, in place of any older file; returns the path written. Without `overwrite`, it is
    `clip-2.mp4`, `clip-3.mp4` ... where `clip.mp4` is taken.

    `.mp4` is H.264 and `.webm` AV1 (yuv420p, BT.709, even sizes only), `.gif` has 256 colours for the whole video, `.png` is lossless:
    one frame makes the file, several make a folder of its name (`clip.png`: `clip/00000.png` ...), which is never overwritten.
    crf: loss, 0 is best; 18 for mp4 and 24 for webm unless given. metadata: what JSON can hold; stored in the file.
    Raises ValueError for a wrong argument and OSError where the disk refuses. Neither leaves a partial file, nor does Ctrl-C.
    """
    with Recording(Path(path).suffix.lower(), fps=fps, crf=crf) as recording:
        recording.add(np.ascontiguousarray(frames.cpu().numpy() if isinstance(frames, Tensor) else frames))
        return save_recording(recording, path, metadata=metadata, overwrite=overwrite)


def save_recording(recording: Recording, path: str | Path, *, metadata: dict | None = None, overwrite: bool = True) -> Path:
    """As `save_video`, of frames that were added to the recording before; `path` has its suffix."""
    path, several = Path(path), recording.num_frames > 1
    comment = None if metadata is None else _pack(metadata)
    is_folder = recording.suffix == ".png" and several
    path = check_writable(path, num_frames=recording.num_frames if overwrite else 1, suffixes=VIDEO_SUFFIXES)

    def write(temporary: Path) -> None:
        if recording.suffix not in ENCODERS:
            return recording.write(temporary, comment)
        try:
            recording.write(temporary, comment)
        except pyav().FFmpegError as error:
            raise OSError(f"Cannot write {path}: {error.strerror}; is the disk full?") from error

    return _put(path.with_suffix("") if is_folder and overwrite else path, write, overwrite)


def read_metadata(path: str | Path) -> dict:
    """What `save_video` or `save_latents` stored in the file. Raises ValueError if there is nothing of ours in it or it is damaged."""
    with reading(Path(path)) as path:
        if path.suffix.lower() == LATENTS_SUFFIX:
            comment, _ = _read_safetensors(path)
        elif files := _pictures(path):
            with Image.open(files[0], formats=("GIF", "PNG")) as image:
                comment = image.info.get("comment", image.info.get("Comment"))
        else:
            with open_container(path) as container:  # Matroska writes COMMENT
                comment = container.metadata.get("comment", container.metadata.get("COMMENT"))
    metadata = _unpack(comment).get(MARK)
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} has no metadata of hunyuan-video: it was made elsewhere, re-encoded, or written with --no-metadata.")
    return metadata


def save_latents(latents: Float[Tensor, "B C T H W"], path: str | Path, metadata: dict | None = None, *, overwrite: bool = True) -> Path:
    """Write latents in their own dtype, with a checksum, in place of any older file; or without `overwrite` under a free name, as
    `save_video`. Returns the path."""
    tensor = latents.detach().cpu().contiguous()
    comment = _pack(metadata, sha256=_sha256(tensor))  # one entry: safetensors writes several in random order
    path = check_writable(path, suffixes=(LATENTS_SUFFIX,))
    return _put(path, lambda temporary: save_file({"latents": tensor}, temporary, {MARK: comment}), overwrite)


def _put(path: Path, write: Callable[[Path], None], overwrite: bool) -> Path:
    if not overwrite:
        return put_beside(path, write)
    with replacing(path) as (temporary, path):
        write(temporary)
    return path


def load_latents(path: str | Path) -> tuple[Float[Tensor, "B C T H W"], dict]:
    """Latents and the metadata stored with them (empty if none). Raises ValueError for a damaged file, NaN and infinity."""
    if Path(path).suffix.lower() in VIDEO_SUFFIXES and Path(path).is_file():
        raise ValueError(f"{path} is a video or a picture; latents are in a {LATENTS_SUFFIX} file, such as `--format latents` writes.")
    with reading(Path(path)) as path:
        comment, latents = _read_safetensors(path)
        stored = _unpack(comment)
        if latents.ndim != 5 or not latents.is_floating_point() or not latents.isfinite().all():
            raise ValueError(f"it holds {latents.dtype} {list(latents.shape)} instead of finite floats [B, C, T, H, W]")
        if stored.get("sha256", digest := _sha256(latents)) != digest:
            raise ValueError("bytes have changed since it was written")
        metadata = stored.get(MARK) or {}
        if not isinstance(metadata, dict):
            raise ValueError(f"its settings are a {type(metadata).__name__}")
    return latents, metadata


def _pack(metadata: dict | None, **more: str) -> str:
    # In ASCII: containers differ in what they make of other text, of line ends and of lone surrogates.
    return json.dumps({MARK: metadata, **more}, ensure_ascii=True, allow_nan=False)


def _unpack(comment: str | bytes | None) -> dict:
    try:
        stored = json.loads(comment or "{}")
    except (ValueError, RecursionError):  # another program's comment
        return {}
    return stored if isinstance(stored, dict) else {}


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _pictures(path: Path) -> list[Path]:
    """The PNGs of a folder, or the PNG or GIF itself; none for anything else."""
    if path.is_dir():
        return sorted(path.glob("*.png"))
    with open(path, "rb") as file:
        return [path] if file.read(8).startswith((b"GIF8", b"\x89PNG")) else []


def _read_safetensors(path: Path) -> tuple[str | None, Tensor]:
    with open(path, "rb") as file:
        if int.from_bytes(file.read(8), "little") > MAX_HEADER_BYTES:
            raise ValueError("its header is longer than latents need")
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get(MARK), file.get_tensor("latents")
