"""The miniature's VAE with twice the channels in its lowest level: it computes what it did, and has room to learn what it could not hold.

The decoder's channels there become twins that are read unevenly, so that they learn apart. The encoder is constructed anew: a trunk that
computes the projection, as `miniature.pca` constructs it, but of which the new channels carry what else is in a block. Its ResBlocks and
attention are silent at first, see all that at one scale, and may add to the latents.

    python recipes/tiny/wider.py VAE PCA OUT

Letters: N blocks of 4x8x8 pixels; their corners are 2x4x4 (t h w h0 w0 C), eight of them (t1 h1 w1); D directions in a corner, L latents,
E what else.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn

from hunyuan_video.checkpoint.convert import official_vae_json
from hunyuan_video.miniature import drawing, nature, world
from hunyuan_video.miniature.pca import PIN, PcaBasis, blocks_of, gather_pixels, set_identity
from hunyuan_video.models.vae import CausalVAE, Downsample, Encoder, ResBlock
from hunyuan_video.training import train_vae

DIRECTIONS, LATENTS, ELSE, GROUPS = 32, 16, 48, 4
FAINT = 0.3  # of what else there is, beside the latents: it would shift the mean of a GroupNorm's group
LOG_VARIANCE = -9.0  # less noise than `miniature.pca` gives latents, which would cover what more they are to hold
CORNERS = dict.fromkeys(("t1", "t", "h1", "h", "h0", "w1", "w", "w0"), 2)

Clips = list[UInt8[Tensor, "1 T H W 3"]]


def wider(folder: Path, basis: PcaBasis, clips: Clips, out: Path) -> None:
    """Raises a ValueError for a VAE that is not of the miniature's widths."""
    torch.manual_seed(0)
    narrow = train_vae.load(folder)
    if (widths := narrow.config.block_out_channels) != (16, 32, 64, 64):
        raise ValueError(f"{folder} has widths {widths}; only the miniature's, (16, 32, 64, 64), can be doubled here.")
    vae = CausalVAE(replace(narrow.config, block_out_channels=(16, 32, 64, 128)))
    with torch.no_grad():
        vae.decoder.load_state_dict(twice(narrow.decoder.state_dict(), vae.decoder.state_dict()))
        set_identity(vae.quant_conv)
        set_identity(vae.post_quant_conv)
        construct(vae.encoder, Projection.fitted(basis, clips))
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in vae.state_dict().items()}, out / "pytorch_model.safetensors")
    (out / "config.json").write_text(json.dumps(official_vae_json(vae.config), indent=2) + "\n", encoding="utf-8")


# --- The decoder -------------------------------------------------------------------------------------------------------------------------


def twice(known: dict[str, Tensor], fresh: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a decoder for shapes in which some channels are twice as many: c becomes 2c and 2c + 1, and stays in its group."""
    grown = {}
    for name, like in fresh.items():
        if name not in known:  # a ResBlock that had no shortcut, as its width did not change
            width = like.shape[0]
            known = known | {name: torch.eye(width)[:, :, None, None, None] if name.endswith("weight") else torch.zeros(width)}
        grown[name] = doubled(known[name], like.shape)
        if ".to_q." in name:  # there are twice as many products, and they are scaled by the root of twice the width
            grown[name] = grown[name] / 2**0.5
    return grown


def doubled(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Each output twice, and each input shared out between two, unevenly."""
    if tensor.shape[0] != shape[0]:
        tensor = tensor.repeat_interleave(2, dim=0)
    if tensor.dim() > 1 and tensor.shape[1] != shape[1]:
        share = 0.5 + 0.25 * torch.randn(tensor.shape[0], tensor.shape[1], *[1] * (tensor.dim() - 2))
        tensor = tensor.repeat_interleave(2, dim=1) * torch.stack([share, 1 - share], dim=2).flatten(1, 2)
    return tensor


# --- The encoder -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Projection:
    """Corners are (corner @ directions - mean) / deviation; latents, and what else is in a block, are sums of its eight corners' values."""

    directions: Float[Tensor, "corner D"]
    mean: Float[Tensor, " D"]
    deviation: Float[Tensor, " D"]
    weight: Float[Tensor, "8D L+E"]
    bias: Float[Tensor, " L+E"]

    @classmethod
    def fitted(cls, basis: PcaBasis, clips: Clips) -> Projection:
        """Directions are those of the basis, deviations and what else there is those of the clips."""
        blocks = torch.cat([blocks_of(clip).flatten(0, -2)[::2] for clip in clips]).double()
        corners = rearrange(blocks, "N (t1 t h1 h h0 w1 w w0 C) -> (N t1 h1 w1) (t h w h0 w0 C)", **CORNERS)
        filters = (basis.components * basis.gains).double()
        of_corners = rearrange(filters, "(t1 t h1 h h0 w1 w w0 C) L -> (t h w h0 w0 C) (t1 h1 w1 L)", **CORNERS)
        directions = torch.linalg.svd(of_corners, full_matrices=False).U[:, :DIRECTIONS]
        values = corners @ directions
        mean, deviation = values.mean(0), values.std(0)
        found = rearrange((values - mean) / deviation, "(N t1 h1 w1) D -> N (t1 h1 w1 D)", t1=2, h1=2, w1=2)

        weight = rearrange(directions.T @ of_corners, "D (t1 h1 w1 L) -> (t1 h1 w1) D L", t1=2, h1=2, w1=2)
        bias = torch.einsum("kDL,D->L", weight, mean) - (basis.mean.double() @ basis.components.double()) * basis.gains.double()
        weight = (weight * deviation[:, None]).flatten(0, 1)

        # The principal components, in pixels, of what the latents leave; of variance 1.
        in_pixels = deviation.repeat(8)
        latents = torch.cat([found @ weight + bias, torch.ones(len(found), 1, dtype=torch.float64)], dim=1)
        explained = torch.linalg.lstsq(latents, found * in_pixels).solution
        left = found * in_pixels - latents @ explained
        variances, components = torch.linalg.eigh(left.T @ left / len(left))
        components = components[:, -ELSE:].flip(1) / variances[-ELSE:].flip(0).sqrt()
        weight_else = (torch.diag(in_pixels) - weight @ explained[:-1]) @ components
        bias_else = -(bias @ explained[:-1] + explained[-1]) @ components
        return cls(
            directions.float(),
            mean.float(),
            deviation.float(),
            torch.cat([weight, weight_else], dim=1).float(),
            torch.cat([bias, bias_else]).float(),
        )


def construct(encoder: Encoder, projection: Projection) -> None:
    """The trunk computes the projection, and all that is beside it is silent."""
    for name, parameter in encoder.named_parameters():
        if ".conv2." in name or ".to_out." in name:
            parameter.zero_()
    set_identity(encoder.conv_in.conv)
    for block in encoder.down_blocks[:3]:
        for resnet in block.resnets:
            if isinstance(resnet, ResBlock) and resnet.conv_shortcut is not None:
                set_identity(resnet.conv_shortcut.conv)
    halve, gather, project = (module.conv.conv for module in encoder.modules() if isinstance(module, Downsample))
    shortcut = encoder.down_blocks[3].resnets[0].conv_shortcut.conv
    for conv in (halve, gather, project, shortcut, encoder.conv_out.conv):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)

    # 2x2 pixels of 3 colours become 12 channels, 2x4x4 pixels the directions, and eight of these the latents and what else there is.
    gather_pixels(halve)
    scaled = projection.directions / projection.deviation
    gather.weight[:, :12, 1:, 1:, 1:] = rearrange(scaled, "(t h w C) D -> D C t h w", t=2, h=2, w=2)
    gather.bias[:] = -projection.mean / projection.deviation
    project.weight[:, :DIRECTIONS, 1:, 1:, 1:] = rearrange(projection.weight, "(t h w D) L -> L D t h w", t=2, h=2, w=2)
    project.bias[:] = projection.bias
    nn.init.normal_(project.weight[LATENTS:, DIRECTIONS:], std=0.02)  # what the ResBlock before it may add

    # Each GroupNorm group of 32: 4 latents, their negatives (as silu(a) - silu(-a) = a), 12 others, 4 silent, and 8 constants that pin the
    # variance, so that the last norm is undone. Constants are read by nobody, and all else is lifted to where they were.
    lift = (8 * PIN**2 / 32) ** 0.5
    before = [encoder.mid_block.resnets[0].norm1, encoder.mid_block.attentions[0].group_norm, encoder.mid_block.resnets[1].norm1]
    for norm in (*before, encoder.conv_norm_out):
        nn.init.zeros_(norm.weight)
    for group in range(GROUPS):
        first, latents, others = 32 * group, slice(4 * group, 4 * group + 4), slice(LATENTS + 12 * group, LATENTS + 12 * group + 12)
        for sign, start in ((1.0, first), (-1.0, first + 4)):
            shortcut.weight[start : start + 4, latents, 0, 0, 0] = sign * torch.eye(4)
            encoder.conv_out.conv.weight[latents, start : start + 4, 2, 1, 1] = sign * torch.eye(4)
        shortcut.weight[first + 8 : first + 20, others, 0, 0, 0] = FAINT * torch.eye(12)
        shortcut.bias[first + 24 : first + 32] = PIN * torch.tensor([1.0, -1.0]).repeat(4)
        encoder.conv_norm_out.weight[first : first + 8] = lift
        for norm in before:
            norm.weight[first : first + 4] = lift
            norm.weight[first + 8 : first + 24] = lift / FAINT
    encoder.conv_out.conv.bias[LATENTS:] = LOG_VARIANCE


def clips_of_both_worlds(of_nature: int = 300, drawn: int = 200) -> Clips:
    rendered = [nature.render(7_000_000 + seed, 64, 17) for seed in range(of_nature)]
    rendered += [drawing.render(world.sample_scene(seed, "train"), 64, 64, 17) for seed in range(drawn)]
    return [torch.from_numpy(clip)[None] for clip in rendered]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae", type=Path, help="folder with config.json and weights")
    parser.add_argument("pca", type=Path, help="pca.safetensors, the projection that its encoder is")
    parser.add_argument("out", type=Path, help="folder to write")
    given = parser.parse_args()
    wider(given.vae, PcaBasis.load(given.pca), clips_of_both_worlds(), given.out)
