"""What the benchmarks find: rows of JSON, each with the machine and the state of the code that made it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from measure import Spread

from hunyuan_video.files import replacing

ROOT = Path(__file__).parent.parent
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")  # that decide which kernels there are
VERSIONS = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Machine:
    """Where a row was made, and by which code."""

    cpu: str
    flags: tuple[str, ...]
    cores: int
    threads: int
    system: str
    python: str
    versions: Mapping[str, str]
    commit: str
    """the last one that changed the code; with a plus, changed since"""
    date: str
    load: float
    """of the machine over the last minute, by all"""
    device: str = "cpu"

    @property
    def code(self) -> tuple[object, ...]:
        """What has to be the same for a row to be still true."""
        return self.cpu, self.threads, self.versions["torch"], self.commit, self.device


@dataclass(frozen=True)
class Row:
    """One number, and what it was made of."""

    item: str
    case: str
    what: str
    value: float
    unit: str
    seconds: Mapping[str, Spread] = field(default_factory=dict)
    """of each that took turns"""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    row: Row
    machine: Machine


def this_machine(device: str = "cpu") -> Machine:
    info = Path("/proc/cpuinfo")
    fields = dict(line.split("\t:", 1) for line in info.read_text(encoding="utf-8").splitlines() if "\t:" in line) if info.exists() else {}
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    return Machine(
        cpu=fields.get("model name", platform.processor() or platform.machine()),
        flags=tuple(flag for flag in FLAGS if flag in fields.get("flags", "").split()),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions={name: version(name) for name in VERSIONS},
        commit=commit(),
        date=date.today().isoformat(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0,
        device=device,
    )


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8").stdout.strip()

    code = ["src", "benchmarks/*.py"]
    return git("log", "-1", "--format=%h", "--", *code) + "+" * bool(git("status", "--porcelain", "--", *code))


def read(path: Path) -> list[Found]:
    return [_found(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write(path: Path, found: Sequence[Found]) -> None:
    """All of them; whoever is ended meanwhile leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [asdict(each.row) | {"seconds": {name: spread._asdict() for name, spread in each.row.seconds.items()}} for each in found]
    with replacing(path) as (temporary, _):
        text = "".join(json.dumps(line | {"machine": asdict(each.machine)}) + "\n" for line, each in zip(lines, found, strict=True))
        temporary.write_text(text, encoding="utf-8")


def _found(line: dict[str, Any]) -> Found:
    machine = line.pop("machine")
    seconds = {name: Spread(**spread) for name, spread in line.pop("seconds").items()}
    return Found(Row(**line, seconds=seconds), Machine(**machine | {"flags": tuple(machine["flags"])}))
