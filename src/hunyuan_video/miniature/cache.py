"""Makes latent caches of the rendered world, in several processes, and continues where it was interrupted."""

from __future__ import annotations

import hashlib
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.miniature import drawing, pca, world
from hunyuan_video.models.text import TextEncoder
from hunyuan_video.training.dataset import Bucket
from hunyuan_video.training.run import keep_config, lock
from hunyuan_video.training.shards import Entry, Manifest, Sample, write_shard


@dataclass(frozen=True)
class WorldCache:
    """Which clips of the rendered world a cache holds, and what encodes them."""

    pca: Path
    """the linear video encoder, as `hunyuan-video train vae` writes it"""
    text: Path
    """folder with text_encoder/ and text_encoder_2/"""
    num_clips: int = 60_000
    buckets: tuple[str, ...] = ("17x64x64",)
    """sizes of clips as FRAMESxHEIGHTxWIDTH; 1 frame makes images"""
    shares: tuple[float, ...] = (1.0,)
    """how often each bucket is drawn, relative to the others"""
    coloured: float = 0.0
    """share of the clips whose scenes are drawn from those of one subject in a colour that is asked for"""
    vague: float = 0.0
    """share of the captions that say at most what happens, so that the rest is learned to be taken from given frames"""
    seed: int = 0
    shard_size: int = 2000
    workers: int = 2

    def __post_init__(self) -> None:
        for name in ("coloured", "vague"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a share between 0 and 1.")
        for bucket in self.buckets:
            Bucket.parse(bucket)
        if len(self.shares) != len(self.buckets) or not self.shares or min(self.shares) <= 0:
            raise ValueError(f"shares are {self.shares} for buckets {self.buckets}; each bucket needs one, above 0.")
        for name in ("num_clips", "shard_size", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")


@dataclass(frozen=True)
class _Job:
    config: WorldCache
    index: int
    path: Path
    seeds: range


def prepare_world(config: WorldCache, folder: str | Path) -> None:
    """Render, encode and store `num_clips` training clips of the world, or what a cache in `folder` still lacks of them."""
    folder = Path(folder)
    encoders = [config.pca, *sorted((config.text / "text_encoder").iterdir()), *sorted((config.text / "text_encoder_2").iterdir())]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in encoders)).hexdigest()
    # Not the number of workers or of clips: more clips are more shards. Shards of other encoders must not mix with these.
    request = {
        "seed": config.seed,
        "buckets": config.buckets,
        "shares": config.shares,
        "coloured": config.coloured,
        "vague": config.vague,
        "shard_size": config.shard_size,
        "encoders": digest,
    }
    with lock(folder, "preparation"):
        keep_config(folder, request)
        scenes = range(config.seed, config.seed + config.num_clips)
        parts = [scenes[start : start + config.shard_size] for start in range(0, len(scenes), config.shard_size)]
        manifest = Manifest(folder)
        if max(manifest.shards, default=0) >= len(parts):
            raise ValueError(
                f"{folder} holds clips beyond num_clips, {config.num_clips}; ask for as many as before, or choose another folder."
            )
        made = {index: entry["items"] for index, entry in manifest.shards.items()}
        jobs = [_Job(config, index, manifest.path(index), part) for index, part in enumerate(parts) if made.get(index) != str(part)]
        manifest.begin(job.index for job in jobs)
        if not manifest.empty:
            manifest.add_empty(_load_text(config))
        if not jobs:
            return
        todo = sum(len(job.seeds) for job in jobs)
        with (
            multiprocessing.get_context("spawn").Pool(config.workers) as pool,
            tqdm(total=len(scenes), initial=len(scenes) - todo, desc="latent cache", unit="clip") as bar,
        ):
            for index, entry in pool.imap_unordered(_write_shard, jobs):
                manifest.add(index, str(parts[index]), entry)
                bar.update(entry["samples"])


def _load_text(config: WorldCache) -> TextEncoder:
    return load_text_encoder(config.text / "text_encoder", config.text / "text_encoder_2", dtype=torch.float32)


def _write_shard(job: _Job) -> tuple[int, Entry]:
    torch.set_num_threads(1)
    basis, text = pca.PcaBasis.load(job.config.pca), _load_text(job.config)
    samples = []
    for seed in job.seeds:
        scene, bucket = scene_of(job.config, seed), world_bucket(job.config, seed)
        clip = torch.from_numpy(drawing.render(scene, bucket.height, bucket.width, bucket.num_frames))
        samples.append(Sample(pca.encode(basis, clip[None])[0], caption_of(job.config, scene)))
    return job.index, write_shard(job.path, samples, {}, text)


# Each choice is a function of the scene's seed; a number of its own keeps it apart from the others, and from the scene's own draws.


def scene_of(config: WorldCache, seed: int) -> world.Scene:
    is_coloured = np.random.default_rng([seed, 6]).random() < config.coloured
    return (world.coloured_scene if is_coloured else world.sample_scene)(seed, "train")


def caption_of(config: WorldCache, scene: world.Scene) -> str:
    draw, words = np.random.default_rng([scene.seed, 8]), np.random.default_rng([scene.seed, 3])
    is_vague = draw.random() < config.vague
    return world.sometimes_with_unknown_words(world.vague_caption(scene, draw) if is_vague else scene.caption, words)


def world_bucket(config: WorldCache, seed: int) -> Bucket:
    """The bucket of a scene: a function of its seed, drawn with the buckets' shares."""
    shares = np.array(config.shares) / sum(config.shares)
    number = np.random.default_rng([seed, 2]).choice(len(shares), p=shares)
    return Bucket.parse(config.buckets[number])
