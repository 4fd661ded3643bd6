"""The tensors of a weight file where they lie: pages of the file, read when they are touched and given back when memory is short.

So a model opens in no time, takes no memory of its own, and may be larger than the machine's. What is written to a tensor stays with this
process and never reaches the file. PyTorch and safetensors map a file likewise, but have the system set all of it aside for writing, which
24 GB of memory refuse to a file of 26.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
import torch._utils
from safetensors import safe_open
from torch import Tensor, _weights_only_unpickler

from hunyuan_video.checkpoint.kinds import OtherKindError

MAP_NORESERVE = 0x4000  # of Linux; Python's mmap has the name from 3.13 on
_LOCAL_HEADER = 30  # bytes of a zip entry before its name; the last four are the lengths of name and extra field

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


class MappedFile:
    """The bytes of a file, for tensors that keep it open as long as they live."""

    def __init__(self, path: Path):
        how: dict[str, int] = {"access": mmap.ACCESS_COPY}
        if sys.platform == "linux":
            how = {"flags": mmap.MAP_PRIVATE | MAP_NORESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
        with path.open("rb") as file:
            try:
                self.pages = mmap.mmap(file.fileno(), 0, **how)
            except OSError as error:  # such as a limit on the address space
                raise OSError(error.errno, error.strerror, str(path)) from error

    def tensor(self, dtype: torch.dtype, count: int, start: int) -> Tensor:
        """`count` numbers from byte `start` on, flat. Raises a ValueError if they are not all in the file."""
        if not 0 <= start <= start + count * dtype.itemsize <= len(self.pages):
            raise ValueError(f"{count} numbers of {dtype} at byte {start} lie outside its {len(self.pages)} bytes")
        if count == 0:  # not PyTorch's empty tensor, which a pickle that claims more numbers than there are could make grow
            return torch.frombuffer(bytearray(8), dtype=dtype)[:0]
        return torch.frombuffer(self.pages, dtype=dtype, count=count, offset=start)  # at odd addresses, too, as PyTorch does itself


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises OtherKindError for unknown types, or what the library stumbles over in a damaged one."""
    file = MappedFile(path)
    with safe_open(path, framework="numpy"):
        pass  # the library checks that offsets, shapes and the file's length agree
    start = 8 + int.from_bytes(file.pages[:8], "little")
    header = json.loads(file.pages[8:start])
    header.pop("__metadata__", None)
    state = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise OtherKindError(
                f"has numbers of type {entry['dtype']} ({name[:80]}), which are not read here; take bfloat16, float16 or FP8."
            )
        shape = entry["shape"]
        state[name] = file.tensor(_DTYPES[entry["dtype"]], math.prod(shape), start + entry["data_offsets"][0]).view(shape)
    return state


def read_archive(path: Path) -> Any:
    """The content of what `torch.save` wrote, by PyTorch's weights-only unpickler. Raises whatever that stumbles over."""
    file = MappedFile(path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if "data.pkl" not in entries:
            raise OtherKindError("is an archive of other files, not of PyTorch; unpack it, and give what is in it.")
        content = archive.read(entries["data.pkl"])
        if "byteorder" in entries and archive.read(entries["byteorder"]) != sys.byteorder.encode():
            raise ValueError(f"its numbers are not {sys.byteorder}-endian")
    storages: dict[str, torch.TypedStorage] = {}

    def storage(identity: tuple) -> torch.TypedStorage:
        kind, of, key, _, count = identity
        if kind != "storage":
            raise pickle.UnpicklingError(f"it refers to a {kind!r}")
        if key not in storages:
            dtype = torch.uint8 if of is torch.UntypedStorage else of.dtype
            entry = entries[f"data/{key}"]
            name, extra = (int.from_bytes(file.pages[at : at + 2], "little") for at in (entry.header_offset + 26, entry.header_offset + 28))
            start = entry.header_offset + _LOCAL_HEADER + name + extra
            if count * dtype.itemsize > entry.file_size:
                raise ValueError(f"{count} numbers of {dtype} are said to be in {entry.file_size} bytes")
            # The typed kind, for so the unpickler wants it; to make one is said to be internal.
            storages[key] = torch.TypedStorage(wrap_storage=file.tensor(dtype, count, start).untyped_storage(), dtype=dtype, _internal=True)
        return storages[key]

    unpickler = _weights_only_unpickler.Unpickler(io.BytesIO(content), encoding="utf-8")
    unpickler.persistent_load = storage  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return unpickler.load()
    finally:
        torch._utils._validate_loaded_sparse_tensors()  # else PyTorch does at its next, unrelated reading
