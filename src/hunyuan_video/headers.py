"""What the start of a transformer's file says, before anything is loaded: names and shapes of its tensors. Imports no torch.

Files come from strangers: no more than a list of names is read, pickles are only taken apart, and of what is not understood nothing is
told; loading says what is wrong.
"""

from __future__ import annotations

import json
import pickletools
import re
import struct
import zipfile
from pathlib import Path

# Names of tensors that tell a transformer of ours, its guidance, and one of HunyuanVideo 1.5, which shares the former; also in Diffusers.
_OURS, _GUIDANCE = (b"img_in.proj.", b"x_embedder.proj."), (b"guidance_in.", b"time_text_embed.guidance_embedder.")
_SUCCESSOR = (b"byt5_in.", b"cond_type_embed")
_FIRST = ("img_in.proj.weight", "x_embedder.proj.weight")
_IN_PICKLE, _IN_GGUF = 2**24, 2**20  # bytes of a list of names
_INTS = ("BININT", "BININT1", "BININT2", "LONG1")


def embeds_guidance(path: Path) -> bool | None:
    """Whether a checkpoint has the guidance embedding; None if that cannot be told."""
    names = _names(path)
    if names is None or not any(name in names for name in _OURS) or any(name in names for name in _SUCCESSOR):
        return None
    return any(name in names for name in _GUIDANCE)


def in_channels(path: Path) -> int | None:
    """On how many channels a checkpoint takes latents, from the shape of its first layer; None if that cannot be told."""
    names = _names(path)
    try:
        if names is None:
            return None
        if names[:2] == b"\x80\x02":
            return _in_pickle(names)
        found = _in_gguf(names) if names.startswith(b"GGUF") else _in_safetensors(names)
        return found if isinstance(found, int) else None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error):
        return None


def _names(path: Path) -> bytes | None:
    """Where a file lists its tensors."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
                return archive.read(index) if archive.getinfo(index).file_size <= _IN_PICKLE else None
        with path.open("rb") as file:
            return file.read(_IN_GGUF)
    except (OSError, ValueError, zipfile.BadZipFile):
        return None


def _in_pickle(names: bytes) -> int | None:
    """What follows a tensor's name are the numbers of its storage: how many it has, where it starts, and its shape."""
    numbers: list[int] | None = None
    for opcode, argument, _ in pickletools.genops(names):
        if isinstance(argument, str) and argument.endswith(_FIRST):
            numbers = []
        elif numbers is not None and opcode.name in _INTS:
            assert isinstance(argument, int)
            numbers.append(argument)
            if len(numbers) == 4:
                return numbers[3]
    return None


def _in_safetensors(names: bytes) -> int | None:
    length = int.from_bytes(names[:8], "little")
    header = json.loads(names[8 : 8 + length])
    return next((tensor["shape"][1] for name, tensor in header.items() if name.endswith(_FIRST)), None)


def _in_gguf(names: bytes) -> int | None:
    """The format has four dimensions and this tensor five: its shape stands among the metadata, as an array of whole numbers."""
    found = re.search(rb"orig_shape\.(?:model\.diffusion_model\.)?img_in\.proj\.weight", names)
    if found is None:
        return None
    array, kind, count = struct.unpack_from("<IIQ", names, found.end())
    if array != 9 or count != 5:
        return None
    return struct.unpack_from({4: "<5I", 5: "<5i", 10: "<5Q", 11: "<5q"}[kind], names, found.end() + 16)[1]
