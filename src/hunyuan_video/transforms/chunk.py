"""Encode and decode a few frames at a time, exactly: the memory of a whole clip's activations, and little beside.

An activation is a *list of chunks*, cut along its frames. A causal convolution hands its last two frames on from chunk to chunk; a
GroupNorm, whose statistics span all frames, first walks over the list to gather them. So a ResBlock never holds a normalised or padded
copy of a whole clip, only of one chunk, and the result is that of one piece but for rounding (short clips are one chunk).

Letters: B batch, C channels, T frames, H W height and width, G norm groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video.models.vae import Block, CausalAttention, CausalConv3d, CausalVAE, Decoder, Downsample, Encoder, ResBlock, run

Chunks = list[Tensor]

# Values one chunk may have. Small on a CPU: malloc reuses such buffers, while larger ones are mapped, and zeroed, page by page, which
# costs as much as several passes over them. An accelerator wants larger pieces of work.
CHUNK_SIZE = {"cpu": 2**22}
DEFAULT_CHUNK_SIZE = 2**25


@runtime_checkable
class Enlarging(Protocol):
    """What an `Upsample` offers, and whatever stands in its place."""

    time: int  # how many frames it makes of one
    space: int  # how many pixels a side it makes of one
    lookback: int  # frames before its own that a frame is made from

    def __call__(self, x: Tensor, past: int) -> Tensor:
        """Enlarge a piece. Its first `past` frames (at most `lookback`) belong to the piece before: nothing is made of them again."""
        ...


def in_chunks(vae: CausalVAE) -> None:
    """Let a finished VAE, in the dtype that it will compute in, work in chunks, with its activations and weights in the fastest layout.

    While gradients are recorded it works in one piece: every activation is kept for the backward pass anyway.
    """
    vae.encoder.run = vae.decoder.run = run_in_chunks
    # In half precision weights in the order of the activations save reordering them at every call (5 % of a decoding on a CPU); in
    # float32 the usual order is 7 % faster.
    half = vae.quant_conv.weight.dtype != torch.float32
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d if half else torch.contiguous_format)  # pyright: ignore[reportCallIssue]


def run_in_chunks(model: Encoder | Decoder, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T2 H2 W2"]:
    """As `run`."""
    x = x.contiguous(memory_format=torch.channels_last_3d)  # the fastest layout; in half precision every layer keeps it
    if torch.is_grad_enabled():
        return run(model, x)
    chunks = list(convolve(model.conv_in, cut(x)))
    for block in model.blocks():
        assert isinstance(block, Block)
        for layer in block.layers():
            chunks = apply(layer, chunks)
    return torch.cat(list(convolve(model.conv_out, activate(model.conv_norm_out, chunks))), dim=2)


def cut(x: Float[Tensor, "B C T H W"], growth: int = 1) -> Chunks:
    """Cut an activation along its frames, so that a chunk has few enough values (and at least one frame) after it has grown."""
    frames = CHUNK_SIZE.get(x.device.type, DEFAULT_CHUNK_SIZE) // (growth * x[:, :, 0].numel())
    return list(x.split(max(1, frames), dim=2))


def apply(layer: nn.Module, chunks: Chunks) -> Chunks:
    match layer:
        case ResBlock():
            return add_residual(layer, chunks)
        case CausalAttention():
            return cut(layer(torch.cat(chunks, dim=2)))
        case Downsample():
            return cut(torch.cat(list(convolve(layer.conv, chunks)), dim=2))  # the chunks have become small: cut anew
        case Enlarging():
            return enlarge(layer, chunks)
    raise TypeError(f"{type(layer).__name__} is no layer of a VAE that can work in chunks.")


def add_residual(block: ResBlock, x: Chunks) -> Chunks:
    """Replaces the chunks of `x` one after another, so that at the network's widest place input and output never both exist."""
    h = list(convolve(block.conv1, activate(block.norm1, x)))
    for i, residual in enumerate(convolve(block.conv2, activate(block.norm2, h))):
        x[i] = residual.add_(x[i] if block.conv_shortcut is None else block.conv_shortcut(x[i]))
    return x


def enlarge(layer: Enlarging, chunks: Chunks) -> Chunks:
    out: Chunks = []
    window: Tensor | None = None
    for piece in (piece for chunk in chunks for piece in cut(chunk, layer.time * layer.space**2)):
        past = [] if window is None else [window[:, :, -layer.lookback :]]
        window = torch.cat([*past, piece], dim=2)
        out.append(layer(window, window.shape[2] - piece.shape[2]))
    return out


def convolve(layer: CausalConv3d, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
    side = kernel // 2
    carry: Tensor | None = None
    for chunk in chunks:
        before = kernel - 1 if carry is None else carry.shape[2]
        window = F.pad(chunk, (side, side, side, side, before, 0), mode="replicate")
        if carry is not None:
            window[:, :, :before] = carry
        # With stride 2 a chunk may end between two outputs; what the next output still needs is carried on.
        count = (window.shape[2] - kernel) // stride + 1
        carry = window[:, :, count * stride :]
        if count > 0:
            yield layer.conv(window)


def activate(norm: nn.GroupNorm, chunks: Chunks) -> Iterator[Tensor]:
    """GroupNorm over all chunks together, then SiLU, in place."""
    for chunk in normalize(norm, chunks):
        yield F.silu(chunk, inplace=True)


def normalize(norm: nn.GroupNorm, chunks: Chunks) -> Iterator[Tensor]:
    """A first pass gathers the statistics, a second one applies them. A single chunk is for torch's own kernel."""
    if len(chunks) == 1:
        yield norm(chunks[0])
        return
    weight, bias = norm.weight.float(), norm.bias.float()
    means, variances = statistics(norm, chunks)
    for chunk in chunks:
        # With given statistics this is batch_norm, the one kernel that keeps them float32 beside bfloat16 values.
        samples = zip(chunk.split(1), means, variances, strict=True)
        samples = [F.batch_norm(x, mean, variance, weight, bias, eps=norm.eps) for x, mean, variance in samples]
        yield samples[0] if len(samples) == 1 else torch.cat(samples)


def statistics(norm: nn.GroupNorm, chunks: Chunks) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B C"]]:
    """Mean and variance of each channel's group, float32: a bfloat16 sum over a million pixels is off by percents. Squared deviations from
    each chunk's own mean are merged (Chan, Golub and LeVeque 1983); a mean of squares less the squared mean is off by a percent where the
    mean is 200 deviations."""
    sizes = torch.tensor([float(chunk[0, 0].numel()) for chunk in chunks], device=chunks[0].device).view(-1, 1, 1, 1)
    pairs = []
    for chunk in chunks:
        values = chunk.to(torch.float32, copy=True)
        mean = values.mean((2, 3, 4), keepdim=True)
        pairs.append(torch.stack([mean.flatten(1), values.sub_(mean).square_().mean((2, 3, 4))]))
    means, variances = rearrange(torch.stack(pairs), "chunk pair B (G C) -> pair chunk C B G", G=norm.num_groups)
    shares = sizes / (sizes.sum() * means.shape[1])
    mean = (shares * means).sum((0, 1))
    variance = (shares * (variances + (means - mean).square())).sum((0, 1))
    mean, variance = torch.stack([mean, variance]).repeat_interleave(norm.num_channels // norm.num_groups, dim=2)
    return mean, variance
