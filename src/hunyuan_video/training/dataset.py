"""The latent cache: clips encoded once, to latents and text states, so that training the transformer reads nothing else.

    cache/
      cache-00000.safetensors    latents [N, C, T, H, W] and pooled [N, P] in float16; states [tokens, D] of all captions in a row;
                                 lengths [N]; the captions themselves in the header
Shards are written atomically and one that is there is not made again, so an interrupted preparation continues.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.files import replacing
from hunyuan_video.models.text import TextFeatures
from hunyuan_video.training import pca, world
from hunyuan_video.training.run import keep_config

SHARD_SIZE = 2000
TEXT_BATCH = 100


@dataclass(frozen=True)
class WorldCache:
    """Which clips of the rendered world a cache holds, and what encodes them."""

    pca: Path
    """the linear video encoder, as `hunyuan-video train vae` writes it"""
    text: Path
    """folder with text_encoder/ and text_encoder_2/"""
    num_clips: int = 60_000
    seed: int = 0
    workers: int = 2


def prepare(config: WorldCache, folder: str | Path) -> None:
    """Render, encode and store `num_clips` training clips of the world."""
    folder = Path(folder)
    encoders = [config.pca, *sorted((config.text / "text_encoder").iterdir()), *sorted((config.text / "text_encoder_2").iterdir())]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in encoders)).hexdigest()
    # Not the number of workers or of clips: more clips are more shards. Shards of other encoders must not mix with these.
    keep_config(folder, {"seed": config.seed, "encoders": digest})
    starts = range(0, config.num_clips, SHARD_SIZE)
    jobs = [(config, folder / f"cache-{index:05d}.safetensors", start) for index, start in enumerate(starts)]
    jobs = [job for job in jobs if not job[1].exists()]
    with multiprocessing.get_context("spawn").Pool(config.workers) as pool:
        for _ in tqdm(pool.imap_unordered(_write_shard, jobs), total=len(jobs), desc="latent cache", unit="shard"):
            pass


def _write_shard(job: tuple[WorldCache, Path, int]) -> None:
    config, path, start = job
    torch.set_num_threads(1)
    basis = pca.PcaBasis.load(config.pca)
    encoder = load_text_encoder(config.text / "text_encoder", config.text / "text_encoder_2", dtype=torch.float32)
    scenes = [world.sample_scene(config.seed + start + i, "train") for i in range(min(SHARD_SIZE, config.num_clips - start))]
    captions = [scene.caption for scene in scenes]
    latents, states, lengths, pooled = [], [], [], []
    for i in range(0, len(scenes), TEXT_BATCH):
        clips = np.stack([world.render(scene) for scene in scenes[i : i + TEXT_BATCH]])
        latents.append(pca.encode(basis, torch.from_numpy(clips)).half())
        features = encoder.encode(captions[i : i + TEXT_BATCH])
        states.append(features.states[features.mask].half())
        lengths.append(features.mask.sum(dim=1))
        pooled.append(features.pooled.half())
    tensors = {"latents": torch.cat(latents), "states": torch.cat(states), "lengths": torch.cat(lengths), "pooled": torch.cat(pooled)}
    with replacing(path) as (temporary, _):
        save_file(tensors, temporary, metadata={"captions": json.dumps(captions)})


class LatentCache:
    """All shards of a cache in memory, addressed by clip number."""

    def __init__(self, folder: str | Path):
        shards = sorted(Path(folder).glob("cache-*.safetensors"))
        if not shards:
            raise FileNotFoundError(f"There is no latent cache in {folder}; make one with `hunyuan-video train cache`.")
        latents, states, lengths, pooled = [], [], [], []
        for shard in shards:
            with safe_open(shard, framework="pt") as file:
                latents.append(file.get_tensor("latents"))
                states.append(file.get_tensor("states"))
                lengths.append(file.get_tensor("lengths"))
                pooled.append(file.get_tensor("pooled"))
        self.latents = torch.cat(latents)
        self.pooled = torch.cat(pooled)
        self.states = torch.cat(states).split(torch.cat(lengths).tolist())

    def __len__(self) -> int:
        return len(self.latents)

    def batch(
        self, indices: list[int], dropped: Bool[Tensor, " B"], empty: TextFeatures
    ) -> tuple[Float[Tensor, "B C T H W"], TextFeatures]:
        """Latents and text of the clips `indices`, in float32; where `dropped`, the caption is `empty`'s."""
        states = [empty.states[0] if drop else self.states[i].float() for i, drop in zip(indices, dropped.tolist(), strict=True)]
        lengths = torch.tensor([len(state) for state in states])
        features = TextFeatures(
            states=pad_sequence(states, batch_first=True),
            mask=torch.arange(int(lengths.max())) < lengths[:, None],
            pooled=torch.where(dropped[:, None], empty.pooled, self.pooled[indices].float()),
        )
        return self.latents[indices].float(), features
