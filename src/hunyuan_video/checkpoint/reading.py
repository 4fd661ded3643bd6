"""What is in a file, told by its first bytes and never by its name, and read without running anything.

Files come from strangers: all lengths are checked against the file before they are believed, pickles are read only by PyTorch's
weights-only unpickler, and what is wrong becomes one sentence.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from hunyuan_video.checkpoint import gguf_file, mapped
from hunyuan_video.checkpoint.kinds import OtherKindError, check_quantization
from hunyuan_video.checkpoint.lazy import Lazy
from hunyuan_video.transforms import fp8
from hunyuan_video.weights import read_json

Container = Literal["safetensors", "pickle", "gguf"]

MAX_HEADER = 2**24  # bytes of names and shapes; the largest real file has 0.2 MB of them
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".gguf")
# How the weights of a folder are called, the better formats first; any of them may be in pieces, with an index beside them.
_WHOLE = (
    "model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.safetensors",
    "pytorch_model.pt", "pytorch_model.bin", "diffusion_pytorch_model.bin",
)  # fmt: skip
# What PyTorch and safetensors raise over damaged files, found by damaging thousands at random.
DAMAGE = (
    SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError, ValueError, TypeError, LookupError,
    AttributeError, AssertionError, ArithmeticError, NotImplementedError,
)  # fmt: skip
_SHARD = re.compile(r"-\d+-of-\d+\.")
# What others put before a module's name: torch.compile, FSDP and activation checkpointing anywhere, DataParallel at the start.
_WRAPPED = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def container_of(path: Path) -> Container:
    """The format of a weight file, from its first bytes.

    Raises:
        FileNotFoundError, ValueError: the file is missing; or no weight file, and what it is instead if that is known.
        OSError: it may not be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}.")
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"GGUF"):
        return "gguf"
    if start[6:9] == b"\0\0{":  # first the header's length, which may begin with any byte
        return "safetensors"
    if start.startswith(b"PK\3\4") and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is damaged or not a checkpoint (its end is missing: it was cut short); fetch it again.")
    if start.startswith((b"PK\3\4", b"\x80")):
        return "pickle"
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is only a pointer to the weights, which Git LFS has not fetched; run `git lfs pull` there.")
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise ValueError(f"{path} is a web page, not weights: the download got a login or error page; fetch it again.")
    raise ValueError(f"{path} is damaged or not a checkpoint (it is no safetensors, PyTorch or GGUF file); fetch it again.")


def read_state_dict(path: Path) -> dict:
    """The content of a weight file, mapped from the disk where the format allows; tensors of a GGUF file are `Lazy`.

    Raises:
        FileNotFoundError, ValueError: the file is missing; or is damaged, no checkpoint, of a kind that is not read (OtherKindError), or
            would need code to run.
        OSError, RuntimeError: the file may not be read; or memory ran out.
    """
    container = container_of(path)
    try:
        if container == "gguf":
            return gguf_file.read(path)
        if container == "safetensors":
            _check_header(path)
            return mapped.read_safetensors(path)
        if zipfile.is_zipfile(path):
            _check_archive(path)
            with _no_talk_of_sparse_tensors():
                content = mapped.read_archive(path)
        else:  # as PyTorch wrote before 1.6: one stream, which cannot be mapped
            with path.open("rb") as file, _no_talk_of_sparse_tensors():  # not by its name, which would tell PyTorch what it is
                content = torch.load(file, map_location="cpu", weights_only=True)
    except OtherKindError as error:
        raise OtherKindError(f"{path} {error}") from error
    except DAMAGE as error:
        if isinstance(error, RuntimeError) and "memory" in str(error).replace(str(path), ""):
            raise  # torch.OutOfMemoryError, or the allocator or mmap on CPU: the file is innocent
        if found := re.search(r"Unsupported (?:global: GLOBAL|operand|class) ([\w.]+)", str(error)):
            raise OtherKindError(
                f"{path} holds more than tensors ({found[1][:80]}), which would run code to be read; take a file of weights alone."
            ) from error
        raise ValueError(f"{path} is damaged or not a checkpoint of plain tensors ({reason(error)}); fetch it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; a checkpoint is a dictionary of tensors.")
    return content


@contextmanager
def _no_talk_of_sparse_tensors() -> Iterator[None]:
    """PyTorch 2.14 warns of what it finds in a file while it checks them; `plain_tensors` refuses them anyway."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Validating sparse tensor")
        yield


def _check_header(path: Path) -> None:
    """Of safetensors: parsing a header of a hundred megabytes, which the library allows, takes seconds."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER, path.stat().st_size - 8):
        raise ValueError(f"its header claims {length} bytes")


def _check_archive(path: Path) -> None:
    """Of a zipped pickle: PyTorch stores everything as it is, so whatever is packed, and might unpack to terabytes, is not its."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"{entry.filename} in it is compressed")
            if entry.filename.endswith(".pkl") and entry.file_size > MAX_HEADER:
                raise ValueError(f"{entry.filename} in it has {entry.file_size} bytes")


def plain_tensors(content: object, path: Path) -> dict:
    """`content`, every value of which must be a tensor with its own numbers, under the names that the bare model gives them.

    Raises:
        ValueError: one is not; names it. Or they are quantized in a way that is not read.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; a checkpoint is a dictionary of tensors.")
    for name, value in content.items():
        is_plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta and not value.is_quantized
        if not isinstance(name, str) or not (is_plain or isinstance(value, Lazy)):
            raise ValueError(f"{path} holds more than plain tensors ({str(name)[:80]!r} is a {type(value).__name__}).")
    check_quantization(content, path)
    return {re.sub(r"^(module\.)+", "", _WRAPPED.sub("", name)): value for name, value in content.items()}


def check_finite(name: str, tensor: Tensor, path: Path) -> None:
    """Refuse NaN and infinity. Reads the tensor once and makes no copy: of its least and its largest number, one is what any of them is.

    Raises:
        ValueError: it holds one; names it.
    """
    if tensor.is_meta or not tensor.is_floating_point() or tensor.numel() == 0:
        return
    if tensor.dtype == fp8.FP8:
        is_finite = not fp8.holds_nan(tensor)
    else:
        is_finite = bool(torch.stack((tensor.float() if tensor.itemsize == 1 else tensor).aminmax()).isfinite().all())
    if not is_finite:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(
            f"{path} holds NaN or infinity in {name} (as {kind}): it is damaged, or its training failed; fetch it again, or use another."
        )


def read_folder(folder: Path) -> dict:
    """All tensors of a folder of one model: in one file, or in shards with an index.

    Raises:
        FileNotFoundError: there are no weights, or shards are missing.
        ValueError: a file is damaged, or there are several and no index.
    """
    for name in _WHOLE:
        whole, plain = folder / name, folder / f"{name}.index.json"
        stem, ending = whole.stem, whole.suffix
        # Without the model itself, what Hugging Face calls a variant of it: model.fp16.safetensors, or in shards.
        indices = [plain] if plain.is_file() else [] if whole.is_file() else sorted(folder.glob(f"{name}.index.*.json"))
        if len(indices) == 1:
            index = indices[0]
            variant = index.name.removeprefix(f"{name}.index").removesuffix("json")  # "." or ".fp16."
            whole = folder / f"{stem}{variant}{ending[1:]}"
            shards = _shards(index)
            absent = [shard for shard in shards if not (folder / shard).is_file()]
            if not absent:
                return {key: tensor for shard in shards for key, tensor in read_state_dict(folder / shard).items()}
            if not whole.is_file():  # else the index is left from another download
                raise FileNotFoundError(f"{folder} is incomplete: {', '.join(absent)} of its {len(shards)} weight files are missing.")
        if whole.is_file():
            return read_state_dict(whole)
        variants = [file for file in folder.glob(f"{stem}.*{ending}") if not _SHARD.search(file.name)]
        if len(variants) == 1 and not indices:
            return read_state_dict(variants[0])
    files = [file for file in sorted(folder.iterdir()) if file.suffix in WEIGHT_SUFFIXES and file.is_file()]
    if len(files) > 1:
        raise ValueError(
            f"{folder} has several weight files ({', '.join(file.name for file in files[:4])}) and no index; name one of them."
        )
    if files:
        return read_state_dict(files[0])
    raise FileNotFoundError(
        f"{folder} has no weights (such as {_WHOLE[0]} or pytorch_model.bin, whole or with an index): "
        "docs/weights.md says where to fetch them."
    )


def _shards(index: Path) -> list[str]:
    """The files that an index names, beside it."""
    weight_map = read_json(index).get("weight_map")
    # A shard is a file beside its index: any other path would read what its author chose.
    if not isinstance(weight_map, dict) or not all(isinstance(s, str) and Path(s).name == s for s in weight_map.values()):
        raise ValueError(f"{index} is damaged (it has no weight_map from tensors to files); fetch it again.")
    return sorted(set(weight_map.values()))


def reason(error: Exception) -> str:
    """What a library said, in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).partition(". ")[0][:200].rstrip(": ")
