"""What the parts share: where they run, and rows of measurements that are on the disk as soon as they are made.

A row is a line of JSON: the table it belongs to, what was measured, and the measurements; or `unavailable` or `failed`, and why.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import subprocess
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_table import read
from measure import timed

PACKAGES = ("triton", "diffusers", "transformers", "flash-attn", "flash-attn-4", "sageattention")
ASKED = "driver_version,clocks.sm,clocks.max.sm,power.draw,power.limit,temperature.gpu,memory.free,memory.total"


class UnavailableError(Exception):
    """This machine does not have what would be measured."""


class Part:
    """One part: its device, whether it only rehearses, and the file of its rows, which starts with a row about the machine."""

    def __init__(self, name: str) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--rehearse", action="store_true", help="tiny sizes on a CPU: the numbers mean nothing")
        self.rehearse = parser.parse_args().rehearse
        if self.rehearse:
            torch.set_num_threads(1)
        gc.freeze()  # what is imported is no garbage, and looking through it at every row would take longer than most measurements
        self.device = torch.device("cpu" if self.rehearse else "cuda:0")
        self.folder = Path(os.environ["OUT"])
        self.file = (self.folder / f"{name}.jsonl").open("a", encoding="utf-8")
        with self.case("machine") as row:
            row.update(self.machine())

    @contextmanager
    def case(self, table: str, **what: object) -> Iterator[dict[str, Any]]:
        """A row of a table: `what`, and what the block puts into the dictionary that it is given."""
        row: dict[str, Any] = {"table": table, **what}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield row
                if "ms" in row:
                    row["sm_mhz"] = self.sm_clock()
            except UnavailableError as error:
                row["unavailable"] = str(error)
            except Exception as error:  # whatever a case dies of is its result, and no reason to lose the cases behind it
                row["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
                row["where"] = traceback.format_exc(limit=-2)[-600:]
        if caught:
            row["warnings"] = sorted({str(warning.message)[:200] for warning in caught})[:5]
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def timed(self, call: Callable[[], object], seconds: float = 1.0) -> dict[str, float]:
        return timed(call, self.device, 0.0 if self.rehearse else seconds)

    def rows(self, part: str) -> list[dict[str, Any]]:
        """What another part has measured so far."""
        return read(self.folder).get(part, [])

    def sm_clock(self) -> float | None:
        """MHz just after a measurement, before the GPU has slowed down again; none where it is not told."""
        told = "" if self.rehearse else ask("clocks.sm").get("clocks.sm", "")
        return float(told) if told.isdecimal() else None

    def forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> dict[str, float]:
        """GB since then: of all tensors together, and what the allocator took from the GPU for them. Nothing on a CPU."""
        if self.device.type != "cuda":
            return {}
        allocated, reserved = torch.cuda.max_memory_allocated(self.device), torch.cuda.max_memory_reserved(self.device)
        return {"allocated_gb": allocated / 1e9, "reserved_gb": reserved / 1e9}

    def finish(self) -> None:
        """Wait for all that is queued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def machine(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "commit": os.environ.get("COMMIT") or "unknown",
            "rehearsal": self.rehearse,
            "system": f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs",
            "torch": torch.__version__,
            **{package: version for package in PACKAGES if (version := installed(package))},
        }
        if self.rehearse:
            return row
        free, total = torch.cuda.mem_get_info(self.device)
        return row | {
            "gpu": torch.cuda.get_device_name(self.device),
            "capability": ".".join(map(str, torch.cuda.get_device_capability(self.device))),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "free_gb": free / 1e9,
            "total_gb": total / 1e9,
            "nvidia_smi": ask(ASKED),
        }


def installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def ask(fields: str) -> dict[str, str]:
    """What nvidia-smi says of the first GPU; nothing where it cannot be asked, for no measurement should be lost with it."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields.split(","), answer.strip().split(", "), strict=False))


def kernels_of(call: Callable[[], object], device: torch.device, most: int = 8) -> list[dict[str, Any]]:
    """Where the time of a call goes: its slowest kernels with their milliseconds, how often they ran, and their share."""
    activity = torch.profiler.ProfilerActivity
    kind = activity.CUDA if device.type == "cuda" else activity.CPU
    with torch.profiler.profile(activities=[kind]) as profile:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    time = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: getattr(event, time), reverse=True)
    total = sum(getattr(event, time) for event in events) or 1
    return [
        {"kernel": event.key[:120], "ms": getattr(event, time) / 1000, "calls": event.count, "share": getattr(event, time) / total}
        for event in events[:most]
    ]
