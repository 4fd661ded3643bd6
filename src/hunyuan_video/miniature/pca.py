"""Latents of the miniature without training: a linear projection of 4x8x8 pixel blocks, and a causal encoder constructed to equal it.

The rendered world is smooth enough for its principal components to be good latents at once, so the transformer and the VAE's decoder
can be trained side by side. The first frame, which stands alone, is repeated four times (what a causal convolution with replicate
padding sees), so one basis serves first frames and later groups alike; a static video has one code.

Letters: N clips, T frames, H W pixels, D = 4*8*8*3 values of a block, L latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hunyuan_video.models.vae import CausalVAE, Decoder, Downsample, Encoder, ResBlock, Upsample
from hunyuan_video.training.vae_clips import to_pixels

TIME, SPACE = 4, 8  # frames and pixels a side of one block
FIRST_FRAME_WEIGHT = 3.0  # first frames are one group in five but the most looked at
PIN = 32.0  # a constant beside which the other values of a GroupNorm group hardly change its variance
LOG_VARIANCE = -6.0


@dataclass(frozen=True)
class PcaBasis:
    """latent = (block - mean) @ components * gains, with blocks of pixels in [-1, 1]; latents have RMS 1."""

    mean: Float[Tensor, " D"]
    components: Float[Tensor, "D L"]
    gains: Float[Tensor, " L"]

    def save(self, path: str | Path) -> None:
        save_file({"mean": self.mean, "components": self.components.contiguous(), "gains": self.gains}, path)

    @classmethod
    def load(cls, path: str | Path) -> PcaBasis:
        return cls(**load_file(path))


def blocks_of(clips: UInt8[Tensor, "N T H W 3"]) -> Float[Tensor, "N T2 H2 W2 D"]:
    x = to_pixels(clips)
    first = x[:, :, :1].expand(-1, -1, TIME - 1, -1, -1)
    return rearrange(torch.cat([first, x], dim=2), "N C (T t) (H h) (W w) -> N T H W (t h w C)", t=TIME, h=SPACE, w=SPACE)


def fit(clips: UInt8[Tensor, "N T H W 3"], latent_channels: int = 16) -> PcaBasis:
    """The principal components of the clips' blocks. A latent's variance falls with the square root of its component's, so faint
    details are lifted towards what the transformer's loss can see, but not all the way to white noise."""
    count = torch.zeros((), dtype=torch.float64)
    total = torch.zeros(TIME * SPACE * SPACE * 3, dtype=torch.float64)
    square = torch.zeros(len(total), len(total), dtype=torch.float64)
    for batch in clips.split(16):
        blocks = blocks_of(batch)
        for group, weight in ((blocks[:, :1], FIRST_FRAME_WEIGHT), (blocks[:, 1:], 1.0)):
            rows = rearrange(group, "N T H W D -> (N T H W) D")
            count += weight * len(rows)
            total += weight * rows.sum(0).double()
            square += weight * (rows.T @ rows).double()
    mean = total / count
    variances, components = torch.linalg.eigh(square / count - torch.outer(mean, mean))
    variances, components = variances.flip(0)[:latent_channels], components.flip(1)[:, :latent_channels]
    # An eigenvector's sign is arbitrary; fixed here so that the same clips always give the same latents.
    components = components * torch.where(components.sum(0) < 0, -1.0, 1.0)
    deviation = variances.clamp(min=1e-12).sqrt()
    gains = (deviation * deviation.sum() / latent_channels).rsqrt()
    return PcaBasis(mean.float(), components.float().contiguous(), gains.float())


def encode(basis: PcaBasis, clips: UInt8[Tensor, "N T H W 3"]) -> Float[Tensor, "N L T2 H2 W2"]:
    """Latents of clips whose T is 4n + 1 and whose H and W are multiples of 8."""
    latents = (blocks_of(clips) - basis.mean) @ (basis.components * basis.gains)
    return rearrange(latents, "N T H W L -> N L T H W").contiguous()


def decode(basis: PcaBasis, latents: Float[Tensor, "N L T2 H2 W2"]) -> Float[Tensor, "N 3 T H W"]:
    """Pixels of about [-1, 1]: the best linear reconstruction, and the bound a trained decoder is measured against."""
    blocks = (rearrange(latents, "N L T H W -> N T H W L") / basis.gains) @ basis.components.T + basis.mean
    x = rearrange(blocks, "N T H W (t h w C) -> N C (T t) (H h) (W w)", t=TIME, h=SPACE, w=SPACE)
    return torch.cat([x[:, :, :TIME].mean(2, keepdim=True), x[:, :, TIME:]], dim=2)


@torch.no_grad()
def build_encoder(vae: CausalVAE, basis: PcaBasis) -> None:
    """Write weights into a VAE of widths (16, 32, 64, 64): its encoder becomes the projection, its decoder a start for training.

    All residual branches are zero, so of the encoder only the strided convolutions act; each gathers the 2x2 or 2x2x2 values its
    stride skips. GroupNorm and SiLU before the last convolution are undone: constants in every group pin the variance, and
    silu(a) - silu(-a) = a.
    """
    config = vae.config
    architecture = (config.block_out_channels, config.norm_num_groups, config.latent_channels, basis.gains.numel())
    if architecture != ((16, 32, 64, 64), 4, 16, 16):
        raise ValueError(
            "the encoder can be constructed for block_out_channels (16, 32, 64, 64), norm_num_groups 4, 16 latent channels "
            f"and 16 components; got {architecture}"
        )
    for name, parameter in vae.named_parameters():
        if ".conv2." in name or ".to_out." in name:
            parameter.zero_()
    set_identity(vae.quant_conv)
    set_identity(vae.post_quant_conv)
    _build_encoder(vae.encoder, basis)
    _start_decoder(vae.decoder)


def _build_encoder(encoder: Encoder, basis: PcaBasis) -> None:
    set_identity(encoder.conv_in.conv)
    for module in encoder.modules():
        if isinstance(module, ResBlock) and module.conv_shortcut is not None:
            set_identity(module.conv_shortcut.conv)
    halve, gather, project = (module.conv.conv for module in encoder.modules() if isinstance(module, Downsample))
    for conv in (halve, gather, project, encoder.conv_out.conv):
        conv.weight.zero_()
        _bias(conv).zero_()

    gather_pixels(halve)

    # The 2x4x4 corners of all filters share 32 directions almost exactly; gather measures those, project combines the 8 corners.
    corners = "(t1 t h1 h h0 w1 w w0 C) L -> (t h w h0 w0 C) (t1 h1 w1 L)"
    filters = rearrange(basis.components * basis.gains, corners, **dict.fromkeys(("t1", "t", "h1", "h", "h0", "w1", "w", "w0"), 2))
    directions = torch.linalg.svd(filters, full_matrices=False).U[:, :32]
    gather.weight[:, :12, 1:, 1:, 1:] = rearrange(directions, "(t h w C) D -> D C t h w", t=2, h=2, w=2)
    combine = rearrange(directions.T @ filters, "D (t h w L) -> L D t h w", t=2, h=2, w=2)
    offset = -(basis.mean @ basis.components) * basis.gains

    # Each of the 4 groups of 16 channels: 4 latents, their negatives, and 8 constants.
    for group in range(4):
        latents, start = slice(4 * group, 4 * group + 4), 16 * group
        for sign, channels in ((1.0, slice(start, start + 4)), (-1.0, slice(start + 4, start + 8))):
            project.weight[channels, :32, 1:, 1:, 1:] = sign * combine[latents]
            _bias(project)[channels] = sign * offset[latents]
            encoder.conv_out.conv.weight[latents, channels, 2, 1, 1] = sign * torch.eye(4)
        _bias(project)[start + 8 : start + 16] = PIN * torch.tensor([1.0, -1.0]).repeat(4)
    encoder.conv_norm_out.weight.fill_(((8 + 8 * PIN**2) / 16) ** 0.5)
    encoder.conv_norm_out.bias.zero_()
    _bias(encoder.conv_out.conv)[16:] = LOG_VARIANCE


def _start_decoder(decoder: Decoder) -> None:
    """Latents travel upwards as smooth pictures; noise gives the other channels something to become."""
    newest = torch.tensor([0.0, 0.0, 1.0])
    _add_identity(decoder.conv_in.conv, newest, torch.tensor([0.0, 1.0, 0.0]))
    for module in decoder.modules():
        if isinstance(module, ResBlock) and module.conv_shortcut is not None:
            _add_identity(module.conv_shortcut.conv, torch.ones(1), torch.ones(1))
        if isinstance(module, Upsample):
            _add_identity(module.conv.conv, newest, torch.tensor([0.25, 0.5, 0.25]))


def _add_identity(conv: nn.Conv3d, time: Float[Tensor, " t"], space: Float[Tensor, " s"]) -> None:
    """Make the random weights fainter and let the first channels pass, spread by a separable kernel."""
    conv.weight.mul_(0.3)
    for channel in range(min(conv.in_channels, conv.out_channels)):
        conv.weight[channel, channel] += torch.einsum("t,h,w->thw", time, space, space)


def gather_pixels(halve: nn.Conv3d) -> None:
    """2x2 pixels of 3 colours become 12 channels. With padding 1, taps 1 and 2 of a stride-2 window are the pixels 2i and 2i + 1."""
    halve.weight[:12, :3, 2, 1:, 1:] = rearrange(torch.eye(12), "(h w C) (h2 w2 C2) -> (h w C) C2 h2 w2", h=2, w=2, h2=2, w2=2)[:, :3]


def set_identity(conv: nn.Conv3d) -> None:
    """Pass the first channels on unchanged, from the newest frame and the centre; nothing else."""
    conv.weight.zero_()
    _bias(conv).zero_()
    middle = conv.kernel_size[1] // 2
    for channel in range(min(conv.in_channels, conv.out_channels)):
        conv.weight[channel, channel, -1, middle, middle] = 1


def _bias(conv: nn.Conv3d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
