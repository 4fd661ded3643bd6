"""A tensor that is read when it is needed: what makes every foreign layout look like the official one without holding it in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_BLOCKS = 256  # of a kind; the 13B model has 40


@dataclass(frozen=True)
class Lazy:
    """Shape and dtype of a tensor on disk, and how to get it. `read` does its work anew at every call. Pickled for another process, which
    has not opened the file, it is a tensor on the meta device. One that is stored in `pieces` is their rows below each other. Where all
    takes long, `read_row` reads one."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]
    pieces: tuple[Lazy, ...] = ()
    read_row: Callable[[int], Tensor] | None = None

    @classmethod
    def of(cls, tensor: Tensor) -> Lazy:
        """For a tensor that is mapped from a file anyway."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)

    def __reduce__(self) -> tuple:
        return _elsewhere, (self.shape, self.dtype, self.pieces)

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def row(self, index: int) -> Tensor:
        for piece in self.pieces:
            if index < piece.shape[0]:
                return piece.row(index)
            index -= piece.shape[0]
        return self.read()[index] if self.read_row is None else self.read_row(index)

    def to(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        return self.read().to(device, dtype)

    def cast(self, dtype: torch.dtype) -> Lazy:
        return Lazy(self.shape, dtype, lambda: self.read().to(dtype))

    def scaled(self, scale: Tensor, dtype: torch.dtype = torch.bfloat16) -> Lazy:
        """An 8-bit tensor times its scale, in a dtype that can hold it. The scale is rounded first, as where 8 bits are computed with."""
        return Lazy(self.shape, dtype, lambda: self.read().to(dtype) * scale.to(dtype))

    def rows(self, parts: tuple[range, ...]) -> Lazy:
        """Some of the rows, in that order."""
        shape = (sum(map(len, parts)), *self.shape[1:])
        return Lazy(shape, self.dtype, lambda: torch.cat([self.read()[part.start : part.stop] for part in parts]))


State = Mapping[str, Lazy]


def _elsewhere(shape: tuple[int, ...], dtype: torch.dtype, pieces: tuple[Lazy, ...]) -> Lazy:
    return Lazy(shape, dtype, lambda: torch.empty(shape, dtype=dtype, device="meta"), pieces)


def lazy(tensors: Mapping[str, Tensor | Lazy]) -> dict[str, Lazy]:
    return {name: tensor if isinstance(tensor, Lazy) else Lazy.of(tensor) for name, tensor in tensors.items()}


def stacked_rows(pieces: list[Lazy]) -> Lazy:
    """Pieces below each other, as the one tensor that they are of."""
    shape = (sum(piece.shape[0] for piece in pieces), *pieces[0].shape[1:])
    return Lazy(shape, pieces[0].dtype, lambda: torch.cat([piece.read() for piece in pieces]), tuple(pieces))


def count_numbered(names: Iterable[str], prefix: str) -> int:
    """How many different N there are in names that start with `prefix.N.`. Raises a ValueError beyond what any model has."""
    count = len({name.split(".")[prefix.count(".") + 1] for name in names if name.startswith(prefix + ".")})
    if count > MAX_BLOCKS:
        raise ValueError(f"it has {count} {prefix}")
    return count
