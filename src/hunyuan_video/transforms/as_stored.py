"""Weights that stay as their file has them, and are converted when they are used: for models that would not fit into memory twice.

Mapped from the file, they take no memory of their own. Converting costs a pass over each weight at every use; numbers are the same as
if all had been converted while loading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hunyuan_video.kernels.pieces import Apply, Dense
from hunyuan_video.transforms.swap import LinearLike, Rows, some, stretches


class StoredLinear(nn.Linear):
    """A linear layer that computes in its input's dtype, whatever its weight's is."""

    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return F.linear(input, self.weight.to(input.dtype), self.bias)

    def prepared(self, dtype: torch.dtype, rows: Rows | None) -> Apply:
        return Dense(some(self.weight, rows).to(dtype), None if self.bias is None else some(self.bias, rows))


class StackedLinear(LinearLike):
    """The same of a weight whose rows are stored in several pieces, as q, k and v are by some."""

    def __init__(self, pieces: list[Tensor], bias: Tensor | None):
        super().__init__()
        self.rows = [len(piece) for piece in pieces]
        self.out_features, self.in_features = sum(self.rows), pieces[0].shape[1]
        self.pieces = nn.ParameterList(nn.Parameter(piece, requires_grad=False) for piece in pieces)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        return torch.cat(list(self.pieces))

    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        biases = [None] * len(self.rows) if self.bias is None else self.bias.split(self.rows)
        pairs = zip(self.pieces, biases, strict=True)
        return torch.cat([F.linear(input, piece.to(input.dtype), bias) for piece, bias in pairs], dim=-1)

    def prepared(self, dtype: torch.dtype, rows: Rows | None) -> Apply:
        if rows is None:
            return self
        if stretches(rows) == [slice(0, self.out_features)]:
            return self
        parts = [piece.to(dtype) for each in rows for piece in _stretch(self.pieces, each)]
        return Dense(parts[0] if len(parts) == 1 else torch.cat(parts), None if self.bias is None else some(self.bias, rows))


def _stretch(pieces: Iterable[Tensor], rows: slice) -> Iterator[Tensor]:
    """What the pieces of a weight have of some of its rows."""
    start = 0
    for piece in pieces:
        first, last = max(rows.start, start), min(rows.stop, start + len(piece))
        if first < last:
            yield piece[first - start : last - start]
        start += len(piece)


class StoredEmbedding(nn.Embedding):
    """A table of vectors, looked up as they are stored and given in `dtype`."""

    dtype: torch.dtype

    def forward(self, input: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        return super().forward(input).to(self.dtype)


def leave_as_stored(model: nn.Module, stored: Mapping[str, Sequence[Tensor]], dtype: torch.dtype) -> None:
    """Make a model on the meta device, which is to compute in `dtype`, ready for weights as they are stored: by the names of its tensors,
    the pieces of each on the meta device. Linears and embeddings, which are nearly all, stay so; the rest is to be converted."""
    for name, layer in list(model.named_modules()):
        if type(layer) not in (nn.Linear, nn.Embedding) or f"{name}.weight" not in stored:
            continue
        first, *others = pieces = stored[f"{name}.weight"]
        if others:
            assert isinstance(layer, nn.Linear)
            model.set_submodule(name, StackedLinear(list(pieces), layer.bias))
        elif first.dtype != dtype:
            model.set_submodule(name, _converting(layer, first, dtype))


def _converting(layer: nn.Module, weight: Tensor, dtype: torch.dtype) -> nn.Module:
    with torch.device("meta"):
        if isinstance(layer, nn.Linear):
            kept = StoredLinear(layer.in_features, layer.out_features, layer.bias is not None)
            kept.bias = layer.bias
        else:
            assert isinstance(layer, nn.Embedding)
            kept = StoredEmbedding(layer.num_embeddings, layer.embedding_dim)
            kept.dtype = dtype
    kept.weight = nn.Parameter(weight, requires_grad=False)
    return kept
