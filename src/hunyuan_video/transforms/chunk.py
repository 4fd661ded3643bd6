"""Encode and decode a few frames at a time, exactly: the memory of a whole clip's activations, and little beside.

An activation is a *list of chunks*, cut along its frames. A causal convolution hands its last two frames on from chunk to chunk; a
GroupNorm, whose statistics span all frames, first walks over the list to gather them. So a ResBlock never holds a normalised or padded
copy of a whole clip, only of one chunk, and the result is that of one piece but for rounding (short clips are one chunk).

Letters: B batch, C channels, T frames, H W height and width, G norm groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video.kernels.convolution import conv3d
from hunyuan_video.models.vae import Block, CausalAttention, CausalConv3d, CausalVAE, Decoder, Downsample, Encoder, ResBlock, run

Chunks = list[Tensor]

# Values one chunk may have. Small on a CPU: malloc reuses such buffers, while larger ones are mapped, and zeroed, page by page, which
# costs as much as several passes over them. An accelerator wants larger pieces of work.
CHUNK_SIZE = {"cpu": 2**22}
DEFAULT_CHUNK_SIZE = 2**25
ROWS = 2**14  # pixels whose moments are one float32 sum on a CPU: of more, its last digits would be lost


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
    return torch.cat(list(convolve(model.conv_out, normalize(model.conv_norm_out, chunks), activate)), dim=2)


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
    """Replaces the chunks of `x` one after another, so that at the network's widest place input and output never both exist. Where the
    block makes them narrower, it does so as soon as the first convolution has seen them."""
    h: Chunks = []
    for i, piece in enumerate(convolve(block.conv1, normalize(block.norm1, x), activate)):
        h.append(piece)
        if block.conv_shortcut is not None:
            conv = block.conv_shortcut.conv
            x[i] = conv3d(x[i], conv.weight, conv.bias)
    for i, residual in enumerate(convolve(block.conv2, normalize(block.norm2, h), activate)):
        x[i] = residual.add_(x[i])
    return x


def enlarge(layer: Enlarging, chunks: Chunks) -> Chunks:
    """Lets go of each chunk when it has been enlarged."""
    out: Chunks = []
    window: Tensor | None = None
    while chunks:
        for piece in cut(chunks.pop(0), layer.time * layer.space**2):
            past = [] if window is None else [window[:, :, -layer.lookback :]]
            window = torch.cat([*past, piece], dim=2)
            out.append(layer(window, window.shape[2] - piece.shape[2]))
    return out


# Writes what goes into a convolution to its place between the edges that are repeated there.
Put = Callable[[Tensor, Tensor], object]


def copy(chunk: Tensor, place: Tensor) -> None:
    place.copy_(chunk)


def activate(chunk: Tensor, place: Tensor) -> None:
    """SiLU on the way: a pass over the activation less than in two steps."""
    torch.ops.aten.silu.out(chunk, out=place)


def convolve(layer: CausalConv3d, chunks: Iterable[Tensor], put: Put = copy) -> Iterator[Tensor]:
    """Each chunk with its edges, and the last frames of the one before, through the layer."""
    conv = layer.conv
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    side = kernel // 2
    carry: Tensor | None = None
    for chunk in chunks:
        batch, channels, frames, height, width = chunk.shape
        before = kernel - 1 if carry is None else carry.shape[2]
        window = torch.empty(
            (batch, channels, before + frames, height + 2 * side, width + 2 * side),
            dtype=chunk.dtype,
            device=chunk.device,
            memory_format=torch.channels_last_3d,
        )
        put(chunk, window[:, :, before:, side : side + height, side : side + width])
        repeat_edges(window[:, :, before:], side)
        window[:, :, :before] = window[:, :, before : before + 1] if carry is None else carry
        # With stride 2 a chunk may end between two outputs; what the next output still needs is carried on.
        count = (window.shape[2] - kernel) // stride + 1
        carry = window[:, :, count * stride :]
        if count > 0:
            yield conv3d(window, conv.weight, conv.bias, conv.stride)


def repeat_edges(window: Float[Tensor, "B C T H W"], side: int) -> None:
    """Fill `side` rows and columns on each side with the picture's outermost ones."""
    if side > 0:
        height, width = window.shape[3:]
        window[:, :, :, :side] = window[:, :, :, side : side + 1]
        window[:, :, :, height - side :] = window[:, :, :, height - side - 1 : height - side]
        window[..., :side] = window[..., side : side + 1]
        window[..., width - side :] = window[..., width - side - 1 : width - side]


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
    each part's own mean are merged (Chan, Golub and LeVeque 1983); a mean of squares less the squared mean is off by a percent where the
    mean is 200 deviations."""
    flat = [chunk.flatten(2, 3) for chunk in chunks]
    # Elsewhere sums are trees, whose last digits stay.
    parts = [part for x in flat for part in x.split(max(1, ROWS // x.shape[3]) if x.is_cpu else x.shape[2], dim=2)]
    sizes = torch.tensor([float(part[0, 0].numel()) for part in parts], device=chunks[0].device).view(-1, 1, 1, 1)
    pairs = [torch.stack([torch.stack(moments(sample)) for sample in part.split(1)], dim=1) for part in parts]
    means, variances = rearrange(torch.stack(pairs), "chunk pair B (G C) -> pair chunk C B G", G=norm.num_groups)
    shares = sizes / (sizes.sum() * means.shape[1])
    mean = (shares * means).sum((0, 1))
    variance = (shares * (variances + (means - mean).square())).sum((0, 1))
    mean, variance = torch.stack([mean, variance]).repeat_interleave(norm.num_channels // norm.num_groups, dim=2)
    return mean, variance


def moments(x: Float[Tensor, "1 C H W"]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Mean and variance of each channel, float32."""
    if x.is_cpu:  # the one kernel that reads bfloat16 and sums in float32: a quarter of the time of what follows
        zeros = torch.zeros(x.shape[1])
        return torch.batch_norm_update_stats(x, zeros, zeros, 0.0)
    values = x.to(torch.float32, copy=True)
    mean = values.mean((0, 2, 3), keepdim=True)
    return mean.flatten(), values.sub_(mean).square_().mean((0, 2, 3))
