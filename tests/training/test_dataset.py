"""The latent cache and its schedule: every sample comes back with its own text, once an epoch, at any step."""

from __future__ import annotations

import json
from collections import Counter
from math import floor
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_checkpoint import save_text_encoders

from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.models.text import TextEncoder
from hunyuan_video.training.dataset import Bucket, LatentCache, Schedule, nearest
from hunyuan_video.training.shards import Manifest, Sample, write_shard

CAPTIONS = ["a cat", "a dog in the snow", "a boat at sea", "the robot", "a picture of the sea"]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> TextEncoder:
    return load_text_encoder(*save_text_encoders(tmp_path_factory.mktemp("text")), dtype=torch.float32)


def samples() -> list[Sample]:
    """Four videos and an image, of 4 channels."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(4, 2, 4, 4), (4, 2, 4, 4), (4, 2, 4, 6), (4, 2, 4, 4), (4, 1, 4, 4)]
    return [Sample(torch.randn(shape, generator=draw), caption) for shape, caption in zip(shapes, CAPTIONS, strict=True)]


@pytest.fixture
def folder(tmp_path, text) -> Path:
    """A cache of the samples in two shards."""
    manifest = Manifest(tmp_path)
    manifest.add_empty(text)
    manifest.begin([0, 1])
    for index in (0, 1):
        manifest.add(index, "all", write_shard(manifest.path(index), samples()[3 * index : 3 * index + 3], {}, text))
    return tmp_path


def test_the_index_says_what_the_cache_holds(folder):
    cache = LatentCache(folder)
    assert cache.buckets == {Bucket(5, 32, 32): [0, 1, 3], Bucket(5, 32, 48): [2], Bucket(1, 32, 32): [4]}
    assert (len(cache), cache.latent_channels, cache.text_dim, cache.pooled_dim) == (5, 4, 16, 12)
    assert cache.text_lengths == [cache.batch([number]).captions.states.shape[1] for number in range(5)]


def test_a_batch_gives_back_each_sample_with_its_own_text(folder, text):
    batch = LatentCache(folder).batch([3, 0])
    expected = text.encode([CAPTIONS[3], CAPTIONS[0]])
    torch.testing.assert_close(batch.latents, torch.stack([samples()[3].latents, samples()[0].latents]).half().float())
    assert torch.equal(batch.captions.mask, expected.mask)
    torch.testing.assert_close(batch.captions.states[expected.mask], expected.states[expected.mask], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(batch.captions.pooled, expected.pooled, atol=2e-3, rtol=2e-3)


def test_a_clip_of_several_texts_is_a_sample_with_each_and_counts_once(tmp_path, text):
    first, second, *_ = samples()
    said = [Sample(first.latents, CAPTIONS[0], others=(CAPTIONS[1], CAPTIONS[2])), second]
    manifest = Manifest(tmp_path)
    manifest.add_empty(text)
    manifest.begin([0])
    manifest.add(0, "all", write_shard(manifest.path(0), said, {}, text))
    cache = LatentCache(tmp_path)
    assert len(cache) == 4 and cache.buckets == {Bucket(5, 32, 32): [0, 1, 2, 3]} and manifest.buckets.total() == 2
    expected = text.encode([CAPTIONS[0], CAPTIONS[1], CAPTIONS[2], CAPTIONS[1]])
    for number in range(4):
        batch, states = cache.batch([number]), expected.states[number][expected.mask[number]]
        torch.testing.assert_close(batch.captions.states[0], states, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(batch.captions.pooled[0], expected.pooled[number], atol=2e-3, rtol=2e-3)
        assert torch.equal(batch.latents[0], (first if number < 3 else second).latents.half().float())


@pytest.mark.parametrize(("number", "kind"), [(0, "video"), (4, "image")])
def test_the_empty_caption_is_that_of_its_kind(folder, text, number, kind):
    batch, expected = LatentCache(folder).batch([number]), text.encode([""], kind)
    torch.testing.assert_close(batch.empty.states, expected.states, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(batch.empty.pooled, expected.pooled, atol=2e-3, rtol=2e-3)
    assert torch.equal(batch.empty.mask, expected.mask)


def test_an_image_is_told_apart_by_its_template(folder, text):
    batch = LatentCache(folder).batch([4])
    torch.testing.assert_close(batch.captions.states, text.encode([CAPTIONS[4]], "image").states, atol=2e-3, rtol=2e-3)


def test_no_cache_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="data prepare"):
        LatentCache(tmp_path)


def test_a_shard_that_is_gone_or_cut_is_noticed_on_opening(folder):
    shard = folder / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors is gone or damaged"):
        LatentCache(folder)
    shard.unlink()
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors is gone or damaged"):
        LatentCache(folder)


def test_an_unfinished_cache_is_refused(folder):
    Manifest(folder).begin([2])
    with pytest.raises(ValueError, match="1 of its shards are still missing"):
        LatentCache(folder)


def test_values_that_overflow_are_not_stored(tmp_path, text):
    with pytest.raises(ValueError, match="not finite"):
        write_shard(tmp_path / "a.safetensors", [Sample(torch.full((4, 1, 2, 2), 1e6), "x")], {}, text)


def test_the_manifest_adds_the_shards_up(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["samples"], manifest["missing"], manifest["skipped"]) == (5, 0, {})
    assert manifest["buckets"] == {"1x32x32": 1, "5x32x32": 3, "5x32x48": 1}


# ---------------------------------------------------------------------------------------------------- buckets


def test_a_bucket_is_written_as_it_is_read():
    assert str(Bucket.parse("33x128x256")) == "33x128x256"
    assert Bucket.parse("33x128x256").tokens == 9 * 8 * 16


@pytest.mark.parametrize("text", ["", "33x128", "32x128x128", "33x120x128", "0x16x16", "1x0x16", "-3x16x16", "1x16x16x3"])
def test_a_wrong_bucket_is_refused(text):
    with pytest.raises(ValueError, match="such as 33x128x128"):
        Bucket.parse(text)


OFFERED = [Bucket.parse(text) for text in ("1x128x128", "17x128x128", "33x128x128", "33x64x64", "33x96x160", "65x96x160", "129x720x1280")]


@pytest.mark.parametrize(
    ("source", "chosen"),
    [
        ((1, 500, 900), "1x128x128"),
        ((40, 128, 128), "33x128x128"),
        ((20, 128, 128), "17x128x128"),
        ((40, 100, 100), "33x64x64"),
        ((40, 20, 20), "33x64x64"),
        ((500, 1080, 1920), "129x720x1280"),
        ((100, 1080, 1920), "65x96x160"),
        ((500, 480, 832), "65x96x160"),
        ((2, 128, 128), None),
    ],
    ids=["image", "same", "shorter", "smaller", "enlarged", "large", "too short for the large one", "small 16:9", "too short"],
)
def test_aspect_then_size_then_duration_choose_a_bucket(source, chosen):
    bucket = nearest(OFFERED, *source)
    assert (bucket and str(bucket)) == chosen


# ---------------------------------------------------------------------------------------------------- the schedule

SIZES = [Bucket(1, 16, 16), Bucket(1, 32, 32), Bucket(5, 16, 16), Bucket(5, 32, 32), Bucket(17, 16, 32)]


@st.composite
def caches(draw) -> tuple[dict[Bucket, list[int]], list[int]]:
    """Samples of some sizes, and the text length of each."""
    counts = draw(st.lists(st.integers(0, 7), min_size=len(SIZES), max_size=len(SIZES)))
    assume(sum(counts))
    starts = [sum(counts[:i]) for i in range(len(counts))]
    lengths = draw(st.lists(st.integers(1, 3), min_size=sum(counts), max_size=sum(counts)))
    return {size: list(range(start, start + count)) for size, start, count in zip(SIZES, starts, counts, strict=True) if count}, lengths


@given(caches(), st.integers(1, 30), st.integers(1, 4), st.integers(0, 2**62))
def test_every_sample_comes_once_an_epoch_within_the_budget(cache, budget, batches_per_step, seed):
    buckets, lengths = cache
    schedule = Schedule(buckets, lengths, budget, batches_per_step, None, seed)
    bucket_of = {number: bucket for bucket, numbers in buckets.items() for number in numbers}
    total, seen, counts = len(bucket_of), Counter[int](), []
    batches = [batch for step in range(3 * total) for batch in schedule(step)]
    for batch in batches:
        (bucket,) = {bucket_of[number] for number in batch}
        assert len(batch) == 1 or len(batch) * bucket.tokens <= budget
        seen.update(batch)
        counts.append(seen.total())
        if seen.total() % total == 0:
            assert set(seen.values()) == {seen.total() // total}
    assert {total, 2 * total} <= set(counts)  # an epoch ends between two batches


@given(caches(), st.integers(1, 30), st.integers(1, 4), st.integers(0, 50))
def test_a_step_is_the_same_whatever_was_asked_before(cache, budget, batches_per_step, step):
    schedule = Schedule(*cache, budget, batches_per_step, None, 0)
    walked = [schedule(number) for number in range(step + 1)]
    assert Schedule(*cache, budget, batches_per_step, None, 0)(step) == walked[step]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 2**62))
def test_batches_mix_text_lengths_only_where_no_length_fills_one(lengths, samples, seed):
    schedule = Schedule({SIZES[0]: list(range(len(lengths)))}, lengths, samples, 1, None, seed)
    batches = [schedule(step)[0] for step in range(-(-len(lengths) // samples))]
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    mixed = [batch for batch in batches if len({lengths[number] for number in batch}) > 1]
    left = Counter(lengths[number] for batch in mixed for number in batch)
    assert all(count < len(batch) for count in left.values() for batch in mixed)


@given(st.integers(0, 100), st.integers(1, 5), st.integers(0, 60))
def test_the_share_of_images_is_exact(percent, batches_per_step, steps):
    schedule = Schedule({SIZES[0]: [0, 1, 2], SIZES[3]: [3, 4]}, [1] * 5, 1, batches_per_step, percent / 100, 0)
    batches = [batch for step in range(steps) for batch in schedule(step)]
    assert sum(batch[0] < 3 for batch in batches) == floor(len(batches) * percent / 100 + 1e-9)


def test_images_and_videos_have_epochs_of_their_own():
    schedule = Schedule({SIZES[0]: [0, 1, 2], SIZES[3]: [3, 4]}, [1] * 5, 1, 1, 0.25, 0)
    batches = [schedule(step)[0][0] for step in range(24)]
    assert Counter(batches) == {0: 2, 1: 2, 2: 2, 3: 9, 4: 9}


def test_epochs_and_seeds_are_shuffled_differently():
    def orders(seed: int) -> list[list[int]]:
        schedule = Schedule({SIZES[2]: list(range(20))}, [1] * 20, 1, 20, None, seed)
        return [[batch[0] for batch in schedule(epoch)] for epoch in range(2)]

    first, second = orders(0)
    assert first != second and first != orders(1)[0] and sorted(first) == list(range(20))


def test_what_is_left_of_a_length_is_another_rest_in_every_epoch():
    schedule = Schedule({SIZES[0]: list(range(10))}, [1] * 7 + [2] * 3, 5, 2, None, 0)
    mixed = {tuple(sorted(batch)) for epoch in range(9) for batch in schedule(epoch) if 9 in batch}
    assert len(mixed) > 3


def test_a_rest_is_spread_over_the_batches():
    schedule = Schedule({SIZES[0]: list(range(9))}, [1] * 9, 8, 2, None, 0)
    assert sorted(map(len, schedule(0))) == [4, 5]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_ratio": 0.5}, "holds no images"),
        ({"image_ratio": 1.5}, "image_ratio is 1.5"),
        ({"token_budget": 0}, "token_budget is 0"),
        ({"batches_per_step": 0}, "batches_per_step 0"),
    ],
)
def test_an_impossible_schedule_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Schedule(
            **{"buckets": {SIZES[2]: [0]}, "text_lengths": [1], "token_budget": 1, "batches_per_step": 1, "image_ratio": None, "seed": 0}
            | change
        )
