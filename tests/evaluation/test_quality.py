"""Rows of faster ways beside the exact one: made in turns, kept, gone on with, and put into a table that no broken clip does well in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hunyuan_video import HunyuanVideo
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.evaluation import quality
from hunyuan_video.evaluation.computed import Computed
from hunyuan_video.evaluation.quality import Case, Made, Row, Way, compare, read, row_of, table, write

SMALL = FullSampling(height=32, width=32, num_frames=5, num_steps=3, seed=1)


@pytest.fixture(scope="module")
def pipes(official_tree) -> tuple[HunyuanVideo, HunyuanVideo]:
    return HunyuanVideo.load(official_tree), HunyuanVideo.load(official_tree, Runtime(pipefusion_patches=2))


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    shape = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    return shape.repeat(4, axis=1).repeat(4, axis=2)


def made(frames: np.ndarray, passes: float = 1.0, seconds: float = 1.0) -> Made:
    return Made(frames, Computed(passes, 1e9 * passes, 10.0, 10.0), seconds, 2 * seconds)


def row(frames: np.ndarray, exact: np.ndarray, case: Case) -> Row:
    return row_of("--speed fast", "a model", case, made(frames, 2.0, 1.1), made(exact, 4.0, 2.0))


def test_a_row_says_what_was_computed_and_how_near_it_is(pipes):
    exact, patches = pipes
    (found,) = compare(exact, {"patches": Way(patches)}, [Case("A cat.", SMALL)])
    assert found.passes == found.exact_passes == pytest.approx(3) and found.operations == pytest.approx(found.exact_operations)
    assert found.psnr is not None and 0 < found.ssim < 1 and found.reading is None
    assert 0 < found.denoise_seconds < found.seconds and 0 < found.exact_denoise_seconds < found.exact_seconds


def test_the_exact_way_beside_itself_is_identical(pipes):
    exact, _ = pipes
    (found,) = compare(exact, {"itself": Way(exact)}, [Case("A cat.", SMALL)])
    assert found.psnr is None and found.ssim == pytest.approx(1) and found.soundness == 1


def test_what_is_known_is_not_made_again(pipes, monkeypatch, clip):
    prompts = []
    monkeypatch.setattr(quality, "make", lambda pipe, prompt, sampling: (prompts.append((prompt, sampling.seed)), made(clip))[1])
    cases = [Case("A cat.", replace(SMALL, seed=seed)) for seed in (1, 2)]
    first = list(compare(pipes[0], {"a": Way(pipes[1])}, cases[:1]))
    assert [found.seed for found in compare(pipes[0], {"a": Way(pipes[1])}, cases, first)] == [2]
    assert prompts == [("A cat.", 1)] * 3 + [("A cat.", 2)] * 3  # of which the first of each process only warms up


def test_seeds_are_rows_of_one_table_that_says_dtype_and_solver(pipes):
    of = quality.what_of(pipes[0], SMALL)
    assert of == quality.what_of(pipes[0], replace(SMALL, seed=2)) and "5x32x32, 3 steps of euler, float32, cpu" in of


@pytest.mark.parametrize(
    "other",
    [{"num_frames": 9}, {"solver": "unipc"}, {"shift": 5.0}, {"schedule": "linear-quadratic"}, {"cfg_scale": 2.0}, {"guidance": 4.0}],
)
def test_rows_of_other_samplings_are_other_rows(pipes, other):
    assert quality.what_of(pipes[0], SMALL) != quality.what_of(pipes[0], replace(SMALL, **other))


@pytest.mark.parametrize("other", [{"vae_dtype": "bfloat16"}, {"vae_tiling": False}, {"offload": "models"}])
def test_rows_beside_another_exact_way_are_other_rows(pipes, monkeypatch, other):
    of = quality.what_of(pipes[0], SMALL)
    monkeypatch.setattr(pipes[0], "runtime", Runtime(**other))
    assert quality.what_of(pipes[0], SMALL) != of


def test_rows_of_another_version_are_other_rows(pipes, monkeypatch):
    of = quality.what_of(pipes[0], SMALL)
    monkeypatch.setattr(quality, "__version__", "0.0")
    assert quality.what_of(pipes[0], SMALL) != of


def test_rows_are_kept(tmp_path, clip):
    rows = [row(clip, clip[::-1].copy(), Case(prompt, SMALL, lambda frames: {"subject": True})) for prompt in ("A cat.", "一只猫")]
    write(tmp_path / "new" / "rows.jsonl", rows)
    assert read(tmp_path / "new" / "rows.jsonl") == rows and read(tmp_path / "none.jsonl") == []


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "A cat."}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl holds no rows of this version"):
        read(tmp_path / "rows.jsonl")


def test_the_table_has_means_and_the_median_speed(clip):
    near = (clip // 8 * 8).astype(np.uint8)
    reading = Case("A cat.", SMALL, lambda frames: {"subject": bool((frames == clip).all()), "motion": True})
    lines = table([row(near, clip, reading), row(clip, clip, reading)]).splitlines()
    assert lines[0].split(" | ")[-4:] == ["SSIM", "subject", "motion", "broken |"]
    assert "| `--speed fast` | 2 | 2.0 of 4 | 100% | 50% | **1.82×** (91% of what is saved) | 1.82× |" in lines[2]
    assert "| 1 (2) of 2 | 2 (2) of 2 | 0 |" in lines[2]


def test_what_cannot_be_compared_has_a_table_of_its_own(clip):
    rows = [replace(row(clip, clip, Case("A cat.", SMALL)), of=of) for of in ("large", "small", "large")]
    large, small = quality.tables(rows).split("\n\nsmall:\n\n")
    assert large == f"large:\n\n{table(rows[::2])}" and small == table(rows[1:2])


def test_a_broken_clip_does_well_in_no_column(clip):
    """However near its pixels are, and whatever is read in it."""
    reading = Case("A cat.", SMALL, lambda frames: {"subject": True})
    line = table([row(np.zeros_like(clip), clip, reading), row(clip, clip, reading)]).splitlines()[2]
    assert line.endswith("| – | – | 1 (2) of 2 | **1** |")
