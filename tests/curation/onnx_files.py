"""ONNX files as small as can be, written by hand: the format is a few nested protocol buffers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FLOAT = 1


def _number(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _field(place: int, value: bytes | int | str) -> bytes:
    if isinstance(value, int):
        return _number(place << 3) + _number(value)
    coded = value.encode() if isinstance(value, str) else value
    return _number(place << 3 | 2) + _number(len(coded)) + coded


def _tensor(name: str, values: np.ndarray) -> bytes:
    sizes = b"".join(_field(1, size) for size in values.shape)
    return sizes + _field(2, FLOAT) + _field(8, name) + _field(9, values.astype("<f4").tobytes())


def _value(name: str, sizes: tuple[int | str, ...]) -> bytes:
    shape = b"".join(_field(1, _field(1, size) if isinstance(size, int) else _field(2, size)) for size in sizes)
    return _field(1, name) + _field(2, _field(1, _field(1, FLOAT) + _field(2, shape)))


def _node(kind: str, given: tuple[str, ...], made: str) -> bytes:
    return b"".join(_field(1, name) for name in given) + _field(2, made) + _field(4, kind)


def _model(path: Path, nodes: list[bytes], tensors: list[bytes], given: bytes, made: bytes) -> Path:
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "graph")
    graph += b"".join(_field(5, tensor) for tensor in tensors) + _field(11, given) + _field(12, made)
    path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13)))
    return path


def mean_colour(path: Path, side: int = 8) -> Path:
    """An embedder: pictures [N, 3, S, S] to their mean colours [N, 3]."""
    nodes = [_node("GlobalAveragePool", ("pictures",), "means"), _node("Flatten", ("means",), "vectors")]
    return _model(path, nodes, [], _value("pictures", ("N", 3, side, side)), _value("vectors", ("N", 3)))


def linear(path: Path, weights: np.ndarray) -> Path:
    """A head: vectors [N, D] times weights [D, 1]."""
    given, made = _value("vectors", ("N", len(weights))), _value("scores", ("N", 1))
    return _model(path, [_node("MatMul", ("vectors", "weights"), "scores")], [_tensor("weights", weights)], given, made)
