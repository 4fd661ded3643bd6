"""The miniature's VAE, computing what it did, with an encoder that can learn.

`pca.build_encoder` writes a projection: constants pin the variance of the last GroupNorm, and most other channels are zero. Trained as that
is, the constants multiply every step of the convolution after them, and latents are thrown about.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from hunyuan_video.checkpoint import load_vae
from hunyuan_video.models.vae import Downsample, Encoder, ResBlock


@torch.no_grad()
def awake(folder: Path, out: Path, seed: int = 0) -> None:
    vae = load_vae(folder, torch.float32, torch.device("cpu"))
    encoder = vae.encoder
    constants = ~encoder.conv_out.conv.weight.any(dim=(0, 2, 3, 4))
    encoder.conv_norm_out.weight[constants] = 0  # they still pin the variance
    for conv in convolutions(encoder):
        silent = ~conv.weight.flatten(1).any(dim=1)  # nothing reads these channels: they can say anything
        conv.weight[silent] = random_weights(conv, seed)[silent]
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in vae.state_dict().items()}, out / "pytorch_model.safetensors")
    shutil.copy(folder / "config.json", out)


def convolutions(encoder: Encoder) -> list[nn.Conv3d]:
    """Those by which something gets from pixels to the last level, whose own channels are all in use."""
    shortcuts = [block.conv_shortcut.conv for block in encoder.modules() if isinstance(block, ResBlock) and block.conv_shortcut is not None]
    halvings = [block.conv.conv for block in encoder.modules() if isinstance(block, Downsample)]
    return [encoder.conv_in.conv, *shortcuts, *halvings[:-1]]


def random_weights(conv: nn.Conv3d, seed: int) -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Conv3d(conv.in_channels, conv.out_channels, conv.kernel_size).weight


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae", type=Path, help="folder with config.json and weights")
    parser.add_argument("out", type=Path, help="folder to write")
    given = parser.parse_args()
    awake(given.vae, given.out)
