"""What Triton's compiler makes of a launch for a GPU that need not be here: registers, spills and shared memory."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from hunyuan_video.kernels.triton import tiles

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
SHARED = {80: 163, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB that a program may have, by compute capability (CUDA's programming guide)


@dataclass(frozen=True)
class Compiled:
    name: str
    capability: int
    registers: int
    spilled: int  # bytes
    shared: int  # bytes
    ptx: str = field(repr=False)


class Driver:
    """As much of Triton's driver as compiling asks for."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # what is compiled is kept by device

    def get_current_stream(self, _device: int) -> int:
        return 0


@contextmanager
def compiling_for(capability: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[list[Compiled]]:
    """Inside, launches compile for this GPU and compute nothing; yields what came of them. Tensors may be on the meta device."""
    found: list[Compiled] = []
    run = JITFunction.run

    def compiled(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        assert kernel is not None
        found.append(resources(kernel, capability, folder))
        return kernel

    with monkeypatch.context() as patch:
        patch.setattr(driver, "_active", Driver(capability))
        patch.setattr(tiles, "capability", lambda _device: divmod(capability, 10))
        patch.setattr(JITFunction, "run", compiled)
        yield found


def resources(kernel: Any, capability: int, folder: Path) -> Compiled:
    path = folder / "kernel.cubin"
    path.write_bytes(kernel.asm["cubin"])
    said = subprocess.run([CUOBJDUMP, "-res-usage", path], capture_output=True, text=True, check=True, timeout=30).stdout
    used = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return Compiled(kernel.metadata.name, capability, used["REG"], used["STACK"] + used["LOCAL"], kernel.metadata.shared, kernel.asm["ptx"])
