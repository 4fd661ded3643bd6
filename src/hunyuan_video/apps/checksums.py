"""The SHA-256 of every file of a folder, in a text file that `sha256sum -c` reads, too. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tqdm import tqdm

from hunyuan_video.files import replacing

NAME = "SHA256SUMS"
PARTIAL = ".part"  # ends the name of a file that is still being fetched
_CHUNK = 2**22  # bytes


def read(root: Path) -> dict[str, str]:
    """The SHA-256 of each file, by its path from `root` with forward slashes; nothing where there is no list.

    Raises:
        ValueError: a line is damaged.
    """
    path = root / NAME
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], start=1):
        entry = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if entry is None:
            raise ValueError(f"Line {number} of {path} is no SHA-256 and file name; restore the file, or delete it.")
        sums[entry[2]] = entry[1]
    return sums


def write(root: Path, sums: Mapping[str, str]) -> None:
    with replacing(root / NAME) as (temporary, _):
        temporary.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), encoding="utf-8", newline="\n")


def files_under(root: Path) -> list[str]:
    """What is worth a line: all files but hidden ones, the list itself, and those still being fetched. Linked folders count."""
    found: list[str] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (place := os.path.realpath(folder)) in seen:  # a link to where we have been
            folders.clear()
            continue
        seen.add(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(folder, name).relative_to(root).as_posix() for name in names if not name.startswith("."))
        found += [path for path in paths if path != NAME and not path.endswith(PARTIAL)]
    return sorted(found)


def sums_of(root: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of files as they are, with a progress bar, for it reads each to its end."""
    sizes = {name: (root / name).stat().st_size for name in names}
    sums = {}
    with tqdm(total=sum(sizes.values()), desc="SHA-256", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for name in sizes:
            digest = hashlib.sha256()
            with (root / name).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    bar.update(len(chunk))
            sums[name] = digest.hexdigest()
    return sums
