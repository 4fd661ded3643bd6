"""The score is right for a perfect, a wrong and a half-wrong generator; the judge itself is faked or tiny here."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hunyuan_video.apps import evaluate
from hunyuan_video.apps.evaluate import Report, Score, Words, contact_sheet, markdown_table, psnr, questions, vae_psnr, wilson, words_of
from hunyuan_video.training import drawing, world
from hunyuan_video.training.world import SLOTS


def scenes(group: evaluate.Group, num_clips: int) -> dict[tuple[str, int], world.Scene]:
    return {(scene.caption, scene.seed): scene for scene in questions(num_clips, group)}


def write_in_pixels(words: Words) -> np.ndarray:
    """A fake video that carries its words as numbers, for the fake judge to read."""
    numbers = [SLOTS[slot].index(word) for slot, word in words.items()] + [0, 0]
    return np.broadcast_to(np.array(numbers, np.uint8).reshape(1, 1, 3, 3), (5, 64, 3, 3)).copy()


def read_pixels(frames: np.ndarray) -> Words:
    return {slot: values[number] for (slot, values), number in zip(SLOTS.items(), frames[0, 0].flat, strict=False)}


def test_wilson_interval_agrees_with_published_numbers():
    assert wilson(192, 192) == pytest.approx((0.98038, 1.0), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    with pytest.raises(ValueError, match="no proportion"):
        wilson(3, 2)


@pytest.mark.parametrize("group", ["train", "held_out", "pair"])
def test_a_perfect_generator_scores_all(group: evaluate.Group):
    asked = scenes(group, 60)
    report = evaluate.evaluate(lambda prompt, seed: write_in_pixels(words_of(asked[prompt, seed])), read_pixels, 60, group)
    assert report.everything == Score(60, 60)
    assert all(score.right == score.total for score in report.scores.values())
    assert report.mistakes == ()


def test_both_subjects_of_a_pair_must_be_right():
    asked = scenes("pair", 20)
    report = evaluate.evaluate(
        lambda prompt, seed: write_in_pixels(words_of(asked[prompt, seed]) | {"second": None}), read_pixels, 20, "pair"
    )
    assert report.scores["subject"] == Score(0, 20) and report.everything == Score(0, 20)
    assert report.scores["motion"] == Score(20, 20)


def test_size_and_colour_count_only_where_they_were_asked_for():
    asked = scenes("held_out", 80)
    report = evaluate.evaluate(lambda prompt, seed: write_in_pixels(words_of(asked[prompt, seed])), read_pixels, 80, "held_out")
    assert report.scores["size"].total == sum(scene.size != "normal" for scene in asked.values())
    assert report.scores["colour"].total == sum(scene.colour is not None for scene in asked.values()) > 0


def test_a_constant_generator_fails():
    constant = words_of(world.Scene("cat", "left", "grass", "", 0))
    report = evaluate.evaluate(lambda prompt, seed: write_in_pixels(constant), read_pixels, 350, "held_out")
    assert report.everything.right == 0
    assert 0 < report.scores["subject"].rate < 0.1
    assert len(report.mistakes) == 350


def test_questions_cover_every_held_out_combination_and_are_repeatable():
    every = set(world.combinations("held_out"))
    asked = list(questions(len(every), "held_out"))
    assert {(scene.subject, scene.motion, scene.background) for scene in asked} == every
    assert asked == list(questions(len(every), "held_out"))
    assert [scene.caption for scene in asked] != [scene.caption for scene in questions(len(every), "held_out", seed=1)]


def test_prompts_of_the_exam_are_built_as_no_training_caption_is():
    captions = [world.sample_scene(seed, "train").caption.lower() for seed in range(400)]
    for template in (*world.UNSEEN_TEMPLATES, *world.UNSEEN_CAMERA_TEMPLATES):
        built = re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(template)))
        assert built.match(template) and not any(built.match(caption) for caption in captions)


def test_judge_learns_the_same_from_the_same_seed():
    first, second = (evaluate.train_judge(num_steps=2, batch_size=4) for _ in range(2))
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(tensor, second.state_dict()[name], rtol=0, atol=0)


def test_judge_reads_any_size_and_length_but_not_a_picture():
    judge = evaluate.as_judge(evaluate.JudgeNet().eval())
    assert judge(np.zeros((9, 32, 96, 3), np.uint8)).keys() == SLOTS.keys()
    with pytest.raises(ValueError, match="at least 5"):
        judge(np.zeros((1, 64, 64, 3), np.uint8))


def test_an_untrained_judge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluate, "train_judge", lambda seed: evaluate.JudgeNet().eval())
    monkeypatch.setattr(evaluate, "examine", lambda judge: Score(590, 600))
    with pytest.raises(ValueError, match="delete the file"):
        evaluate.load_judge(tmp_path)


def test_psnr():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    assert psnr(frames, frames) == math.inf
    assert psnr(frames, frames + np.uint8(255)) == pytest.approx(0.0)
    mean, half_width = vae_psnr(lambda clip: np.where(clip > 127, clip - 10, clip + 10).astype(np.uint8), 2, 5, 64, 64)
    assert mean == pytest.approx(20 * math.log10(255 / 10)) and half_width == pytest.approx(0)
    with pytest.raises(ValueError, match="one shape"):
        psnr(frames, frames[:1])


def test_contact_sheet_has_a_row_of_frames_for_each_prompt(tmp_path: Path):
    clip = drawing.render(world.sample_scene(0, "train"))
    contact_sheet([("one", clip), ("two", clip), ("three", clip)], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= 2 * 5 * 128
        assert sheet.height >= 2 * 128
        assert len(np.unique(np.asarray(sheet)[30:140])) > 50


def test_table_shows_rates_intervals_and_psnr():
    score = Score(95, 100)
    table = markdown_table([Report("held_out", {"subject": score}, score, ())], (27.34, 0.25), Score(420, 420))
    assert "| combinations and sentences never seen | 100 | 95.0 (88.8 to 97.8) |" in table
    assert "27.34 ± 0.25 dB" in table


def test_main_writes_table_json_and_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluate, "load_judge", lambda folder: (read_pixels, Score(420, 420)))
    asked = scenes("train", 4) | scenes("held_out", 4) | scenes("pair", 4)
    cat = world.Scene("cat", "left", "grass", "", 0)
    table = evaluate.main(
        lambda prompt, seed: write_in_pixels(words_of(asked.get((prompt, seed), cat))), lambda frames: frames // 2, (5, 64, 64), tmp_path, 4
    )
    assert (tmp_path / "evaluation.md").read_text() == table
    assert json.loads((tmp_path / "evaluation.json").read_text())["reports"][1]["everything"] == {"right": 4, "total": 4}
    assert (tmp_path / "contact_sheet.png").exists()


def test_main_refuses_no_clips_before_it_trains_a_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluate, "load_judge", lambda folder: pytest.fail("a judge was asked for"))
    with pytest.raises(ValueError, match="num_clips is 0; it must be at least 1"):
        evaluate.main(lambda prompt, seed: np.zeros((5, 64, 64, 3), np.uint8), lambda frames: frames, (5, 64, 64), tmp_path, 0)


def test_sheet_begins_with_the_first_prompt_of_the_readme():
    assert evaluate.SHEET_PROMPTS[0] == "A cat walks on the grass, realistic style."
