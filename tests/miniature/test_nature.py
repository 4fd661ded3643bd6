"""Clips by rule have the statistics of photographs, follow from their seeds, and move."""

from __future__ import annotations

import numpy as np
import pytest

from hunyuan_video.miniature import nature

CLIPS = {seed: nature.render(seed, 64, 9) for seed in range(6)}


def test_clips_follow_from_their_seeds():
    assert np.array_equal(nature.render(3, 64, 9), CLIPS[3]) and not np.array_equal(CLIPS[3], CLIPS[4])
    assert CLIPS[3].shape == (9, 64, 64, 3) and CLIPS[3].dtype == np.uint8


def test_an_image_is_the_first_frame_of_a_clip():
    assert np.array_equal(nature.render(3, 64, 1), CLIPS[3][:1])


def test_power_falls_with_the_square_of_frequency_as_in_photographs():
    """Between the widest and the finest, of all clips together; by 1.6 to 2.8."""
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    window = np.hanning(64)[:, None] * np.hanning(64)
    power = np.mean([np.abs(np.fft.fft2((clip[0].mean(axis=2) - clip[0].mean()) * window)) ** 2 for clip in CLIPS.values()], axis=0)
    bands = [(0.05, 0.08), (0.08, 0.13), (0.13, 0.21), (0.21, 0.33)]
    means = [power[(frequency >= low) & (frequency < high)].mean() for low, high in bands]
    slope = np.polyfit([np.log(np.sqrt(low * high)) for low, high in bands], np.log(means), 1)[0]
    assert -2.8 < slope < -1.6


def test_most_clips_move():
    moved = [np.abs(clip[-1].astype(int) - clip[0]).mean() for clip in CLIPS.values()]
    assert sum(each > 1 for each in moved) >= 4


def test_after_a_cut_there_is_another_scene(monkeypatch: pytest.MonkeyPatch):
    whole, cut = (monkeypatch.setattr(nature, "CUTS", share) or nature.render(2, 32, 33) for share in (0.0, 1.0))
    differs = [not np.array_equal(*frames) for frames in zip(whole, cut, strict=True)]
    assert not differs[0] and differs[-1] and differs == sorted(differs)


def test_cuts_are_where_a_short_clip_has_them_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nature, "CUTS", 1.0)
    for seed in range(4):
        assert np.array_equal(nature.render(seed, 16, 17), nature.render(seed, 16, 33)[:17])
        steps = np.abs(np.diff(nature.render(seed, 16, 33).astype(int), axis=0)).mean(axis=(1, 2, 3))
        assert steps[:16].max() > 5 and steps[16:].max() > 5
