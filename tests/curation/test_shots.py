"""Cuts are found to the frame, and fades and dissolves with all of their frames."""

from __future__ import annotations

import inspect
import random

import curation_footage
import numpy as np
import torch
from footage_files import moving

from hunyuan_video.curation.footage import small
from hunyuan_video.curation.shots import Transitions, _network, predictions, runs, shots_between, watch

ONLY_CUTS = Transitions(learned=None)


def test_a_cut_begins_a_shot_and_frames_of_a_transition_are_in_none():
    between = np.zeros(30, bool)
    between[12:15] = True
    assert shots_between([5, 20], between) == [(0, 5), (5, 12), (15, 20), (20, 30)]
    assert shots_between([13, 15], between) == [(0, 12), (15, 30)]
    assert shots_between([], np.ones(4, bool)) == []


def test_runs_are_where_values_in_a_row_are_true():
    assert list(runs(np.array([True, False, True, True]))) == [(0, 1), (2, 4)]


def test_a_cut_is_found_to_the_frame():
    frames = np.concatenate([moving(1, 20), moving(2, 25), moving(3, 15)])
    assert watch(frames, ONLY_CUTS).shots == [(0, 20), (20, 45), (45, 60)]


def test_a_fast_pan_is_no_cut():
    assert watch(moving(4, 40, speed=6), ONLY_CUTS).shots == [(0, 40)]


def test_black_frames_belong_to_no_shot():
    black = np.zeros((6, 96, 128, 3), np.uint8)
    assert watch(np.concatenate([moving(1, 20), black, moving(2, 20)]), ONLY_CUTS).shots == [(0, 20), (26, 46)]


def test_a_dissolve_that_a_threshold_misses_is_seen_by_the_network():
    film = curation_footage.joined(
        "a.mp4", [curation_footage.Shot(1, "pan-left"), curation_footage.Shot(2, "pan-right", joined="dissolve")], height=144, width=256
    )
    frames = [small(frame) for frame in film.frames[30:110]]
    assert watch(frames, ONLY_CUTS).shots == [(0, 80)]
    (start, end), (begin, stop) = watch(frames, Transitions()).shots
    assert (start, stop) == (0, 80)
    assert abs(end - (film.spans[0][1] - 30)) <= 2 and abs(begin - (film.spans[1][0] - 30)) <= 2


def test_the_network_leaves_the_process_as_it_was():
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.get_num_threads()
    inspect.unwrap(_network)()  # loads it anew
    predictions(np.zeros((100, 27, 48, 3), np.uint8))
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.get_num_threads())
    assert not torch.are_deterministic_algorithms_enabled()
