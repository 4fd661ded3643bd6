"""Read and write video files with their metadata; frames uint8 [T, H, W, 3] <-> tensors in [-1, 1].

A file appears whole or not at all: it is written under a temporary name beside its place, flushed to the disk, then renamed.
How frames are encoded is in `recording`.

T, H, W: frames, height and width in pixels. B, C: videos and channels of latents, whose T, H and W are the VAE's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hunyuan_video import colours
from hunyuan_video.files import LATENTS_SUFFIX, VIDEO_SUFFIXES, check_writable, put_beside, replacing
from hunyuan_video.pictures import reading
from hunyuan_video.recording import ENCODERS, Frames, Recording, pyav, scaling

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

FramesTensor = UInt8[Tensor, "T H W 3"]
# In ITU-T H.273. Matrices: red, green and blue as they are; BT.709, unsaid, FCC, BT.601 twice, SMPTE 240M, BT.2020.
BT601, UNSPECIFIED, READ_MATRICES = 6, 2, (0, 1, 2, 4, 5, 6, 7, 9)
HD_LINES = 720
READABLE = "mov,matroska,avi"  # FFmpeg also reads playlists, by which a hostile "video" has other files or addresses opened
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


def _stated_size(file: BinaryIO) -> int:
    """Bytes that an MP4's boxes or a Matroska segment claim, 0 if unsaid; FFmpeg takes some cut files for shorter videos."""
    head = file.read(64)
    if head.startswith(b"\x1a\x45\xdf\xa3") and b"\x18\x53\x80\x67" in head:
        start = head.index(b"\x18\x53\x80\x67") + 4
        width = 9 - head[start].bit_length()  # the leading zeros say how many bytes the size has
        size, unsaid = int.from_bytes(head[start : start + width]) & (2 ** (7 * width) - 1), 2 ** (7 * width) - 1
        return 0 if size == unsaid else start + width + size
    end = 0
    while head[4:8].isalpha() and (head[4:8] == b"ftyp" or end):
        size = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4])
        if size < 8:  # 0 means to the end of the file
            break
        file.seek(end := end + size)
        head = file.read(16)
    return end


def rgb(frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a decoded frame as an ordinary screen shows them, on white where it is transparent. Of a file that does not say how
    colours are coded, it is BT.709 from 720 lines on and else BT.601, in the limited range, as players take it.

    Raises:
        ValueError: they are coded in a way that is not read.
    """
    transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
    convert = functools.partial(frame.to_ndarray, src_colorspace=_matrix(frame), interpolation=scaling())
    if not colours.is_ordinary(transfer, primaries):
        return colours.to_bt709(convert(format="rgb48le"), transfer, primaries)
    if not any(component.is_alpha for component in frame.format.components):
        return convert(format="rgb24")
    pixels = convert(format="rgba").astype(np.uint16)
    alpha = pixels[..., 3:]
    return ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _matrix(frame: av.VideoFrame) -> int:
    """How brightness and colours of a frame make red, green and blue, in the numbers of H.273."""
    matrix = int(frame.colorspace)
    if matrix == UNSPECIFIED and not frame.format.is_rgb:
        if not colours.is_ordinary(int(frame.color_trc), colours.BT709):
            return colours.BT2020
        return colours.BT709 if frame.height >= HD_LINES else BT601
    if matrix not in READ_MATRICES:
        raise ValueError(f"its colours are coded by matrix {matrix} of H.273, which is not read; convert it to BT.709")
    return matrix


def video_stream(container: InputContainer) -> av.VideoStream:
    """The moving picture of a file, which may have its cover first. Raises a ValueError where there is none, or a transparent one."""
    from av.stream import Disposition

    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise ValueError("there is no video in it but a cover picture")
    best = container.streams.best("video")
    stream = best if best in moving else moving[0]
    assert isinstance(stream, pyav().VideoStream)
    if "1" in (stream.metadata.get("alpha_mode"), stream.metadata.get("ALPHA_MODE")):  # of WebM; FFmpeg's decoder gives what lies under it
        raise ValueError("its transparency is not read; put it on a background")
    return stream


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """A video file, opened. What FFmpeg finds wrong with it, there or later inside the block, is a ValueError."""
    av = pyav()
    with open(path, "rb") as file:  # not the path, in which FFmpeg takes "12:30.mp4" for a protocol
        if _stated_size(file) > path.stat().st_size:
            raise ValueError("the end is missing")
        file.seek(0)
        # Other programs' text that is no UTF-8 comes as surrogates: in PyAV 19 always, in 18, which else refuses the file, only if told so.
        in_18: dict[str, Any] = {"metadata_errors": "surrogateescape"} if av.__version__ < "19" else {}
        try:
            with av.open(file, "r", container_options={"format_whitelist": READABLE}, **in_18) as container:
                if not container.streams.video:
                    raise ValueError("there is no video in it")
                yield container
        except av.FFmpegError as error:
            raise ValueError(error.strerror or str(error)) from error


def _read_safetensors(path: Path) -> tuple[str | None, Tensor]:
    with open(path, "rb") as file:
        if int.from_bytes(file.read(8), "little") > MAX_HEADER_BYTES:
            raise ValueError("its header is longer than latents need")
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get(MARK), file.get_tensor("latents")
