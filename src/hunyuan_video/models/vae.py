"""The causal 3D VAE "884-16c": pixels [B, 3, F, H, W] in [-1, 1] <-> latents [B, 16, T, H/8, W/8], where F = 4 (T - 1) + 1.

Parameter names are the official checkpoint's, so its state dict loads as it is. Encoding and decoding are whole, every activation in one
tensor; tiles and chunks are transforms. Nothing here multiplies by `scaling_factor`: that belongs to whoever gives the latents to a
transformer.

Letters: B batch, C channels, F pixel frames, T latent or hidden frames, H W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from math import log2
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

NORM_EPS = 1e-6


@dataclass(frozen=True)
class VAEConfig:
    """The architecture; the defaults are the released 884-16c-hy checkpoint.

    `sample_size` (pixels) and `sample_tsize` (frames) are the tile the model was meant to see at once; only tiling reads them.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.476986
    shift_factor: float = 0.0
    sample_size: int = 256
    sample_tsize: int = 64
    time_compression_ratio: int = 4
    spatial_compression_ratio: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_out_channels", tuple(self.block_out_channels))
        widths, groups, halvings = self.block_out_channels, self.norm_num_groups, len(self.block_out_channels) - 1
        for name in ("latent_channels", "layers_per_block", "norm_num_groups", "scaling_factor", "sample_size", "sample_tsize"):
            require(getattr(self, name) > 0, f"{name}={getattr(self, name)} must be positive")
        multiples = all(width > 0 and width % groups == 0 for width in widths)
        require(bool(widths) and multiples, f"block_out_channels={widths} must be positive multiples of norm_num_groups={groups}")
        space, time = self.spatial_compression_ratio, self.time_compression_ratio
        require(space == 2**halvings, f"spatial_compression_ratio must be {2**halvings}, not {space}, with {len(widths)} blocks")
        require(time in [2**n for n in range(halvings + 1)], f"time_compression_ratio={time} must be a power of two, at most {space}")

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int, int]:
        """[B, C, T, H, W] of one video's latents, from its frames and pixels."""
        side = self.spatial_compression_ratio
        return 1, self.latent_channels, (num_frames - 1) // self.time_compression_ratio + 1, height // side, width // side

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> VAEConfig:
        """Read the values of a `vae/config.json`, official or Diffusers'. Unknown keys are ignored; what this file cannot be is refused."""
        for key, only in (("act_fn", "silu"), ("mid_block_add_attention", True), ("double_z", True), ("mid_block_causal_attn", True)):
            require(values.get(key, only) == only, f"{key}={values.get(key)!r} in the VAE's config is not supported; 884-16c has {only!r}")
        aliases = {"temporal_compression_ratio": "time_compression_ratio", "tile_sample_min_size": "sample_size"}
        known = {aliases.get(key, key): value for key, value in values.items() if value is not None}
        if "block_out_channels" in known:
            known["block_out_channels"] = tuple(known["block_out_channels"])
        config = cls(**{field.name: known[field.name] for field in fields(cls) if field.name in known})
        widths = config.block_out_channels
        for key in ("down_block_types", "up_block_types"):
            require(
                len(values.get(key, widths)) == len(widths), f"{key} names {len(values.get(key, ()))} blocks; block_out_channels={widths}"
            )
        return config

    def scale(self, level: int) -> tuple[int, int]:
        """By how much (time, space) shrink after encoder block `level`, and grow after decoder block `level`. Time is compressed last."""
        last = len(self.block_out_channels) - 1
        return (2 if last - log2(self.time_compression_ratio) <= level < last else 1), (2 if level < last else 1)


@dataclass(frozen=True)
class Posterior:
    """The encoder's answer: an independent normal distribution for every latent value."""

    mean: Float[Tensor, "B C T H W"]
    logvar: Float[Tensor, "B C T H W"]

    @classmethod
    def from_moments(cls, moments: Float[Tensor, "B C2 T H W"]) -> Posterior:
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    def mode(self) -> Float[Tensor, "B C T H W"]:
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "B C T H W"]:
        """Draw latents. A CPU generator gives the same noise on every device."""
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(self.mean.shape, generator=generator, device=device, dtype=self.mean.dtype)
        return self.mean + (self.logvar / 2).exp() * noise.to(self.mean.device)


class CausalConv3d(nn.Module):
    """Convolution that sees no later frame. Edges repeat: both sides in space, the first frame twice in time."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        time, space = stride
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size, stride=(time, space, space))

    def forward(self, x: Float[Tensor, "B C T H W"], past: int = 0) -> Float[Tensor, "B C2 T2 H2 W2"]:
        """The first `past` frames belong to an earlier piece of the video: they are seen, and nothing is made of them again."""
        kernel = self.conv.kernel_size[0]
        if kernel > 1:
            side = kernel // 2
            x = F.pad(x, (side, side, side, side, kernel - 1 - past, 0), mode="replicate")
        return self.conv(x)


class ResBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=NORM_EPS)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=NORM_EPS)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.conv_shortcut = CausalConv3d(in_channels, out_channels, kernel_size=1) if in_channels != out_channels else None

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T H W"]:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class CausalAttention(nn.Module):
    """One head over all positions; a position sees its own frame and the earlier ones."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        _, _, frames, height, width = x.shape
        tokens = rearrange(self.group_norm(x), "B C T H W -> B 1 (T H W) C")
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        # Frame by frame over the frames so far: half the work of a block-causal mask, and no mask with (T H W) squared values.
        ends = [frame * height * width for frame in range(frames + 1)]
        out = [F.scaled_dot_product_attention(q[:, :, a:b], k[:, :, :b], v[:, :, :b]) for a, b in pairwise(ends)]
        out = self.to_out[0](torch.cat(out, dim=2))
        return x + rearrange(out, "B 1 (T H W) C -> B C T H W", H=height, W=width)


class Downsample(nn.Module):
    def __init__(self, channels: int, scale: tuple[int, int]) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=scale)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T2 H2 W2"]:
        return self.conv(x)


class Upsample(nn.Module):
    """Nearest neighbour, then a convolution. The first frame stands for itself alone, so it is not doubled in time."""

    def __init__(self, channels: int, scale: tuple[int, int]) -> None:
        super().__init__()
        self.time, self.space = scale
        self.lookback = 2 // self.time  # frames before its own that a frame is made from
        self.conv = CausalConv3d(channels, channels)

    def forward(self, x: Float[Tensor, "B C T H W"], past: int = 0) -> Float[Tensor, "B C T2 H2 W2"]:
        """The first `past` frames (at most `lookback`) belong to an earlier piece, as those of a `CausalConv3d`."""
        x = x.repeat_interleave(self.time, dim=2)[:, :, 0 if past else self.time - 1 :]
        x = F.interpolate(x, scale_factor=(1.0, float(self.space), float(self.space)), mode="nearest")
        return self.conv(x, self.time * past)


class Block(nn.Module):
    """ResBlocks of one width, then what changes the size: `resample` is the official name of that layer's list, and the layer."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, **resample: nn.Module) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResBlock(in_channels if i == 0 else out_channels, out_channels, groups) for i in range(layers)])
        for name, layer in resample.items():
            self.add_module(name, nn.ModuleList([layer]))

    def layers(self) -> Iterator[nn.Module]:
        """In the order in which they act."""
        for layers in self.children():
            yield from layers.children()

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T2 H2 W2"]:
        for layer in self.layers():
            x = layer(x)
        return x


class MidBlock(Block):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, channels, 2, groups)
        self.attentions = nn.ModuleList([CausalAttention(channels, groups)])

    def layers(self) -> Iterator[nn.Module]:
        yield from (self.resnets[0], self.attentions[0], self.resnets[1])


class Encoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, layers, groups = config.block_out_channels, config.layers_per_block, config.norm_num_groups
        self.conv_in = CausalConv3d(config.in_channels, widths[0])
        samplers = [{"downsamplers": Downsample(width, config.scale(i))} for i, width in enumerate(widths[:-1])] + [{}]
        blocks = zip((widths[0], *widths), widths, samplers, strict=False)
        self.down_blocks = nn.ModuleList([Block(before, width, layers, groups, **sampler) for before, width, sampler in blocks])
        self.mid_block = MidBlock(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=NORM_EPS)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels)
        self.run: RunFn = run

    def blocks(self) -> Iterator[nn.Module]:
        yield from (*self.down_blocks, self.mid_block)

    def forward(self, x: Float[Tensor, "B C F H W"]) -> Float[Tensor, "B C2 T h w"]:
        return self.run(self, x)


class Decoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, layers, groups = config.block_out_channels[::-1], config.layers_per_block + 1, config.norm_num_groups
        self.conv_in = CausalConv3d(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups)
        samplers = [{"upsamplers": Upsample(width, config.scale(i))} for i, width in enumerate(widths[:-1])] + [{}]
        blocks = zip((widths[0], *widths), widths, samplers, strict=False)
        self.up_blocks = nn.ModuleList([Block(before, width, layers, groups, **sampler) for before, width, sampler in blocks])
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=NORM_EPS)
        self.conv_out = CausalConv3d(widths[-1], config.out_channels)
        self.run: RunFn = run

    def blocks(self) -> Iterator[nn.Module]:
        yield from (self.mid_block, *self.up_blocks)

    def forward(self, latents: Float[Tensor, "B C T h w"]) -> Float[Tensor, "B C2 F H W"]:
        return self.run(self, latents)


def run(model: Encoder | Decoder, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T2 H2 W2"]:
    """All layers of an encoder or decoder. Each holds this plain function as `run`, so that a transform may go through its layers in
    another way. It is not a bound method: a deep copy would run the original."""
    x = model.conv_in(x)
    for block in model.blocks():
        x = block(x)
    return model.conv_out(F.silu(model.conv_norm_out(x)))


RunFn = Callable[[Encoder | Decoder, Tensor], Tensor]


class CausalVAE(nn.Module):
    """The 884-16c causal 3D VAE (246 million parameters as released)."""

    def __init__(self, config: VAEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VAEConfig()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv3d(2 * config.latent_channels, 2 * config.latent_channels, kernel_size=1)
        self.post_quant_conv = nn.Conv3d(config.latent_channels, config.latent_channels, kernel_size=1)

    def encode(self, x: Float[Tensor, "B C F H W"]) -> Posterior:
        """Encode pixels in [-1, 1] whole. F must be 4n + 1, H and W multiples of 8."""
        check_pixels(self.config, x)
        return Posterior.from_moments(self.moments(x))

    def moments(self, x: Float[Tensor, "B C F H W"]) -> Float[Tensor, "B C2 T h w"]:
        """The posterior as one tensor, mean and unclamped logvar side by side, as tiles are blended."""
        return self.quant_conv(self.encoder(x))

    def decode(self, latents: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 F H2 W2"]:
        """Decode latents whole, to pixels of about [-1, 1], not clamped. A transformer's are to be divided by `scaling_factor` first."""
        channels = self.config.latent_channels
        require(latents.shape[1] == channels, f"the VAE decodes latents [B, {channels}, T, H, W]; got {list(latents.shape)}")
        return self.decoder(self.post_quant_conv(latents))


def check_pixels(config: VAEConfig, x: Tensor) -> None:
    """Raise a ValueError for pixels that cannot be encoded."""
    _, channels, frames, height, width = x.shape
    time, space = config.time_compression_ratio, config.spatial_compression_ratio
    require(channels == config.in_channels, f"the VAE encodes pixels [B, {config.in_channels}, F, H, W]; got {list(x.shape)}")
    extra = (frames - 1) % time
    require(extra == 0, f"the number of frames must be {time}n + 1; got {frames}: cut it to {frames - extra}")
    require(height % space == 0 == width % space, f"height and width must be multiples of {space}; got {height}x{width}: crop or resize")


def require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)
