"""A transformer without its guidance embedding, as it is at the scale 1: `python recipes/tiny/unguided.py FILE OUT`.

To go on training weights of which guidance was distilled, and to distil it again from what they become.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from hunyuan_video.checkpoint import load_transformer


@torch.no_grad()
def unguided(path: Path, out: Path) -> None:
    model = load_transformer(path, torch.float32, torch.device("cpu"))
    if model.guidance_in is None:
        sys.exit(f"{path} has no guidance embedding; it can be trained as it is.")
    # What guidance adds to the conditioning vector is the same for all videos at one scale: a bias.
    model.get_parameter("vector_in.out_layer.bias").add_(model.guidance_in(torch.full((1,), 1000.0), torch.float32)[0])
    save_file({name: value for name, value in model.state_dict().items() if not name.startswith("guidance_in.")}, out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    unguided(Path(sys.argv[1]), Path(sys.argv[2]))
