"""What a Dockerfile says, and what an engine is given to build from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from docker.utils.build import exclude_paths


@dataclass(frozen=True)
class Instruction:
    name: str
    value: str


def instructions(dockerfile: Path) -> list[Instruction]:
    """In order, without comments, each on one line."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [Instruction(*line.split(None, 1)) for line in lines if line.strip()]


def stages(dockerfile: Path) -> dict[str, list[Instruction]]:
    """The instructions of each stage, by its name."""
    found: dict[str, list[Instruction]] = {}
    for instruction in instructions(dockerfile):
        if instruction.name == "FROM":
            found[instruction.value.split(" AS ")[1]] = []
        elif found:
            found[next(reversed(found))].append(instruction)
    return found


def context_of(source: Path) -> set[str]:
    """The files that an engine is given to build from, by .dockerignore."""
    patterns = [line for line in (source / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    files = {path for path in exclude_paths(str(source), patterns) if (source / path).is_file()}
    return files - {".dockerignore"}  # which an engine is always given
