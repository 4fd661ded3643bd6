"""Captioned videos and images on disk: a folder or a list of them, and the clips that are cut from each.

    folder/       clip.mp4 + clip.txt, photo.jpg + photo.txt, clip/0000.png … + clip.txt, subfolders too
    list.jsonl    {"file": "clip.mp4", "caption": "A cat."}, one a line; other keys are ignored; a caption may be one of fields (`captions`)
    list.csv      file,caption in the first line

A clip is frames on the grid of a target rate, resized until they cover a bucket, and cropped to it around the middle. What cannot be used
raises `UnusableError` with a reason to count.

Letters: T frames, H W height and width of a bucket.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import hashlib
import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import UInt8

from hunyuan_video.clips import IMAGE_SUFFIXES, ROUNDING, VIDEO_SUFFIXES, NoClipError, frame_files, look, on_grid, pictures
from hunyuan_video.config import MAX_PROMPT_CHARACTERS
from hunyuan_video.files import printable
from hunyuan_video.pictures import DAMAGED, fill
from hunyuan_video.training.captions import fields_of, is_text
from hunyuan_video.training.dataset import Bucket, nearest

SUFFIXES = VIDEO_SUFFIXES + IMAGE_SUFFIXES
END_BYTES = 2**20  # of either end of a file, by which it is known
Frames = UInt8[np.ndarray, "T H W 3"]


class UnusableError(Exception):
    """A source that no clip can be made of. `reason` is one of a few, for counting; `detail` is this source's own."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class Item:
    """One source. `name` is the path as the user knows it; `problem`, if any, makes it unusable and was found without opening it."""

    path: Path
    name: str
    caption: str
    problem: str = ""

    @property
    def is_image(self) -> bool:
        """Whether it is a picture, perhaps a moving one."""
        return self.path.suffix.lower() in IMAGE_SUFFIXES

    @property
    def is_media(self) -> bool:
        return self.path.suffix.lower() in SUFFIXES or self.path.is_dir()

    @property
    def content(self) -> str | None:
        """A digest of the file, or of the frames of a folder: of the size and the first and last MiB of each; None if they cannot be read.
        Not of dates, which a copy to another disk changes; and not of all bytes, or who adds a clip to a terabyte would read that again."""
        digest = hashlib.sha256()
        try:
            for file in frame_files(self.path) if self.path.is_dir() else [self.path]:
                size = file.stat().st_size
                digest.update(size.to_bytes(8, "little"))
                with file.open("rb") as opened:
                    digest.update(opened.read(END_BYTES))
                    opened.seek(max(END_BYTES, size - END_BYTES))
                    digest.update(opened.read(END_BYTES))
        except OSError:
            return None
        return digest.hexdigest()


@dataclass(frozen=True)
class Cut:
    """One clip to be made of a source: which of its frames, some perhaps several times, and the bucket they fill."""

    bucket: Bucket
    frames: Sequence[int]


# --- Which sources there are ---------------------------------------------------------------------------------------------------


def find_items(source: Path) -> list[Item]:
    """The sources of a folder (sorted by name) or of a .jsonl or .csv list (as listed; paths are relative to the list).

    Raises:
        ValueError: the source is neither, a row of a list is malformed, or there is nothing in it.
    """
    if source.is_dir():
        items = list(_folder_items(source))
    elif source.suffix.lower() in (".jsonl", ".csv"):
        with source.open(encoding=_encoding(source), newline="") as file:
            rows = _json_rows(file) if source.suffix.lower() == ".jsonl" else _csv_rows(file)
            items = [_listed_item(source, number, row) for number, row in rows]
    elif not source.exists():
        raise FileNotFoundError(f"{source} does not exist; give a folder of captioned videos and images, or a .jsonl or .csv list of them.")
    else:
        raise ValueError(f"{source} is no folder, .jsonl or .csv; give one of these, of captioned videos and images.")
    if not items:
        what = "each needs its caption beside it, as clip.mp4 and clip.txt" if source.is_dir() else "the list has no rows"
        raise ValueError(f"{source} holds no {' '.join(SUFFIXES)}; {what}.")
    return items


def _folder_items(folder: Path) -> Iterator[Item]:
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if not path.name.startswith("."))
    captions = {path.with_suffix(""): path for _, path in files if path.suffix.lower() == ".txt" and path.is_file()}
    clips = {path for path in captions if path.is_dir() and _is_clip(path, captions)}
    stems: dict[Path, list[tuple[int, str, Path]]] = {}
    for name, path in files:
        stem = path if path in clips else path.with_suffix("")
        # What is no video or image is passed over in silence, except if somebody wrote a caption for it.
        is_file = path.is_file() and path.suffix.lower() != ".txt" and (path.suffix.lower() in SUFFIXES or stem in captions)
        if (is_file or path in clips) and path.parent not in clips:
            stems.setdefault(stem, []).append((_rank(path), name, path))
    for stem, found in stems.items():
        best = min(rank for rank, _, _ in found)
        caption, problem = _read_caption(captions.get(stem))
        # One sample a name: beside a clip, a picture is its thumbnail.
        for rank, name, path in found:
            if rank == best:
                yield _item(path, name, caption, problem)
                problem = "another of the same name"


def _is_clip(folder: Path, captions: Container[Path]) -> bool:
    """Whether a folder with a caption beside it is of frames: pictures that have none of their own."""
    frames = frame_files(folder)
    return bool(frames) and not any(frame.with_suffix("") in captions for frame in frames)


def _rank(path: Path) -> int:
    """Of what has the same name and caption, the first counts: video, folder of frames, picture, anything else."""
    suffix = path.suffix.lower()
    return 0 if suffix in VIDEO_SUFFIXES else 1 if path.is_dir() else 2 if suffix in IMAGE_SUFFIXES else 3


def _read_caption(path: Path | None) -> tuple[str, str]:
    """The words beside a source, and what is wrong with them."""
    if path is None:
        return "", ""
    try:
        return path.read_text(encoding=_encoding(path)), ""
    except UnicodeError:
        return "", "caption is not UTF-8"


def _encoding(path: Path) -> str:
    """UTF-8, or UTF-16 where a file starts with the mark of that."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _item(path: Path, name: str, caption: str, problem: str = "") -> Item:
    caption = caption.strip()
    if path.suffix.lower() not in SUFFIXES and not path.is_dir():
        problem = "unknown kind of file"
    elif problem:
        pass
    elif not caption:
        problem = "no caption"
    elif not is_text(caption):
        problem = "caption is not text"
    elif not _has_known_fields(caption):
        problem = "caption of other fields"
    elif len(caption) > MAX_PROMPT_CHARACTERS:
        problem = "caption too long"
    elif not path.exists():
        problem = "missing file"
    return Item(path, printable(name), caption, problem)


def _has_known_fields(caption: str) -> bool:
    try:
        fields_of(caption)
    except ValueError:
        return False
    return True


def _listed_item(source: Path, number: int, row: object) -> Item:
    match row:
        case {"file": str(name), "caption": str() | dict() as caption} if name and "\0" not in name:
            return _item(source.parent / name, name, caption if isinstance(caption, str) else json.dumps(caption, ensure_ascii=False))
    raise ValueError(f'{source}, line {number}: a row needs a "file" and a "caption", both text; this one is {str(row)[:200]}.')


def _json_rows(file: TextIO) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{file.name}, line {number}: this is not JSON ({error}).") from error


def _csv_rows(file: TextIO) -> Iterator[tuple[int, object]]:
    reader = csv.DictReader(_lines(file), strict=True)
    try:
        if not {"file", "caption"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{file.name}, line 1: the first line must name the columns, file,caption; this one has {reader.fieldnames}.")
        for row in reader:
            # With more or fewer values than columns it is not known which one is the caption: most often its commas lack quotes.
            yield reader.line_num, row if None not in row and None not in row.values() else list(row.values())
    except csv.Error as error:
        raise ValueError(f"{file.name}, line {reader.reader.line_num}: this is not CSV ({error}).") from error


def _lines(file: TextIO) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not a text file in UTF-8.") from error


# --- Which clips a source gives ------------------------------------------------------------------------------------------------


def plan(item: Item, buckets: Sequence[Bucket], fps: float, max_clips: int) -> list[Cut]:
    """The clips of a source: as many as it fills, at most `max_clips`, one behind the other from its start.

    Reads headers and the times of frames, and decodes one frame.

    Raises:
        UnusableError: the reason it gives none.
    """
    if item.problem:
        raise UnusableError(item.problem)
    longest = max(bucket.num_frames for bucket in buckets)
    seconds = max_clips * longest / fps
    with _unusable_if_damaged():
        times, height, width = look(item.path, seconds, fps)
    if item.is_image and len(times) == 1:
        if (bucket := nearest(buckets, 1, height, width)) is None:
            raise UnusableError("no bucket for images")
        return [Cut(bucket, [0])]
    if longest == 1:
        raise UnusableError("no bucket for videos")
    shown = on_grid(times, fps, int((seconds + ROUNDING) * fps) + 1)
    cuts: list[Cut] = []
    start = 0
    while len(cuts) < max_clips and len(shown) - start > 1 and (bucket := nearest(buckets, len(shown) - start, height, width)):
        cuts.append(Cut(bucket, shown[start : start + bucket.num_frames]))
        start += bucket.num_frames
    if not cuts:
        raise UnusableError("too short", f"it has {_lasting(len(shown), fps)}; {least(buckets, fps)}")
    return cuts


def least(buckets: Sequence[Bucket], fps: float) -> str:
    """What a video needs, in words; one of the buckets must be for videos."""
    shortest = min((bucket for bucket in buckets if bucket.num_frames > 1), key=lambda bucket: bucket.num_frames)
    return f"the shortest size, {shortest}, needs {_lasting(shortest.num_frames, fps)}"


def _lasting(num_frames: int, fps: float) -> str:
    return f"{num_frames} frames at {fps:g} fps, {num_frames / fps:.2f} seconds"


# --- Pixels --------------------------------------------------------------------------------------------------------------------


def read_clips(item: Item, cuts: Sequence[Cut]) -> Iterator[Frames]:
    """The clips that `plan` chose, one after the other; only one is in memory, already in its bucket's size.

    Raises:
        UnusableError: the source ends early or is damaged.
    """
    with _unusable_if_damaged():
        shown = pictures(item.path, [number for cut in cuts for number in cut.frames])
        for cut in cuts:
            clip = np.empty((*cut.bucket, 3), np.uint8)
            for position in range(cut.bucket.num_frames):
                clip[position] = fill(next(shown), cut.bucket.height, cut.bucket.width)
            yield clip


@contextlib.contextmanager
def _unusable_if_damaged() -> Iterator[None]:
    try:
        yield
    except NoClipError as error:
        raise UnusableError(str(error)) from error
    except DAMAGED as error:
        raise UnusableError("unreadable", getattr(error, "strerror", None) or str(error)) from error
