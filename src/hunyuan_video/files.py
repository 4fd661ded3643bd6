"""Where files go: free and portable names, places that can be written to, and writing whole or not at all. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import sys
import tempfile
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError

from hunyuan_video.config import Output, check_prompt
from hunyuan_video.errors import FULL

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".png")
LATENTS_SUFFIX = ".safetensors"
MAX_NAME_BYTES, MAX_TRAITS_BYTES = 100, 50  # of the 255 that file systems allow


def check_writable(path: str | Path, *, num_frames: int = 1, suffixes: tuple[str, ...] = (*VIDEO_SUFFIXES, LATENTS_SUFFIX)) -> Path:
    """Refuse now what saving would refuse after hours of work; creates the folder. Raises ValueError or OSError."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        example = path.with_suffix(suffixes[0]) if path.suffix else path / f"video{suffixes[0]}"
        raise ValueError(f"'{path}' ends in none of {', '.join(suffixes)}, which choose the format; name a file such as {example}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Ask the disk: os.access says yes to root, and knows nothing of full or read-only disks.
        descriptor, probe = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        os.unlink(probe)
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)  # refuses a name that is too long
    except FileExistsError as error:
        raise NotADirectoryError(f"Cannot write {path}: {path.parent} is a file, not a folder; choose another folder.") from error
    except OSError as error:
        raise type(error)(f"Cannot write {path}: {error.strerror}; choose another name or folder, or allow writing there.") from error
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it, such as {path / f'video{suffixes[0]}'}.")
    if path.suffix.lower() == ".png" and num_frames > 1 and os.path.lexists(path.with_suffix("")):
        raise FileExistsError(f"{num_frames} frames make a folder {path.with_suffix('')}, which exists already; choose another name.")
    return path


def check_output(output: Output) -> None:
    """Refuse a place for videos that cannot be written to, before any work."""
    check_writable(output.out / f"video{output.suffix}")


def user_cache() -> Path | None:
    """The folder where this user's programs keep what can be made again, ours in it; not made yet. None for a user without a home."""
    home = os.path.expanduser("~")
    usual = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("", "Library/Caches")}
    variable, place = usual.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    if given := os.environ.get(variable):
        return Path(given) / "hunyuan-video"
    return None if home == "~" else Path(home, place, "hunyuan-video")


def sha256(path: str | Path) -> str:
    """Of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(name: str) -> str:
    """A file's name, in which bytes that are no text are written out: such names cannot be printed or stored."""
    return name.encode("utf-8", "backslashreplace").decode()


def safe_name(prompt: str, seed: int, traits: Sequence[str] = ()) -> str:
    """A file name without suffix: letters and digits of any script from the prompt, then the seed, then what else tells a video from
    others; at most MAX_NAME_BYTES in UTF-8. Traits that are too long end in a number that stands for all of them.

    Windows forbids colons, device names and final dots; file systems count bytes, of which a Chinese character takes three.
    """
    tail = "".join(f"_{trait}" for trait in traits)
    if len(tail.encode()) > MAX_TRAITS_BYTES:
        tail = f"{_cut(tail, MAX_TRAITS_BYTES - 7)}_{short_digest(tail)}"
    ending = f"_seed{seed}{tail}"  # also keeps the prompt "nul" from naming a device
    return (words_of(prompt, MAX_NAME_BYTES - len(ending.encode())) or "video") + ending


def words_of(text: str, most: int) -> str:
    """Its letters and digits, the rest as underscores between them; at most so many bytes."""
    kept = (c if c.isalnum() or unicodedata.category(c) in ("Mn", "Mc") else " " for c in unicodedata.normalize("NFC", text))
    return _cut("_".join("".join(kept).split()), most)


def short_digest(text: str) -> str:
    """Six characters that are most likely others for another text."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _cut(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore").rstrip("_-.")


def flush(path: Path) -> None:
    """To the disk, so that a power cut cannot leave a renamed but empty file. Windows cannot open folders, and need not."""
    if os.name != "nt" or path.is_file():
        descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[tuple[Path, Path]]:
    """A temporary path, for a file or folder, that takes the place of `path` when the block ends well, and else vanishes.

    Raises:
        OSError: it cannot be written, such as on a full disk; names `path`.
    """
    with _whole(path) as temporary:
        yield temporary, path
        _finish(temporary)
        os.replace(temporary, path)
        flush(temporary.parent)


@contextlib.contextmanager
def making(path: Path) -> Iterator[Path]:
    """As `replacing`, of a name that is free and must still be so when the block ends: whoever was faster keeps it.

    Raises:
        FileExistsError: it is taken by now.
        OSError: as `replacing`.
    """
    with _whole(path) as temporary:
        yield temporary
        _finish(temporary)
        try:
            _rename_to_free(temporary, path)
        except FileExistsError as error:
            raise FileExistsError(f"{path} was made by another process meanwhile; nothing is overwritten: choose another name.") from error
        flush(temporary.parent)


def put_beside(path: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` make a file or folder under a temporary name, which then is called `clip.mp4` as `path` is; or `clip-2.mp4`, `clip-3.mp4`
    ... if that is taken (for `.png` also by a folder of frames). Returns the name, which is taken in the moment when it is chosen: of two
    processes that want the same one, each gets its own. Raises an OSError as `replacing`.
    """
    with _whole(path) as temporary:
        write(temporary)
        _finish(temporary)
        suffix = "" if temporary.is_dir() else path.suffix
        endings = (".png", "") if path.suffix.lower() == ".png" else (path.suffix,)
        for number in itertools.count(1):
            stem = path.with_name(path.stem if number == 1 else f"{path.stem}-{number}")
            if not any(os.path.lexists(f"{stem}{ending}") for ending in endings):
                with contextlib.suppress(FileExistsError):  # another process was faster
                    _rename_to_free(temporary, taken := Path(f"{stem}{suffix}"))
                    flush(temporary.parent)
                    return taken
    raise AssertionError  # for a type checker: numbers do not end


def _rename_to_free(temporary: Path, path: Path) -> None:
    """Raises a FileExistsError if the name is taken by now."""
    if temporary.is_dir():
        if os.name != "nt":  # where renaming takes the place of an empty folder, and elsewhere of none
            path.mkdir()
        os.rename(temporary, path)
        return
    try:
        os.link(temporary, path)  # unlike a reserved name, whole from its first moment
    except FileExistsError:
        raise
    except OSError:  # a file system without links, such as exFAT
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        os.replace(temporary, path)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, of which nothing is left after the block."""
    temporary = path.absolute().with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
    except (OSError, SafetensorError, RuntimeError) as error:
        if (reason := why_not_written(error, temporary)) is None:
            raise
        kind = type(error) if isinstance(error, OSError) else OSError
        raise kind(f"Cannot write {path}: {reason}; make room there, allow writing, or choose another place.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # for a folder; nothing else
        temporary.unlink(missing_ok=True)


def why_not_written(error: Exception, temporary: Path) -> str | None:
    """What is wrong with the disk where `temporary` was to be written, if it is that: what was read meanwhile may be damaged, too."""
    if isinstance(error, OSError) and error.strerror:
        is_ours = error.errno in FULL or str(error.filename or "").startswith(str(temporary))
        return error.strerror.lower() if is_ours else None
    if number := re.search(r"\(os error (\d+)\)", str(error)):  # as safetensors says it
        return os.strerror(int(number[1])).lower()
    # All that PyTorch and NumPy say.
    return "the disk is full" if re.search(r"inline_container|iostream|requested and \d+ written", str(error)) else None


def _finish(temporary: Path) -> None:
    for file in (*temporary.rglob("*"), temporary):
        flush(file)
    if temporary.is_file():
        temporary.chmod(0o644)  # some writers make files that only their owner may read


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one a line.

    Raises:
        ValueError: it is no UTF-8, has no prompt, or one that cannot be one.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8; save it as one.") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{path} has no prompt; it needs one a line.")
    for number, prompt in enumerate(prompts, start=1):
        check_prompt(prompt, f"Prompt {number} of {path}")
    return prompts
