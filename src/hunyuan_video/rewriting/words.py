"""Lists of words that come with the package: sections in brackets, and in each `word meaning` between commas."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files


def entries(name: str) -> Iterator[tuple[str, str, str]]:
    """Of a file: the section, the word, and its meaning, which may be empty."""
    section = ""
    for line in files("hunyuan_video.rewriting").joinpath(name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            for entry in line.split(", "):
                word, _, meaning = entry.partition(" ")
                yield section, word, meaning
