"""The score is right for a perfect, a wrong and a half-wrong generator; the judge itself is faked or tiny here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hunyuan_video.apps import evaluate
from hunyuan_video.apps.evaluate import Report, Score, Words, contact_sheet, markdown_table, psnr, questions, vae_psnr, wilson
from hunyuan_video.training import world


def words_in(prompt: str) -> Words:
    """What a caption of the world asks for, found by writing out every caption's parts."""
    sentence = prompt.lower()
    subject = max((n, s) for s, nouns in world.NOUNS.items() for n in map(len, (noun for noun in nouns if noun in sentence)))[1]
    background = next(b for b, places in world.PLACES.items() if any(place in sentence for place in places))
    phrases = [(p.format(verb=v), m) for m, ps in world.PHRASES.items() for p in ps for v in (*world.VERBS[subject], "moves")]
    motion = max((len(phrase), motion) for phrase, motion in phrases if phrase in sentence)[1]
    return subject, motion, background


def write_in_pixels(words: Words) -> np.ndarray:
    """A fake video that carries its three words as numbers, for the fake judge to read."""
    kinds = (world.SUBJECTS, world.MOTIONS, world.BACKGROUNDS)
    return np.full((5, 64, 64, 3), [kind.index(word) for kind, word in zip(kinds, words, strict=True)], np.uint8)


def read_pixels(frames: np.ndarray) -> Words:
    subject, motion, background = frames[0, 0, 0]
    return world.SUBJECTS[subject], world.MOTIONS[motion], world.BACKGROUNDS[background]


def test_wilson_interval_agrees_with_published_numbers():
    assert wilson(192, 192) == pytest.approx((0.98038, 1.0), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    with pytest.raises(ValueError, match="no proportion"):
        wilson(3, 2)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_perfect_generator_scores_all(split: world.Split):
    report = evaluate.evaluate(lambda prompt, seed: write_in_pixels(words_in(prompt)), read_pixels, 60, split)
    assert report.all_three == Score(60, 60), report.mistakes
    assert report.mistakes == ()


def test_a_constant_generator_fails():
    report = evaluate.evaluate(lambda prompt, seed: write_in_pixels(("cat", "left", "grass")), read_pixels, 44, "held_out")
    assert report.all_three.right == 0
    assert 0 < report.subject.rate < 0.2
    assert len(report.mistakes) == 44


def test_questions_cover_every_held_out_combination_and_are_repeatable():
    asked = list(questions(44, "held_out"))
    assert {words for words, _, _ in asked} == set(world.combinations("held_out"))
    assert asked == list(questions(44, "held_out"))
    assert [prompt for _, prompt, _ in asked] != [prompt for _, prompt, _ in questions(44, "held_out", seed=1)]


def test_judge_learns_the_same_from_the_same_seed():
    first, second = (evaluate.train_judge(num_steps=2, batch_size=4) for _ in range(2))
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(tensor, second.state_dict()[name], rtol=0, atol=0)


def test_judge_reads_any_size_and_length_but_not_a_picture():
    judge = evaluate.as_judge(evaluate.JudgeNet().eval())
    assert judge(np.zeros((9, 32, 96, 3), np.uint8))[0] in world.SUBJECTS
    with pytest.raises(ValueError, match="at least 5"):
        judge(np.zeros((1, 64, 64, 3), np.uint8))


def test_an_untrained_judge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluate, "train_judge", lambda seed: evaluate.JudgeNet().eval())
    monkeypatch.setattr(evaluate, "examine", lambda judge: Score(417, 420))
    with pytest.raises(ValueError, match="delete the file"):
        evaluate.load_judge(tmp_path)


def test_psnr():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    assert psnr(frames, frames) == math.inf
    assert psnr(frames, frames + np.uint8(255)) == pytest.approx(0.0)
    mean, half_width = vae_psnr(lambda clip: np.where(clip > 127, clip - 10, clip + 10).astype(np.uint8), num_clips=2)
    assert mean == pytest.approx(20 * math.log10(255 / 10)) and half_width == pytest.approx(0)
    with pytest.raises(ValueError, match="one shape"):
        psnr(frames, frames[:1])


def test_contact_sheet_has_a_row_of_frames_for_each_prompt(tmp_path: Path):
    clip = world.render(world.sample_scene(0, "train"))
    contact_sheet([("one", clip), ("two", clip), ("three", clip)], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= 2 * 5 * 128
        assert sheet.height >= 2 * 128
        assert len(np.unique(np.asarray(sheet)[30:140])) > 50


def test_table_shows_rates_intervals_and_psnr():
    score = Score(95, 100)
    table = markdown_table([Report("held_out", score, score, score, score, ())], (27.34, 0.25), Score(420, 420))
    assert "| combinations never seen | 100 | 95.0 (88.8 to 97.8) |" in table
    assert "27.34 ± 0.25 dB" in table


def test_main_writes_table_json_and_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluate, "load_judge", lambda folder: (read_pixels, Score(420, 420)))
    monkeypatch.setattr(evaluate, "vae_psnr", lambda reconstruct, num_clips: (27.5, 0.1))
    table = evaluate.main(lambda prompt, seed: write_in_pixels(words_in(prompt)), lambda frames: frames, tmp_path, num_clips=4)
    assert (tmp_path / "evaluation.md").read_text() == table
    assert json.loads((tmp_path / "evaluation.json").read_text())["reports"][1]["all_three"] == {"right": 4, "total": 4}
    assert (tmp_path / "contact_sheet.png").exists()


def test_sheet_shows_every_subject_and_ends_with_unseen_combinations():
    shown = [words_in(prompt) for prompt in evaluate.SHEET_PROMPTS]
    assert {subject for subject, _, _ in shown} == set(world.SUBJECTS)
    assert [world.is_held_out(*words) for words in shown] == [False] * 10 + [True] * 2
