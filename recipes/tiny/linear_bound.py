"""What a VAE's decoder has to be better than: on each video, the PSNR of the VAE, of the best linear decoding of its latents, and of linear
latents as many that were made for clips by rule alone, in dB.

    python recipes/tiny/linear_bound.py VAE FOOTAGE…

A linear decoding makes a block of 4x8x8 pixels of the latents of its own and the 26 around it, of no later ones, as a causal decoder may;
least squares find it on clips of `miniature.nature`, so that on footage it is as much a stranger as the VAE.

Letters: T H W latents' frames, height and width; L latents; D = 4*8*8*3 values of a block.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from hunyuan_video.checkpoint import load_vae
from hunyuan_video.clips import read_clip
from hunyuan_video.miniature import nature, pca
from hunyuan_video.training import train_vae
from hunyuan_video.training.vae_clips import to_pixels

FRAMES, SIDE = 33, 128  # of footage: what `hunyuan-video evaluate embedded` measures
RIDGE = 1e-6  # of the mean square of a latent

Clip = UInt8[Tensor, "1 F H W 3"]
Encode = Callable[[Clip], Float[Tensor, "1 L T H W"]]


def around(latents: Float[Tensor, "1 L T H W"]) -> Float[Tensor, "T H W 27L+1"]:
    """Each position's latents and those around it, and a constant. Edges repeat, as for the VAE."""
    padded = F.pad(latents, (1, 1, 1, 1, 2, 0), mode="replicate")
    seen = padded[0].unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1).movedim(0, 3).flatten(3)
    return F.pad(seen, (0, 1), value=1.0)


def fit(encode: Encode, clips: Iterable[Clip]) -> Float[Tensor, "27L+1 D"]:
    squares, products = torch.zeros(()), torch.zeros(())
    for clip in clips:
        seen, blocks = around(encode(clip)).flatten(0, 2).double(), pca.blocks_of(clip).flatten(0, 3).double()
        squares, products = squares + seen.T @ seen, products + seen.T @ blocks
    return torch.linalg.solve(squares + RIDGE * squares.diagonal().mean() * torch.eye(len(squares)), products).float()


def psnr_of_blocks(decoded: Float[Tensor, "T H W D"], clip: Clip) -> float:
    """Of the clip's own frames: the first one stands four times in its blocks."""
    errors = ((decoded.clamp(-1, 1) - pca.blocks_of(clip)[0]) / 2).square().mean(dim=(1, 2, 3))
    frames = torch.tensor([1.0] + [pca.TIME] * (len(errors) - 1))
    return -10 * ((errors * frames).sum() / frames.sum()).log10().item()


@torch.no_grad()
def main(folder: Path, footage: Iterable[Path], num_clips: int = 200) -> str:
    """A table in Markdown."""
    vae = load_vae(folder, torch.float32, torch.device("cpu"))
    clips = [torch.from_numpy(nature.render(8_000_000 + seed, 64, 17))[None] for seed in range(num_clips)]
    own = pca.fit(torch.cat(clips))

    def encode(clip: Clip) -> Tensor:
        return vae.encode(to_pixels(clip)).mode()

    def project(clip: Clip) -> Tensor:
        return pca.encode(own, clip)

    decodings = [(encode, fit(encode, clips)), (project, fit(project, clips))]
    rows = ["| | the VAE | linear decoding of its latents | of latents made for clips by rule |", "| --- | ---: | ---: | ---: |"]
    for path in footage:
        clip = torch.from_numpy(np.array(read_clip(path, FRAMES, size=(SIDE, SIDE)).pixels))[None]
        found = [
            train_vae.evaluate(vae, [clip])[0],
            *(psnr_of_blocks(around(latents(clip)) @ weights, clip) for latents, weights in decodings),
        ]
        rows.append(f"| {path.stem} | {' | '.join(f'{value:.2f}' for value in found)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae", type=Path, help="folder with config.json and weights")
    parser.add_argument("footage", type=Path, nargs="+", help="videos")
    given = parser.parse_args()
    print(main(given.vae, given.footage))
