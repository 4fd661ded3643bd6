"""Read and write video files with their metadata; frames uint8 [T, H, W, 3] <-> tensors in [-1, 1].

A file appears whole or not at all: it is written under a temporary name beside its place, flushed to the disk, then renamed.
The same frames give the same bytes, so the encoders' thread counts and random ids are pinned.

Licence: PyAV's wheels carry FFmpeg with libx264, which is GPL. This file only calls it; who ships those wheels ships GPL code.

T, H, W: frames, height and width in pixels. B, C: videos and channels of latents, whose T, H and W are the VAE's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
import tempfile
import unicodedata
import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import GifImagePlugin, Image, ImageSequence, PngImagePlugin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Frames = UInt8[np.ndarray, "T H W 3"]

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".png")
LATENTS_SUFFIX = ".safetensors"
DEFAULT_FPS = 24.0  # what HunyuanVideo was trained to make
MARK = "hunyuan_video"  # tells our metadata from another program's comment
MAX_NAME_BYTES = 100  # of the 255 a file system allows: leaves room for a counter, a suffix and a folder prefix
MAX_HEADER_BYTES = 2**20  # ours are far smaller; a safetensors header of 200,000 entries takes seconds to parse

# suffix -> container, codec, default and largest crf, codec options. 18 is where H.264's loss stops being seen (the official code leaves
# imageio's 25); 24 is about its equal on AV1's scale. Four x264 threads whatever the machine has, for its bytes depend on their number.
ENCODERS = {
    ".mp4": ("mp4", "libx264", 18, 51, {"preset": "medium", "threads": "4"}),
    ".webm": ("webm", "libsvtav1", 24, 63, {"preset": "8"}),
}
# Rounded rather than truncated, chroma at full width: 0.3 dB for H.264, 2 dB for AV1 over swscale's fast default.
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
BT709 = 1  # the number in ITU-T H.273 for its primaries, transfer and matrix alike
# FFmpeg also has playlist formats, with which a hostile "video" names other files or addresses to be opened.
READABLE_CONTAINERS = "mov,matroska,avi"
# Everything that the three parsers were seen to raise on damaged bytes.
UNREADABLE = (av.FFmpegError, SafetensorError, Image.DecompressionBombError, OSError, EOFError, SyntaxError, LookupError, ValueError)


def to_frames(x: Float[Tensor, "3 T H W"]) -> Frames:
    """Pixels of a video in [-1, 1]; what lies outside is clipped. Rounds to the nearest level (the official code truncates)."""
    if x.isnan().any():
        raise ValueError("the video to convert holds NaN; it was decoded or denoised in too narrow a precision: use bfloat16 or float32")
    pixels = (x.detach().float() * 127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return rearrange(pixels, "C T H W -> T H W C").contiguous().cpu().numpy()


def to_tensor(frames: Frames) -> Float[Tensor, "3 T H W"]:
    """The video in [-1, 1], float32, of which `to_frames` gives these frames back exactly."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "T H W C -> C T H W").float().div_(127.5).sub_(1)


def frames_sha256(frames: Frames) -> str:
    """A fingerprint of shape and pixels, by which a replay knows whether it made the same video."""
    return hashlib.sha256(repr(frames.shape).encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()


def save_video(
    frames: Frames | UInt8[Tensor, "T H W 3"], path: str | Path, *, fps: int | float = 24, crf: int | None = None, metadata: dict | None = None
) -> Path:
    """Write frames in the format that the suffix names, in place of any older file; returns the path written.

    `.mp4` is H.264 and `.webm` AV1 (both yuv420p, BT.709; even sizes only), `.gif` has 256 colours for the whole video, `.png` is
    lossless: one frame makes the file, more make a folder of its name (`clip.png` -> `clip/00000.png` …), which must not exist yet.
    crf: quality, 0 is best; 18 for mp4 and 24 for webm by default. metadata: what JSON can hold; stored inside the file.
    Raises ValueError for a wrong argument and OSError where the disk refuses; no partial file is left by either, nor by Ctrl-C.
    """
    pixels = np.ascontiguousarray(frames.cpu().numpy() if isinstance(frames, Tensor) else frames)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], not {pixels.dtype} {list(pixels.shape)}; make them with to_frames")
    path = Path(path)
    suffix = path.suffix.lower()
    if not 1 <= fps <= (50 if suffix == ".gif" else 240):
        raise ValueError(f"fps must be 1 to 240, and at most 50 in a GIF (viewers slow down faster ones), not {fps}")
    if suffix in ENCODERS:
        if pixels.shape[1] % 2 or pixels.shape[2] % 2 or min(pixels.shape[1:3]) < 16:
            size = f"{pixels.shape[2]}x{pixels.shape[1]}"
            raise ValueError(f"{suffix} needs an even width and height of at least 16, not {size}; crop the frames or write .png or .gif")
        if crf is not None and not 0 <= crf <= ENCODERS[suffix][3]:
            raise ValueError(f"crf must be 0 (best) to {ENCODERS[suffix][3]} for {suffix}, not {crf}")
    elif crf is not None:
        raise ValueError(f"crf is a setting of .mp4 and .webm, not of {suffix or 'a path without a suffix'}; leave it out")
    comment = None if metadata is None else _pack(metadata)
    path = check_writable(path, num_frames=len(pixels))
    if suffix == ".png" and len(pixels) > 1:
        path = path.with_suffix("")
    with _replacing(path) as temporary:
        if suffix in ENCODERS:
            try:
                _write_container(pixels, temporary, suffix, Fraction(fps).limit_denominator(1001), crf, comment)
            except av.FFmpegError as error:
                raise OSError(f"could not write {path}: {error.strerror}; is the disk full?") from error
        elif suffix == ".gif":
            _write_gif(pixels, temporary, fps, comment)
        elif len(pixels) == 1:
            _write_png(pixels[0], temporary, fps, comment)
        else:
            temporary.mkdir()
            for index, picture in enumerate(pixels):
                _write_png(picture, temporary / f"{index:05d}.png", fps, comment if index == 0 else None)
                _flush(temporary / f"{index:05d}.png")
    return path


def read_video(path: str | Path) -> tuple[Frames, float]:
    """All frames and the frames per second of a video, GIF, picture or folder of PNGs (GIF's times are coarse, and so its fps).

    Raises FileNotFoundError, or ValueError for what is damaged, cut short or no video.
    """
    path = _existing(path)
    with _reading(path):
        if path.is_dir() or _is_picture(path):
            return _read_pictures(path)
        with _open_container(path) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24", interpolation=SCALING) for frame in container.decode(stream)]
            return np.stack(frames), float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)


def read_metadata(path: str | Path) -> dict:
    """What `save_video` or `save_latents` stored in the file. Raises ValueError if it holds nothing of ours or is damaged."""
    path = _existing(path)
    if path.suffix.lower() == LATENTS_SUFFIX:
        comment = _read_safetensors(path)[0]
    else:
        with _reading(path):
            if path.is_dir() or _is_picture(path):
                with Image.open(_pictures(path)[0], formats=("GIF", "PNG")) as image:
                    comment = image.info.get("comment", image.info.get("Comment"))
            else:
                with _open_container(path) as container:  # mp4 says comment, Matroska COMMENT
                    comment = {key.lower(): value for key, value in container.metadata.items()}.get("comment")
    metadata = _unpack(comment).get(MARK)
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} carries no metadata of hunyuan-video; it was made elsewhere, re-encoded, or written with --no-metadata")
    return metadata


def save_latents(latents: Float[Tensor, "B C T H W"], path: str | Path, metadata: dict | None = None) -> Path:
    """Write latents as safetensors, in their own dtype, with a checksum; returns the path."""
    path = check_writable(path, suffixes=(LATENTS_SUFFIX,))
    tensor = latents.detach().cpu().contiguous()
    comment = _pack(metadata, sha256=_tensor_sha256(tensor))  # one key: safetensors writes several in a random order
    with _replacing(path) as temporary:
        save_file({"latents": tensor}, temporary, {MARK: comment})
    return path


def load_latents(path: str | Path) -> tuple[Float[Tensor, "B C T H W"], dict]:
    """Latents and the metadata stored with them (empty if none). Raises ValueError for a damaged file and for NaN or infinity."""
    path = _existing(path)
    comment, latents = _read_safetensors(path)
    stored = _unpack(comment)
    if stored.get("sha256", digest := _tensor_sha256(latents)) != digest:
        raise ValueError(f"{path} was damaged after it was written (its SHA-256 differs); copy or make it again")
    if latents.ndim != 5 or not latents.is_floating_point() or not latents.isfinite().all():
        raise ValueError(f"{path} must hold finite floating latents [B, C, T, H, W], not {latents.dtype} {list(latents.shape)}; make it again")
    return latents, stored.get(MARK) or {}


def check_writable(path: str | Path, *, num_frames: int = 1, suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> Path:
    """Refuse now what `save_video` would refuse after the work is done; creates the folder. Raises ValueError or OSError."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"the file to write must end in {' or '.join(suffixes)}, not '{path.name}'; name it like 'results/video{suffixes[0]}'")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Asked of the disk: for root os.access always says yes, and a read-only mount is no matter of permissions.
        descriptor, probe = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        os.unlink(probe)
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)  # refuses a name that is too long
    except FileExistsError as error:
        raise NotADirectoryError(f"cannot write {path}: {path.parent} is a file, not a folder; choose another folder") from error
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror}; choose another folder or name, or change the permissions") from error
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it, such as {path / f'video{suffixes[0]}'}")
    if path.suffix.lower() == ".png" and num_frames > 1 and os.path.lexists(path.with_suffix("")):
        raise FileExistsError(f"{num_frames} frames make a folder {path.with_suffix('')}, which exists already; choose another name")
    return path


def safe_name(prompt: str, seed: int) -> str:
    """A file name, without suffix, from a prompt: at most MAX_NAME_BYTES of UTF-8, letters and digits of any script, and the seed.

    Windows forbids colons, device names and final dots, and file systems count bytes, of which CJK takes three a character.
    """
    ending = f"_seed{seed}"  # also keeps a prompt "con" or "nul" from being a Windows device
    kept = (c if c.isalnum() or unicodedata.category(c) in ("Mn", "Mc") else " " for c in unicodedata.normalize("NFC", prompt))
    words = "_".join("".join(kept).split()) or "video"
    return words.encode()[: MAX_NAME_BYTES - len(ending)].decode(errors="ignore").rstrip("_") + ending


def unique_path(folder: str | Path, name: str, suffix: str) -> Path:
    """`folder/name.mp4`, or `name-2.mp4`, `name-3.mp4` … if that is taken (for `.png` also by a folder of frames)."""
    if Path(name).name != name or not name or name == "..":
        raise ValueError(f"a name without folders is needed, not '{name}'; give the folder apart")
    number = 1
    while True:
        stem = name if number == 1 else f"{name}-{number}"
        path = Path(folder) / f"{stem}{suffix}"
        if not os.path.lexists(path) and not (suffix.lower() == ".png" and os.path.lexists(Path(folder) / stem)):
            return path
        number += 1


def _pack(metadata: dict | None, **more: str) -> str:
    try:
        # ASCII: containers differ in what they do to other encodings, to line ends and to lone surrogates.
        return json.dumps({MARK: metadata, **more}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be what JSON can hold: {error}") from error


def _unpack(comment: str | bytes | None) -> dict:
    try:
        stored = json.loads(comment or "{}")
    except (ValueError, RecursionError):  # another program's comment
        return {}
    return stored if isinstance(stored, dict) else {}


def _tensor_sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def _flush(path: Path) -> None:
    """To the disk, so that a power cut cannot leave a renamed but empty file. Windows cannot open folders, nor needs to."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path, for a file or folder, that takes the place of `path` when the block ends well and else vanishes."""
    temporary = path.absolute().with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(temporary.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def _write_container(pixels: Frames, path: Path, suffix: str, rate: Fraction, crf: int | None, comment: str | None) -> None:
    format, codec, default_crf, _, codec_options = ENCODERS[suffix]
    os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 prints its settings to stderr and has no other switch
    # bitexact: Matroska draws random ids without it. faststart: the index comes first, so that browsers play while they load.
    with av.open(str(path), "w", format=format, container_options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        if comment:
            container.metadata["comment"] = comment
        stream = container.add_stream(codec, rate=rate, options={**codec_options, "crf": str(default_crf if crf is None else crf)})
        stream.height, stream.width, stream.pix_fmt = pixels.shape[1], pixels.shape[2], "yuv420p"
        context = stream.codec_context
        # Untagged, players guess the matrix from the size, and colours shift.
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = ColorRange.MPEG
        for picture in pixels:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            yuv = frame.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, interpolation=SCALING
            )
            container.mux(stream.encode(yuv))
        container.mux(stream.encode(None))


def _gif_delays(num_frames: int, fps: int | float) -> list[int]:
    """Hundredths of a second per frame. The ends are rounded, not the delays, so that errors never add up."""
    ends = [round(100 * index / fps) for index in range(num_frames + 1)]
    return [end - start for start, end in zip(ends, ends[1:], strict=False)]


def _write_gif(pixels: Frames, path: Path, fps: int | float, comment: str | None) -> None:
    # One palette, from pixels spread over the whole video: a palette per frame makes still areas flicker.
    spread = pixels[:: -(-len(pixels) // 16), :: -(-pixels.shape[1] // 64), :: -(-pixels.shape[2] // 64)]
    palette = Image.fromarray(spread.reshape(-1, spread.shape[2], 3)).quantize(256, Image.Quantize.MEDIANCUT, kmeans=1)
    colours = bytes(palette.getpalette() or ()).ljust(768, b"\0")
    # By hand, for Pillow's save_all drops a frame that equals the one before it.
    with open(path, "wb") as file:
        file.write(b"GIF89a" + struct.pack("<HHBBB", pixels.shape[2], pixels.shape[1], 0xF7, 0, 0) + colours)
        file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")  # loop for ever
        if comment:
            blocks = [comment[start : start + 255].encode() for start in range(0, len(comment), 255)]
            file.write(b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0")
        for picture, delay in zip(pixels, _gif_delays(len(pixels), fps), strict=True):
            indexed = Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
            file.writelines(GifImagePlugin.getdata(indexed, duration=10 * delay))
        file.write(b";")


def _write_png(picture: UInt8[np.ndarray, "H W 3"], path: Path, fps: int | float, comment: str | None) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("fps", str(fps))
    if comment:
        text.add_text("Comment", comment)
    Image.fromarray(picture).save(path, format="PNG", pnginfo=text)


def _existing(path: str | Path) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist; check the name")
    return Path(path)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path} cannot be read ({reason}); it is cut short, damaged or no video: copy or make it again") from error


def _is_picture(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(8).startswith((b"GIF8", b"\x89PNG"))


def _pictures(path: Path) -> list[Path]:
    return sorted(path.glob("*.png")) if path.is_dir() else [path]


def _read_pictures(path: Path) -> tuple[Frames, float]:
    frames, delays, stated = [], [], None
    for file in _pictures(path):
        with Image.open(file, formats=("GIF", "PNG")) as image:
            if image.format == "GIF" and not file.read_bytes().endswith(b";"):  # Pillow takes a cut GIF for a shorter one
                raise ValueError("the end is missing")
            stated = stated or image.info.get("fps")
            for picture in ImageSequence.Iterator(image):
                frames.append(np.asarray(picture.convert("RGB")))
                delays.append(round(picture.info.get("duration", 0) / 10))
    fps = 100 * len(delays) / sum(delays) if any(delays) else float(stated or DEFAULT_FPS)
    whole = max(1, round(fps))  # 24 fps comes as 4, 4, 5 ... hundredths, and five of them average to 23.8
    return np.stack(frames), float(whole) if _gif_delays(len(delays), whole) == delays else fps


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
        end += size
        file.seek(end)
        head = file.read(16)
    return end


@contextlib.contextmanager
def _open_container(path: Path) -> Iterator[av.container.InputContainer]:
    # A file object, for FFmpeg reads a name such as "12:30.mp4" as a protocol.
    with open(path, "rb") as file:
        if _stated_size(file) > path.stat().st_size:
            raise ValueError("the end is missing")
        file.seek(0)
        with av.open(file, "r", container_options={"format_whitelist": READABLE_CONTAINERS}, metadata_errors="replace") as container:
            if not container.streams.video:
                raise ValueError("there is no video in it")
            yield container


def _read_safetensors(path: Path) -> tuple[str | None, Tensor]:
    with open(path, "rb") as file:
        if int.from_bytes(file.read(8), "little") > MAX_HEADER_BYTES:
            raise ValueError(f"{path} has a header of over {MAX_HEADER_BYTES} bytes and is no file of latents; give one made by save_latents")
    with _reading(path), safe_open(path, "pt") as file:
        return (file.metadata() or {}).get(MARK), file.get_tensor("latents")
