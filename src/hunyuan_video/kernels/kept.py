"""What was measured on this machine, kept for the next process: a file for each question, in the user's cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

from hunyuan_video.files import replacing, user_cache

log = logging.getLogger(__name__)

Question = Mapping[str, str | int | list[str]]


def recall(question: Question) -> dict[str, float] | None:
    """The seconds by name that were measured, or None. What is damaged counts as never measured."""
    if (path := _path(question)) is None:
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        seconds = {str(name): float(taken) for name, taken in stored["seconds"].items()}
        return seconds if stored["question"] == question and all(taken >= 0 for taken in seconds.values()) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def keep(question: Question, seconds: Mapping[str, float]) -> None:
    """For later processes. Where nothing can be written, these measure again."""
    if (path := _path(question)) is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as (temporary, _):
            temporary.write_text(json.dumps({"question": question, "seconds": dict(seconds)}, indent=1), encoding="utf-8")
    except OSError as error:
        log.info("What was measured is not kept (%s).", error)


@cache
def machine(device: torch.device) -> str:
    """What a time holds for: the processor, not this very one, and its driver."""
    if device.type == "cuda":
        driver = Path("/proc/driver/nvidia/version")
        said = driver.read_text(encoding="ascii", errors="replace").splitlines()[0] if driver.exists() else ""
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, {said}"
    told = Path("/proc/cpuinfo")
    allowed = f"{torch.backends.cpu.get_cpu_capability()} {os.environ.get('ONEDNN_MAX_CPU_ISA', '')}"  # of all that it can
    if not told.exists():
        return f"{platform.machine()} {platform.processor()}, {allowed}"
    first = told.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    kinds = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "cache size", "CPU implementer", "CPU part", "Features")
    values = dict(line.replace("\t", "").split(":", 1) for line in first if ":" in line)
    return ", ".join([*(values[kind].strip() for kind in kinds if kind in values), allowed])


def _path(question: Question) -> Path | None:
    folder = user_cache()
    name = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]
    return None if folder is None else folder / "measured" / f"{name}.json"
