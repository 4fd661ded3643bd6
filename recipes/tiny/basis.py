"""The projection that a constructed encoder is, read off its answers: `python recipes/tiny/basis.py VAE OUT`.

It makes the latents of a cache in a fraction of the encoder's time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from hunyuan_video.checkpoint import load_vae
from hunyuan_video.miniature.pca import PcaBasis, blocks_of, encode
from hunyuan_video.training.vae_clips import to_pixels


@torch.no_grad()
def basis_of(folder: Path, tolerance: float = 0.02) -> PcaBasis:
    """Raises SystemExit for an encoder that is no such projection."""
    vae = load_vae(folder, torch.float32, torch.device("cpu"))
    clips = torch.randint(256, (4, 17, 64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    latents = torch.cat([vae.encode(to_pixels(clip[None])).mean for clip in clips])
    blocks = blocks_of(clips).flatten(0, -2).double()
    answers = latents.movedim(1, -1).flatten(0, -2).double()
    solution = torch.linalg.lstsq(torch.cat([blocks, torch.ones_like(blocks[:, :1])], dim=1), answers).solution
    filters, offset = solution[:-1], solution[-1]
    mean = -torch.linalg.lstsq(filters.T, offset[:, None]).solution[:, 0]
    basis = PcaBasis(mean.float(), filters.float().contiguous(), torch.ones(filters.shape[1]))
    if (off := (encode(basis, clips) - latents).abs().max().item()) > tolerance:
        sys.exit(f"{folder} is no constructed encoder: as a projection it is off by up to {off:.3f}.")
    return basis


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae", type=Path, help="folder with config.json and weights")
    parser.add_argument("out", type=Path, help="pca.safetensors to write")
    given = parser.parse_args()
    basis_of(given.vae).save(given.out)
