"""Preparing latent caches: the right latents and words, broken media counted, and interruption without a trace."""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import DATA
from media_files import at, write_video
from PIL import Image
from small_disk import small_disk

from hunyuan_video import HunyuanVideo, cli, weights
from hunyuan_video.models.text import Kind
from hunyuan_video.training import media, prepare, shards
from hunyuan_video.training.captions import texts_of
from hunyuan_video.training.dataset import Bucket, LatentCache
from hunyuan_video.training.prepare import DataPreparation
from hunyuan_video.training.run import lock

FIELD = DATA / "field" / "captions"
SMALL = ("1x32x32", "5x32x32")


@pytest.fixture(autouse=True)
def load_once(monkeypatch):
    """The embedded miniature encodes; it is read once."""
    monkeypatch.delenv("MODEL_BASE", raising=False)
    monkeypatch.setattr(prepare, "_load_encoders", _load_encoders)


_load_encoders = functools.cache(prepare._load_encoders)


@pytest.fixture
def source(tmp_path) -> Path:
    """Three videos, an image, a cut video and one without a caption."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "cut.mp4", "silent.mp4", "z.mkv"):
        write_video(folder / name, at(24, 8))
    Image.new("RGB", (40, 40), "teal").save(folder / "image.png")
    (folder / "image.txt").write_text("teal")
    (folder / "cut.mp4").write_bytes((folder / "cut.mp4").read_bytes()[:-50])
    (folder / "silent.txt").unlink()
    return folder


@pytest.fixture
def config(source) -> DataPreparation:
    return DataPreparation(source, buckets=SMALL, shard_size=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---------------------------------------------------------------------------------------------------- what is made


def test_the_cache_holds_what_the_pipeline_encodes(config, tmp_path):
    prepare.prepare(config, tmp_path / "cache")
    cache, pipe = LatentCache(tmp_path / "cache"), HunyuanVideo.load(weights.EMBEDDED)
    items = {item.name: item for item in media.find_items(config.source)}
    assert cache.buckets == {Bucket(5, 32, 32): [0, 1, 3], Bucket(1, 32, 32): [2]}  # in the order of a, b, image, z
    expectations: tuple[tuple[int, str, Kind], ...] = ((1, "b.mp4", "video"), (2, "image.png", "image"))
    for number, name, kind in expectations:
        batch = cache.batch([number])
        cuts = media.plan(items[name], [Bucket.parse(size) for size in SMALL], 24.0, 1)
        (clip,) = media.read_clips(items[name], cuts)
        expected = pipe.text_encoder.encode([items[name].caption], kind)
        torch.testing.assert_close(batch.latents, pipe.encode(clip), atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(batch.captions.states, expected.states, atol=5e-3, rtol=5e-3)
        torch.testing.assert_close(batch.captions.pooled, expected.pooled, atol=5e-3, rtol=5e-3)


def test_a_caption_of_fields_is_encoded_as_several_texts(config, tmp_path):
    caption = json.dumps({"short": "A cat walks.", "style": "Realistic.", "lighting": "Night."})
    (config.source / "b.txt").write_text(caption)
    prepare.prepare(replace(config, texts=3), tmp_path / "cache")
    cache, texts = LatentCache(tmp_path / "cache"), texts_of(caption, 3)
    assert len(cache) == 4 + 2 and len(set(texts)) == 3
    expected = HunyuanVideo.load(weights.EMBEDDED).text_encoder.encode(texts)
    for number, way in zip((1, 2, 3), range(3), strict=True):  # in the order of a, b, image, z
        torch.testing.assert_close(cache.batch([number]).captions.pooled[0], expected.pooled[way], atol=5e-3, rtol=5e-3)
    again = prepare.prepare(replace(config, texts=2), tmp_path / "cache")  # what is made stays as it is
    assert "4 samples" in again and len(LatentCache(tmp_path / "cache")) == 6


def test_captions_that_are_no_text_are_skipped_and_cost_no_shard(tmp_path):
    for source, skipped in (
        (FIELD, {"caption is not text": 2, "too short": 1}),  # three frames
        (FIELD / "surrogate.jsonl", {"caption is not text": 1}),
        (FIELD / "surrogate_file.jsonl", {"missing file": 1}),
    ):
        prepare.prepare(DataPreparation(source, SMALL), tmp_path / source.name)
        manifest = json.loads((tmp_path / source.name / "manifest.json").read_text())
        assert manifest["skipped"] == skipped and manifest["samples"] == len(media.find_items(source)) - sum(skipped.values())
        assert manifest["missing"] == 0


def test_what_is_skipped_is_counted_by_reason_and_named(config, tmp_path):
    text = prepare.prepare(config, tmp_path / "cache")
    manifest = json.loads((tmp_path / "cache" / "manifest.json").read_text())
    assert manifest["skipped"] == {"no caption": 1, "unreadable": 1}
    assert text == (tmp_path / "cache" / "report.md").read_text()
    for line in ("4 samples of 6 sources.", "| 5x32x32 | 3 |", "| unreadable | 1 | cut.mp4 |", "| no caption | 1 | silent.mp4 |"):
        assert line in text


def test_a_dry_run_says_the_same_and_writes_nothing(config, tmp_path, capsys):
    arguments = ["data", "prepare", str(config.source), "--out", str(tmp_path / "cache"), "--buckets", *SMALL]
    assert cli.main([*arguments, "--dry-run"]) == 0
    assert not (tmp_path / "cache").exists()
    announced = capsys.readouterr().out
    assert cli.main(arguments) == 0
    assert announced.splitlines()[1:] == capsys.readouterr().out.splitlines()[1:]


def test_what_happens_to_the_others_is_said(config, tmp_path, caplog):
    write_video(config.source / "short.mp4", at(24, 3))
    prepare.prepare(config, tmp_path / "cache")
    assert "skipped short.mp4 and went on with the others: too short (it has 3 frames" in caplog.text


def test_a_look_counts_what_is_still_to_be_encoded(config, tmp_path):
    assert prepare.survey(config, tmp_path / "cache").missing == 4
    prepare.prepare(config, tmp_path / "cache")
    assert prepare.survey(config, tmp_path / "cache").missing == 0
    (config.source / "image.txt").write_text("green")
    seen = prepare.survey(config, tmp_path / "cache")
    assert seen.buckets == {"5x32x32": 3, "1x32x32": 1} and seen.missing == 1
    with pytest.raises(ValueError, match=r"None of the 6 sources could be used .* the shortest size, 65x32x32, needs 65 frames"):
        prepare.survey(replace(config, buckets=("65x32x32",))).check()


def test_consecutive_clips_share_their_caption(config, tmp_path):
    write_video(config.source / "a.mp4", at(24, 11))
    prepare.prepare(replace(config, clips_per_video=2), tmp_path / "cache")
    cache = LatentCache(tmp_path / "cache")
    features = cache.batch([0, 1]).captions
    assert cache.buckets[Bucket(5, 32, 32)][:2] == [0, 1] and torch.equal(features.states[0], features.states[1])


def test_without_buckets_the_weights_choose(source):
    found = weights.find_or_embedded(weights.EMBEDDED)
    assert DataPreparation(source).sizes(found) == [Bucket(1, 128, 128), Bucket(33, 128, 128)]


# ---------------------------------------------------------------------------------------------------- interruption


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["write_shard", "add"])
def test_a_killed_preparation_ends_with_the_bytes_of_an_undisturbed_one(config, tmp_path, monkeypatch, moment):
    prepare.prepare(config, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        owner = prepare if moment == "write_shard" else shards.Manifest
        original, calls = getattr(owner, moment), []

        def dies_at_the_second(*arguments):
            calls.append(arguments)
            if len(calls) == 2:
                raise Killed
            return original(*arguments)

        patch.setattr(owner, moment, dies_at_the_second)
        with pytest.raises(Killed):
            prepare.prepare(config, tmp_path / "killed")
    with pytest.raises(ValueError, match="2 of its shards are still missing"):
        LatentCache(tmp_path / "killed")
    prepare.prepare(config, tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """The names of all sources that are encoded."""
    names: list[str] = []
    original = media.read_clips
    monkeypatch.setattr(media, "read_clips", lambda item, cuts: (names.append(item.name), original(item, cuts))[1])
    return names


@pytest.mark.parametrize("harm", ["deleted", "flipped", "empty flipped"])
def test_only_a_damaged_shard_is_made_again(config, tmp_path, monkeypatch, harm):
    cache = tmp_path / "cache"
    prepare.prepare(config, cache)
    whole = contents(cache)
    path = cache / ("empty.safetensors" if harm == "empty flipped" else "shard-00001.safetensors")
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.unlink() if harm == "deleted" else path.write_bytes(damaged)
    made = []
    monkeypatch.setattr(prepare, "write_shard", lambda path, *rest: made.append(path.name) or shards.write_shard(path, *rest))
    prepare.prepare(config, cache)
    assert contents(cache) == whole
    assert made == ([] if harm == "empty flipped" else ["shard-00001.safetensors"])


def test_a_source_that_sorts_first_or_changes_is_encoded_alone(config, tmp_path, encoded):
    cache = tmp_path / "cache"
    prepare.prepare(config, cache)
    whole = {name: content for name, content in contents(cache).items() if name.startswith("shard-")}
    encoded.clear()
    write_video(config.source / "0.mp4", at(24, 8))
    (config.source / "image.txt").write_text("green")
    report = prepare.prepare(config, cache)
    assert encoded == ["0.mp4", "image.png"] and contents(cache).items() >= whole.items()
    assert "5 samples of 7 sources." in report and "| unreadable | 1 | cut.mp4 |" in report
    made, expected = LatentCache(cache), HunyuanVideo.load(weights.EMBEDDED).text_encoder.encode(["green"], "image")
    assert made.buckets == {Bucket(5, 32, 32): [0, 1, 2, 3], Bucket(1, 32, 32): [4]}  # a, b, z and, in a new shard, 0 and the image
    torch.testing.assert_close(made.batch([4]).captions.states, expected.states, atol=5e-3, rtol=5e-3)


def test_what_is_gone_counts_no_longer_stays_in_its_shard_and_counts_when_it_returns(config, tmp_path, encoded):
    cache = tmp_path / "cache"
    prepare.prepare(config, cache)
    whole, latents = contents(cache), LatentCache(cache).batch([1, 3]).latents
    encoded.clear()
    away = {path: path.rename(tmp_path / path.name) for path in (config.source / "a.mp4", config.source / "image.png")}
    report = prepare.prepare(config, cache, may_shrink=True)
    assert "2 samples of 4 sources." in report and len(LatentCache(cache)) == 2
    assert torch.equal(LatentCache(cache).batch([0, 1]).latents, latents)
    assert all(content == whole[name] for name, content in contents(cache).items() if name.startswith("shard-"))
    for path, elsewhere in away.items():
        elsewhere.rename(path)
    prepare.prepare(config, cache)
    assert contents(cache) == whole and not encoded


def test_a_folder_without_clips_for_once_costs_nothing(config, tmp_path, encoded):
    """As where a disk is not there, and only something that is no clip is."""
    cache = tmp_path / "cache"
    prepare.prepare(config, cache)
    whole = {name: content for name, content in contents(cache).items() if name.startswith("shard-")}
    encoded.clear()
    config.source.rename(tmp_path / "away")
    config.source.mkdir()
    (config.source / "other.mp4").touch()
    with pytest.raises(ValueError, match="None of the 1 sources could be used"):
        prepare.prepare(config, cache, may_shrink=True)
    (config.source / "other.mp4").unlink()
    (tmp_path / "away").rename(config.source)
    prepare.prepare(config, cache)
    assert contents(cache).items() >= whole.items() and len(LatentCache(cache)) == 4 and not encoded


def test_a_source_that_is_replaced_by_one_of_its_size_is_noticed_and_a_copy_is_not(config, tmp_path, encoded):
    write_video(config.source / "a.mp4", at(24, 11))
    path, number = config.source / "a.mp4", (config.source / "a.mp4").stat().st_size
    (config.source / "b.mp4").write_bytes((config.source / "b.mp4").read_bytes().ljust(number, b"\0"))
    prepare.prepare(config, tmp_path / "cache")
    encoded.clear()
    os.utime(path, (0, 0))
    prepare.prepare(config, tmp_path / "cache")
    assert not encoded
    path.write_bytes((config.source / "b.mp4").read_bytes())
    assert path.stat().st_size == number
    prepare.prepare(config, tmp_path / "cache")
    assert encoded == ["a.mp4"] and len(LatentCache(tmp_path / "cache")) == 4


def test_a_source_that_is_listed_twice_counts_twice(tmp_path, config):
    rows = [{"file": name, "caption": "a cat"} for name in ("a.mp4", "b.mp4", "a.mp4")]
    (config.source / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = replace(config, source=config.source / "list.jsonl")
    prepare.prepare(config, tmp_path / "cache")
    whole = contents(tmp_path / "cache")
    prepare.prepare(config, tmp_path / "cache")
    assert len(LatentCache(tmp_path / "cache")) == 3 and contents(tmp_path / "cache") == whole


def test_a_shard_of_which_nothing_is_left_is_deleted_where_that_is_asked_for(config, tmp_path):
    cache = tmp_path / "cache"
    prepare.prepare(config, cache)
    for name in ("cut.mp4", "image.png", "z.mkv"):
        (config.source / name).unlink()
    prepare.prepare(replace(config, discard=True), cache)
    assert sorted(path.name for path in cache.glob("shard-*")) == ["shard-00000.safetensors", "shard-00002.safetensors"]
    assert len(LatentCache(cache)) == 2


def test_a_cache_of_an_earlier_version_is_left_as_it_is(config, tmp_path):
    cache = tmp_path / "cache"
    prepare.prepare(config, cache)
    manifest = json.loads((cache / "manifest.json").read_text())
    for entry in manifest["shards"].values():
        entry["items"] = "one digest of all"
    (cache / "manifest.json").write_text(json.dumps(manifest))
    before = contents(cache)
    with pytest.raises(ValueError, match=r"made by an earlier version.* only be added in another folder"):
        prepare.prepare(config, cache)
    assert contents(cache) == before and len(LatentCache(cache)) == 4


def test_a_shorter_list_deletes_nothing_unasked(config, tmp_path):
    cache, caption = tmp_path / "cache", config.source / "image.txt"
    prepare.prepare(config, cache)
    before = contents(cache)
    listed = sorted(path for path in config.source.iterdir() if path.suffix != ".txt" and path != caption.with_suffix(".png"))
    for path in listed[1:]:
        path.unlink()
    with pytest.raises(ValueError, match=r"a longer list than these 2 sources; give all again, or another folder, .*--discard"):
        prepare.prepare(config, cache)
    assert contents(cache) == before


def test_a_folder_in_which_a_preparation_works_is_refused_to_another(config, tmp_path):
    with lock(tmp_path / "cache", "preparation"), pytest.raises(BlockingIOError, match="Another preparation works in"):
        prepare.prepare(config, tmp_path / "cache")


def test_another_way_to_the_same_sources_is_no_other_setting(config, tmp_path):
    report = prepare.prepare(config, tmp_path / "cache")
    again = prepare.prepare(replace(config, source=config.source / ".." / config.source.name), tmp_path / "cache")
    assert again.splitlines()[1:] == report.splitlines()[1:]


def test_other_settings_in_the_same_folder_are_refused(config, tmp_path):
    prepare.prepare(config, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"other settings \(fps: 24.0 -> 12.0\)"):
        prepare.prepare(replace(config, fps=12.0), tmp_path / "cache")
    prepare.prepare(replace(config, max_failures=0.5), tmp_path / "cache")


# ---------------------------------------------------------------------------------------------------- failure


def test_too_many_failures_end_the_preparation_with_the_reasons(config, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "MIN_JUDGED", 4)
    with pytest.raises(ValueError, match=r"1 of the first 4 sources cannot be used \(1 unreadable\), more than max_failures, 0.1"):
        prepare.prepare(config, tmp_path / "cache")
    # What was skipped before an interruption counts, too.
    with pytest.raises(ValueError, match="2 of the first 5 sources"):
        prepare.prepare(replace(config, max_failures=0.3), tmp_path / "cache")
    prepare.prepare(replace(config, max_failures=0.4), tmp_path / "cache")


def test_a_few_failures_at_the_start_end_nothing(config, tmp_path):
    prepare.prepare(replace(config, max_failures=0.0), tmp_path / "cache")


def test_a_cache_of_nothing_is_an_error(tmp_path, capsys):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.mp4").touch()
    assert cli.main(["data", "prepare", str(tmp_path / "source"), "--out", str(tmp_path / "cache")]) == 2
    said = capsys.readouterr().err
    assert "None of the 1 sources could be used (1 no caption)" in said and "as clip.txt beside clip.mp4" in said
    with pytest.raises(FileNotFoundError, match="no latent cache"):
        LatentCache(tmp_path / "cache")
    assert cli.main(["data", "prepare", str(tmp_path / "source"), "--out", str(tmp_path / "cache"), "--dry-run"]) == 2
    seen = capsys.readouterr()
    assert "| no caption | 1 | a.mp4 |" in seen.out and "None of the 1 sources could be used" in seen.err


def test_the_weights_of_model_base_encode(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MODEL_BASE", str(tmp_path / "nowhere"))
    assert cli.main(["data", "prepare", str(source), "--out", str(tmp_path / "cache")]) == 2
    assert f"looked for {tmp_path / 'nowhere'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"buckets": ("16x64x64",)}, "'16x64x64'"),
        ({"fps": 0.0}, "fps is 0"),
        ({"clips_per_video": 0}, "clips_per_video is 0"),
        ({"max_failures": 2.0}, "max_failures is 2"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_impossible_settings_are_refused(change, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        DataPreparation(Path("videos"), **change)


def test_a_preparation_that_found_nothing_leaves_the_folder_to_other_settings(tmp_path: Path):
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "short.mp4", at(24, 9))
    (tmp_path / "clips" / "short.txt").write_text("a cat")
    config = DataPreparation(tmp_path / "clips", buckets=("129x64x64",))
    with pytest.raises(ValueError, match="None of the 1 sources could be used"):
        prepare.prepare(config, tmp_path / "cache")
    prepare.prepare(replace(config, buckets=("5x64x64",)), tmp_path / "cache")
    assert len(LatentCache(tmp_path / "cache")) == 1


def test_a_disk_that_is_full_is_said_with_the_path_of_the_shard(tmp_path):
    with small_disk(1000), pytest.raises(OSError, match=r"Cannot write .*/shard-00000\.safetensors: file too large"):
        shards._write(tmp_path / "shard-00000.safetensors", {"0.latents": torch.zeros(10_000)}, "{}")
    assert not list(tmp_path.iterdir())
