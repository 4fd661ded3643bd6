"""Files of jobs, in a folder or behind any URL that fsspec knows (s3://bucket/path), under names of ours, and each whole or not there."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import fsspec

_NAME = re.compile(r"video_[0-9a-f]{32}(/[a-z0-9][a-z0-9_.-]*)+")
_TEMPORARY = ".tmp"

try:
    from botocore.exceptions import BotoCoreError  # pyright: ignore[reportMissingImports] (an extra)

    _OUTAGES: tuple[type[Exception], ...] = (BotoCoreError,)
except ImportError:  # without the extra s3
    _OUTAGES = ()


class Results:
    """`place` is a folder, made if it is missing, or a URL. A name is "<job>/<attempt>/<what>", or "<job>/<what>"."""

    def __init__(self, place: str | Path):
        self._fs, self._root = fsspec.core.url_to_fs(str(place), use_listings_cache=False)  # other processes put files there, too
        self._is_local = "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,))
        with _reached():
            self._fs.makedirs(self._root, exist_ok=True)

    def put(self, name: str, source: Path | bytes) -> str:
        """Keep a file's content, in place of an older one; returns the name. Raises an OSError if there is no room, and that is a
        ConnectionError, as for all below, if whoever keeps the files does not answer."""
        path = self._path(name)
        if not self._is_local:  # an object appears when it is whole
            with _reached():
                self._fs.pipe_file(path, source) if isinstance(source, bytes) else self._fs.put_file(str(source), path)
            return name
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(f"{path}.{uuid.uuid4().hex}{_TEMPORARY}")
        try:
            with temporary.open("xb") as file:
                _copy(source, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return name

    def open(self, name: str) -> BinaryIO:
        """To read, and to seek in. Raises a FileNotFoundError if it is not there."""
        with _reached():
            return cast(BinaryIO, self._fs.open(self._path(name), "rb"))

    def size(self, name: str) -> int:
        """Bytes. Raises a FileNotFoundError if it is not there."""
        with _reached():
            return int(self._fs.size(self._path(name)))

    def remove(self, name: str) -> None:
        """A file, or a folder with all that is in it; nothing if it is not there."""
        path = f"{self._root}/{name}" if re.fullmatch("video_[0-9a-f]{32}", name) else self._path(name)
        try:
            with _reached():
                self._fs.rm(path, recursive=True)
        except FileNotFoundError:
            return

    def folders(self) -> list[str]:
        """All there are: "<job>" and "<job>/<attempt>"."""
        with _reached():
            found = [path.removeprefix(f"{self._root}/") for path in self._fs.find(self._root, withdirs=True)]
        jobs = {name.split("/")[0] for name in found if name.startswith("video_")}  # not the root itself
        attempts = {"/".join(name.split("/")[:2]) for name in found if re.match(r"video_[0-9a-f]{32}/\d+(/|$)", name)}
        return sorted(jobs | attempts)

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name) or ".." in name:
            raise ValueError(f"{name!r} is no name of a file of ours.")
        return f"{self._root}/{name}"


@contextmanager
def _reached() -> Iterator[None]:
    """What S3's library raises if nobody answers is an error of its own; here it is the ConnectionError that it means."""
    try:
        yield
    except _OUTAGES as error:
        raise ConnectionError(str(error)) from error


def _copy(source: Path | bytes, file: BinaryIO) -> None:
    if isinstance(source, bytes):
        file.write(source)
        return
    with source.open("rb") as content:
        while piece := content.read(2**20):
            file.write(piece)
