"""GGUF: the transformer with quantized linears, as ComfyUI-GGUF has it: architecture "hyvid", official names.

GGUF knows four dimensions and the patch embedding has five, so its shape stands in the metadata. Reading expands every tensor to
bfloat16: GGUF saves disk and download, not memory.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from hunyuan_video.checkpoint.kinds import OtherKindError
from hunyuan_video.checkpoint.lazy import Lazy, State
from hunyuan_video.transforms.fp8 import in_blocks

ARCHITECTURE = "hyvid"
_SHAPE = "comfy.gguf.orig_shape."
_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # by type of metadata value
_STRING, _ARRAY = 8, 9
MAX_HEADER = 2**22  # bytes before the tensors; of real files 0.1 MB
MAX_ENTRIES = 2**13  # of metadata, of tensors, and of an array; of real files a tenth
MAX_DIMS = 5


def library() -> ModuleType:
    """The `gguf` package. Raises an ImportError that says how to get it."""
    try:
        import gguf
    except ImportError as error:
        raise ImportError("GGUF files need the package gguf: pip install 'hunyuan-video[gguf]', or '.[gguf]' in a clone.") from error
    return gguf


def read(path: Path) -> dict[str, Lazy]:
    """The tensors of a GGUF file. Raises ImportError, OtherKindError, or whatever the library stumbles over in a damaged one."""
    gguf = library()
    _check_lengths(path)
    reader = gguf.GGUFReader(path)
    architecture = reader.get_field("general.architecture")
    if architecture is None or architecture.contents() != ARCHITECTURE:
        of = "none" if architecture is None else repr(str(architecture.contents())[:40])
        raise OtherKindError(f"is a GGUF file of another model: its architecture is {of}, and HunyuanVideo's is {ARCHITECTURE!r}.")
    plain = {gguf.GGMLQuantizationType.F32: torch.float32, gguf.GGMLQuantizationType.F16: torch.float16}

    def lazy(tensor: Any) -> Lazy:
        dtype = plain.get(tensor.tensor_type, torch.bfloat16)
        recorded = reader.get_field(_SHAPE + tensor.name)
        shape = tuple(map(int, reversed(tensor.shape) if recorded is None else recorded.contents()))
        if math.prod(shape) != tensor.n_elements:
            raise ValueError(f"{tensor.name} has {tensor.n_elements} numbers, which do not make {list(shape)}")

        def expanded(data: Any) -> torch.Tensor:
            return torch.tensor(gguf.dequantize(data, tensor.tensor_type)).to(dtype)

        rows = tensor.data if recorded is None and len(shape) == 2 else None
        read_row = None if rows is None else lambda index: expanded(rows[index : index + 1])[0]
        return Lazy(shape, dtype, lambda: expanded(tensor.data).view(shape), read_row=read_row)

    return {tensor.name: lazy(tensor) for tensor in reader.tensors}


def write(state: State, path: Path) -> None:
    """Write a transformer with Q8_0 linears in its blocks, in streaming; what is not a matrix of them stays as precise as it was."""
    gguf = library()
    kinds = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    as_precise = {torch.bfloat16: kinds.BF16, torch.float16: kinds.F16}
    kind_of = {}
    for name, tensor in state.items():
        shape = tensor.shape
        if len(shape) > 4:
            writer.add_array(_SHAPE + name, list(shape))
            shape = (shape[0], math.prod(shape[1:]))
        if in_blocks(name) and len(shape) == 2 and shape[1] % gguf.GGML_QUANT_SIZES[kinds.Q8_0][0] == 0:
            kind_of[name] = kinds.Q8_0
        else:
            kind_of[name] = as_precise.get(tensor.dtype, kinds.F32) if len(shape) > 1 else kinds.F32
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind_of[name]]
        writer.add_tensor_info(name, shape, float, math.prod(shape) // block_size * block_bytes, kind_of[name])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in state.items():
            writer.write_tensor_data(gguf.quantize(tensor.read().float().numpy(), kind_of[name]))
    finally:
        writer.close()


def _check_lengths(path: Path) -> None:
    """Walk over the header once: the library believes every length in it, and counts to 2^64 if it is told to.

    Raises:
        ValueError: a length leads out of the file, or is beyond all reason.
    """
    with path.open("rb") as file:
        header = file.read(MAX_HEADER)
    position = 4  # after the magic

    def number(code: str) -> int:
        nonlocal position
        (value,) = struct.unpack_from(f"<{code}", header, position)
        position += struct.calcsize(code)
        return value

    def skip(length: int) -> None:
        nonlocal position
        position += length
        if position > len(header):
            raise ValueError("its header is cut short or too long")

    def below(limit: int, what: str, value: int) -> int:
        if value > limit:
            raise ValueError(f"its header claims {value} {what}")
        return value

    below(3, "as its version", number("I"))
    num_tensors = below(MAX_ENTRIES, "tensors", number("Q"))
    num_values = below(MAX_ENTRIES, "metadata values", number("Q"))
    for _ in range(num_values):
        skip(number("Q"))
        kind, length = number("I"), 1
        if kind == _ARRAY:
            kind, length = number("I"), below(MAX_ENTRIES, "values in an array", number("Q"))
        for _ in range(length):
            skip(number("Q") if kind == _STRING else _VALUE_BYTES[kind])
    for _ in range(num_tensors):
        skip(number("Q"))
        sizes = [number("Q") for _ in range(below(MAX_DIMS, "dimensions", number("I")))]
        below(8 * path.stat().st_size, "numbers in a tensor", math.prod(sizes))
        skip(4 + 8)
