"""A small latent cache on disk, as `prepare` writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from hunyuan_video.models.text import TextEncoder

CAPTIONS = ["a cat", "a dog in the snow", "a boat at sea", "the robot"]


def save_cache(folder: Path, encoder: TextEncoder, sizes: Sequence[tuple[int, int, int]], channels: int = 4) -> Path:
    """Random latents, one sample for each of `sizes` (latent frames, height and width), with captions in turn."""
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    for i, size in enumerate(sizes):
        features = encoder.encode([CAPTIONS[i % len(CAPTIONS)]], "image" if size[0] == 1 else "video")
        shard |= {
            f"{i}.latents": torch.randn(channels, *size, generator=draw).half(),
            f"{i}.states": features.states[0].half(),
            f"{i}.pooled": features.pooled[0].half(),
        }
    save_file(shard, folder / "shard-00000.safetensors", metadata={"captions": json.dumps(CAPTIONS), "skipped": "{}"})
    empty = {kind: encoder.encode([""], kind) for kind in ("video", "image")}
    words = {f"{kind}.states": features.states[0].half() for kind, features in empty.items()}
    save_file(words | {f"{kind}.pooled": features.pooled[0].half() for kind, features in empty.items()}, folder / "empty.safetensors")
    entry = {"samples": len(sizes), "bytes": (folder / "shard-00000.safetensors").stat().st_size}
    (folder / "manifest.json").write_text(json.dumps({"shards": {"shard-00000.safetensors": entry}, "samples": len(sizes)}))
    return folder
