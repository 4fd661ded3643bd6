"""Latent caches of the rendered world: the right clips in their shares, and more of them without making any twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_checkpoint import save_text_encoders

from hunyuan_video.miniature import cache, drawing, pca, world
from hunyuan_video.miniature.cache import WorldCache, prepare_world, world_bucket
from hunyuan_video.training.dataset import LatentCache

SMALL = ("1x32x32", "5x32x32")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class InlinePool:
    """Does the work of a multiprocessing context and its pool in this process."""

    def __init__(self, *_arguments):
        self.Pool, self.imap_unordered = InlinePool, map

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        return None


@pytest.fixture
def world_config(tmp_path, monkeypatch) -> WorldCache:
    monkeypatch.setattr(cache.multiprocessing, "get_context", InlinePool)
    save_text_encoders(tmp_path / "text")
    scenes = [world.sample_scene(seed, "train") for seed in range(8)]
    clips = torch.stack([torch.from_numpy(drawing.render(scene, 32, 32, 5)) for scene in scenes])
    pca.fit(clips, 4).save(tmp_path / "pca.safetensors")
    return WorldCache(tmp_path / "pca.safetensors", tmp_path / "text", num_clips=6, buckets=SMALL, shares=(1.0, 2.0), seed=5, shard_size=4)


def test_the_world_is_rendered_into_its_buckets(world_config, tmp_path):
    prepare_world(world_config, tmp_path / "cache")
    made, basis = LatentCache(tmp_path / "cache"), pca.PcaBasis.load(world_config.pca)
    assert len(made) == 6 and len(made.buckets) == 2
    for bucket, numbers in made.buckets.items():
        number = numbers[-1]
        assert world_bucket(world_config, 5 + number) == bucket
        clip = torch.from_numpy(drawing.render(world.sample_scene(5 + number, "train"), 32, 32, bucket.num_frames))
        batch = made.batch([number])
        torch.testing.assert_close(batch.latents, pca.encode(basis, clip[None]), atol=5e-3, rtol=5e-3)


def test_buckets_are_drawn_with_their_shares(world_config):
    drawn = [world_bucket(world_config, seed).num_frames for seed in range(3000)]
    assert drawn.count(5) / 3000 == pytest.approx(2 / 3, abs=0.03)


def test_more_clips_make_only_the_shards_that_are_missing(world_config, tmp_path):
    folder = tmp_path / "cache"
    prepare_world(world_config, folder)
    written = (folder / "shard-00000.safetensors").stat().st_mtime_ns
    prepare_world(replace(world_config, num_clips=9), folder)
    assert (folder / "shard-00000.safetensors").stat().st_mtime_ns == written and len(LatentCache(folder)) == 9
    undisturbed = tmp_path / "undisturbed"
    prepare_world(replace(world_config, num_clips=9), undisturbed)
    assert contents(folder) == contents(undisturbed)


def test_clips_of_other_encoders_do_not_mix(world_config, tmp_path):
    prepare_world(world_config, tmp_path / "cache")
    world_config.pca.write_bytes(b"another")
    with pytest.raises(ValueError, match="other settings"):
        prepare_world(world_config, tmp_path / "cache")


def test_coloured_scenes_have_their_share(world_config, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(cache.drawing, "render", lambda scene, *size, render=drawing.render: seen.append(scene) or render(scene, *size))
    prepare_world(replace(world_config, coloured=1.0), tmp_path / "cache")
    assert len(seen) == 6 and all(scene.colour and scene.second is None for scene in seen)
    assert [scene.seed for scene in seen] == list(range(5, 11))
    with pytest.raises(ValueError, match="other settings"):
        prepare_world(world_config, tmp_path / "cache")


def test_vague_captions_say_at_most_what_happens(world_config, tmp_path):
    named = {said.split()[-1] for group in (world.NOUNS, world.PLACES) for all_of in group.values() for said in all_of}
    scenes = [world.sample_scene(seed, "train") for seed in range(200)]
    captions = [cache.caption_of(replace(world_config, vague=1.0), scene) for scene in scenes]
    assert not any(word in caption.split() for word in named for caption in captions)
    assert any("upwards" in caption for caption in captions) and any("camera zooms" in caption for caption in captions)
    some = [cache.caption_of(replace(world_config, vague=0.3), scene) for scene in scenes]
    assert 0.2 < np.mean([one == vague for one, vague in zip(some, captions, strict=True)]) < 0.4
    with pytest.raises(ValueError, match="vague is 2"):
        replace(world_config, vague=2.0)


def test_every_bucket_needs_its_share(world_config):
    with pytest.raises(ValueError, match="each bucket needs one"):
        replace(world_config, shares=(1.0,))
