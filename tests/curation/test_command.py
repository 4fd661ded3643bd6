"""From footage to lists that `data prepare` reads: the same ones, whatever happens on the way."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import curation_footage as footage
import numpy as np
import pytest
from footage_files import QUICK, film, moving, quick
from onnx_files import linear, mean_colour

from hunyuan_video.clips import read_clip
from hunyuan_video.curation import looking
from hunyuan_video.curation.command import Curation, curate
from hunyuan_video.curation.crop import Box
from hunyuan_video.curation.extras import opencv
from hunyuan_video.curation.footage import grey
from hunyuan_video.curation.ledger import Ledger, Record
from hunyuan_video.curation.networks import Networks
from hunyuan_video.curation.workers import Here, Processes
from hunyuan_video.training import media
from hunyuan_video.training.dataset import Bucket

DRAW = np.random.default_rng(0)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Six shots in two films, and a copy of the first one."""
    folder = tmp_path_factory.mktemp("films")
    first = moving(1, 24, speed=2)
    film(folder / "a.mp4", first, footage.dark(moving(2, 12), DRAW), moving(3, 12, speed=0), moving(4, 6))
    film(folder / "b.mp4", footage.letterboxed(moving(5, 16, speed=2), DRAW), footage.letterboxed(moving(6, 20, speed=2), DRAW))
    film(folder / "c.mp4", np.stack([opencv().resize(frame, (96, 72), interpolation=3) for frame in first]), crf=20)
    (folder / "a.txt").write_text("Squares move.")
    (folder / "b.json").write_text(json.dumps({"short": "Squares.", "dense": "Squares move to the left."}))
    return folder


@pytest.fixture(scope="module")
def curated(films, tmp_path_factory) -> Path:
    """What an undisturbed curation makes of it."""
    out = tmp_path_factory.mktemp("curated")
    curate(Curation([films], quick(out)), out / "out", Here())
    return out / "out"


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "clips.jsonl").read_text(encoding="utf-8").splitlines()]


def tree(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name[0] != "."}


def test_a_package_that_thresholds_need_is_asked_for_before_anything_is_watched(films, tmp_path, monkeypatch):
    thresholds = quick(tmp_path)
    (tier, *others) = thresholds.tiers
    thresholds = replace(thresholds, tiers=(replace(tier, most={**tier.most, "unsafe": 0.5}), *others))
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(ImportError, match=r"needs nudenet, .*hunyuan-video\[curate-unsafe\]"):
        curate(Curation([films], thresholds), tmp_path / "out", Here())
    assert not (tmp_path / "out" / "ledger" / "files.jsonl").exists()


def test_a_disk_that_fails_is_no_verdict_on_a_film(films, tmp_path, monkeypatch):
    def failing(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(looking, "sha256", failing)
        with pytest.raises(OSError, match="Input/output error"):
            curate(Curation([films / "b.mp4"], quick(tmp_path)), tmp_path / "out", Here())
    curate(Curation([films / "b.mp4"], quick(tmp_path)), tmp_path / "out", Here())
    assert "problem" not in (tmp_path / "out" / "ledger" / "files.jsonl").read_text(encoding="utf-8")


def test_each_clip_is_kept_or_falls_for_its_fault(curated):
    fate = [(row["file"].partition("/")[2], row["num_frames"], row["removed"]["low"], row["removed"]["high"]) for row in rows(curated)]
    assert fate == [
        ("a.mp4", 17, None, None),
        ("a.mp4", 9, "dark", "too short"),
        ("a.mp4", 9, "static", "too short"),
        ("b.mp4", 13, None, "too short"),
        ("b.mp4", 17, None, "too small"),  # without its bars
        ("c.mp4", 17, "duplicate", "duplicate"),
    ]
    assert rows(curated)[5]["duplicate_of"] == rows(curated)[0]["id"]


def test_a_clip_has_its_lineage_and_the_frames_that_it_says(films, curated):
    row = rows(curated)[4]
    path = curated / "clips" / f"{row['id']}.mp4"
    made, whole = read_clip(path).pixels, read_clip(films / "b.mp4").pixels
    left, top, right, bottom = row["scores"]["crop"]
    bar = footage.bar_of(96)
    assert (left, round(top * 96), right, round(bottom * 96)) == (0, bar, 1, 96 - bar)
    expected = whole[row["start"] : row["start"] + 17, bar : 96 - bar]
    assert made.shape == expected.shape and np.abs(grey(made).astype(int) - grey(expected)).mean() < 3
    assert row["seconds"][0] == pytest.approx(row["start"] / 24, abs=1e-5) and len(row["sha256"]) == 64
    assert row["clip"]["height"] == 96 - 2 * bar and row["tools"]["opencv-python-headless"]


def test_a_list_is_what_data_prepare_takes(curated):
    items = media.find_items(curated / "low.jsonl")
    assert [item.problem for item in items] == ["", "", ""]
    assert items[0].caption == "Squares move." and json.loads(items[1].caption)["dense"] == "Squares move to the left."
    buckets = [Bucket(9, 64, 96), Bucket(17, 64, 96)]
    assert [cut.bucket.num_frames for item in items for cut in media.plan(item, buckets, 24.0, 1)] == [17, 9, 17]


def test_the_report_is_a_funnel_with_pictures(curated):
    text = (curated / "report.md").read_text(encoding="utf-8")
    assert "| clips | 6 | 6 |" in text and "| − duplicate | 1 | 1 |" in text and "| **kept** | 3 | 1 |" in text
    assert "6 shots" not in text and "7 shots, of which 1 are too short" in text
    assert all((curated / name).stat().st_size > 1000 for name in ("pictures/Kept_for_low.jpg", "pictures/Removed_dark.jpg"))


class KilledError(BaseException):
    """As a process ends that is killed: whatever was to come does not."""


def test_killed_after_any_line_it_goes_on_to_the_same(films, curated, tmp_path, monkeypatch):
    """A line's half is `test_ledger`'s, real processes are killed in tests/apps/test_curate.py."""
    keep, out, kills = Ledger.keep, tmp_path / "out", 0

    def killed(ledger: Ledger, found: Iterable[Record]) -> Iterator[Record]:
        for record in keep(ledger, found):
            yield record
            raise KilledError

    monkeypatch.setattr(Ledger, "keep", killed)
    while True:
        try:
            curate(Curation([films], quick(tmp_path)), out, Here())
            break
        except KilledError:
            kills += 1
    assert kills == sum(path.read_bytes().count(b"\n") for path in (curated / "ledger").iterdir()) == 3 + 6 + 5 + 3
    assert tree(out) == tree(curated)


def test_two_processes_make_the_same_bytes_as_one(films, curated, tmp_path):
    with Processes(2) as workers:
        curate(Curation([films], quick(tmp_path)), tmp_path / "out", workers)
    assert tree(tmp_path / "out") == tree(curated)


def test_other_thresholds_measure_only_what_is_new_to_measure(films, curated, tmp_path):
    out = shutil.copytree(curated, tmp_path / "out")
    dark_is_fine = QUICK.replace("dark = 0.7", "dark = 1.0")
    curate(Curation([films], quick(tmp_path, dark_is_fine)), out, Here())
    before, after = ((folder / "ledger" / "scores.jsonl").read_bytes() for folder in (curated, out))
    assert after.startswith(before) and after.count(b"\n") == before.count(b"\n") + 1
    assert rows(out)[1]["removed"]["low"] is None
    assert (out / "ledger" / "files.jsonl").read_bytes() == (curated / "ledger" / "files.jsonl").read_bytes()


def test_a_filter_that_is_new_is_measured_and_what_follows_from_it_again(films, curated, tmp_path, monkeypatch):
    out = shutil.copytree(curated, tmp_path / "out")
    monkeypatch.setattr("hunyuan_video.curation.text.texts", lambda large: [[Box(0.2, 0.85, 0.8, 0.95)]] * len(large))
    curate(Curation([films], quick(tmp_path, QUICK.replace("dark = 0.7", "dark = 0.7, text = 0.0"))), out, Here())
    before, after = rows(curated)[0], rows(out)[0]
    assert after["scores"]["crop"] == [0.0, 0.0, 1.0, 0.85] and after["clip"]["height"] == 80 < before["clip"]["height"]
    assert after["removed"] == {"low": None, "high": "too small"}


def test_text_that_stands_still_counts_once(films, curated, tmp_path, monkeypatch):
    """As the share of the picture that it takes in a frame, inside the title zones or not."""
    out = shutil.copytree(curated, tmp_path / "out")
    monkeypatch.setattr("hunyuan_video.curation.text.texts", lambda large: [[Box(0.3, 0.4, 0.5, 0.6)]] * len(large))
    curate(Curation([films], quick(tmp_path, QUICK.replace("dark = 0.7", "dark = 0.7, text = 0.9"))), out, Here())
    scores = rows(out)[0]["scores"]
    assert scores["text"] == scores["text_area"] == pytest.approx(0.04)


def test_a_limit_for_beauty_needs_a_judge(films, tmp_path):
    with pytest.raises(ValueError, match="give --embedder and --aesthetic"):
        curate(Curation([films], quick(tmp_path, QUICK.replace("dark", "aesthetic"))), tmp_path / "out", Here())


def test_what_would_be_cut_otherwise_is_refused(films, curated, tmp_path):
    with pytest.raises(ValueError, match="made with other lengths"):
        curate(Curation([films], quick(tmp_path, QUICK.replace("look = 4", "look = 5"))), curated, Here())


def test_more_footage_is_added_and_a_damaged_file_is_named(films, curated, tmp_path):
    out, more = shutil.copytree(curated, tmp_path / "out"), tmp_path / "more"
    more.mkdir()
    film(more / "d.mp4", moving(9, 12))
    (more / "e.mp4").write_bytes((films / "a.mp4").read_bytes()[:3000])
    text = curate(Curation([films, more], quick(tmp_path)), out, Here())
    assert "| more/e.mp4 (the end is missing) | 0.0 | 0 | 0 | 0 |" in text
    assert len(rows(out)) == 7 and rows(out)[6]["removed"]["low"] == "no caption"
    assert rows(out)[:6] == rows(curated)


def test_a_users_networks_find_copies_and_judge(films, tmp_path):
    networks = Networks(mean_colour(tmp_path / "see.onnx"), linear(tmp_path / "head.onnx", np.array([[1.0], [1.0], [1.0]])))
    text = QUICK.replace("dark = 0.7", "aesthetic = -9.0")
    out = tmp_path / "out"
    curate(Curation([films], quick(tmp_path, text), networks), out, Here())
    assert {row["removed"]["low"] for row in rows(out)} == {"duplicate", "too beautiful"}
    assert "aesthetic" in rows(out)[0]["scores"]
