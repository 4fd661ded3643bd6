"""Footage is read on the grid that `data prepare` reads, from any position."""

from __future__ import annotations

import numpy as np
import pytest
from footage_files import film, moving
from media_files import LEVEL, at, numbers, write_video

from hunyuan_video.clips import read_clip
from hunyuan_video.curation.footage import Part, find, grey, shown, upright, view


def frames(path, *positions) -> np.ndarray:
    return np.stack([upright(frame) for frame in shown(path, *positions)])


@pytest.mark.parametrize("rate", [12, 24, 25, 30, 60])
def test_a_file_of_any_rate_shows_what_a_clip_of_it_does(tmp_path, rate):
    path = write_video(tmp_path / "a.mp4", at(rate, 40))
    assert numbers(frames(path)) == numbers(read_clip(path).pixels)


def test_a_variable_rate_is_respected(tmp_path):
    path = write_video(tmp_path / "a.mp4", [0.0, 0.1, 0.5, 0.51, 0.6])
    assert numbers(frames(path)) == numbers(read_clip(path).pixels)


def test_what_is_read_from_a_position_is_what_is_read_on_the_way_there(tmp_path):
    levels = np.tile(np.arange(0, 40), 4).astype(np.uint8) * LEVEL
    path = film(tmp_path / "a.mp4", np.broadcast_to(levels[:, None, None, None], (160, 48, 64, 3)).copy())
    whole = frames(path)
    assert len(whole) == 160
    for start in (0, 47, 49, 96, 150):
        assert np.array_equal(frames(path, start, start + 7), whole[start : start + 7])


def test_a_view_has_all_frames_small_and_some_as_they_are(tmp_path):
    path = film(tmp_path / "a.mp4", moving(1, 20, height=48, width=400))
    seen = view(Part(path, 3, 9), num_large=3)
    assert seen.frames.shape == (9, 38, 320, 3) and seen.large.shape == (3, 48, 400, 3)


def test_motion_vectors_tell_how_fast_a_picture_moves(tmp_path):
    paths = [film(tmp_path / f"{speed}.mp4", moving(1, 24, speed)) for speed in (0, 1, 4)]
    still, slow, fast = (view(Part(path, 0, 24), num_large=0).vectors for path in paths)
    assert still is not None and slow is not None and fast is not None
    assert still < 0.002 and slow > 0.2 and fast > 2 * slow


def test_a_file_that_has_become_shorter_is_refused(tmp_path):
    path = film(tmp_path / "a.mp4", moving(1, 12))
    with pytest.raises(ValueError, match="ends at 12, before 15; it has changed"):
        view(Part(path, 6, 9), num_large=0)


def test_each_content_is_found_once_whatever_its_name(tmp_path):
    (tmp_path / "in").mkdir()
    one = film(tmp_path / "in" / "b.mp4", moving(1, 5))
    (tmp_path / "in" / "a.mp4").write_bytes(one.read_bytes())
    film(tmp_path / "in" / "c.mkv.mp4", moving(2, 5))
    (tmp_path / "in" / "notes.txt").write_text("no video")
    assert [footage.name for footage in find([tmp_path / "in"])] == ["in/a.mp4", "in/c.mkv.mp4"]


def test_a_copy_stands_with_its_original(tmp_path):
    one, two = (film(tmp_path / name, moving(1, 9)) for name in ("a.mp4", "b.mp4"))
    two.write_bytes(one.read_bytes())
    (found,) = find([tmp_path])
    assert (found.path, found.same) == (one, (two,))


def test_two_videos_of_one_name_are_refused(tmp_path):
    for place in ("a/in", "b/in"):
        (tmp_path / place).mkdir(parents=True)
        film(tmp_path / place / "c.mp4", moving(1, 5))
    with pytest.raises(ValueError, match=r"would both be in/c\.mp4; give the folder above"):
        find([tmp_path / "a" / "in", tmp_path / "b" / "in"])


def test_sources_without_videos_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone does not exist"):
        find([tmp_path / "gone"])
    with pytest.raises(ValueError, match=r"no \.mp4 .* is there"):
        find([tmp_path])


def test_grey_is_brightness():
    assert grey(np.array([[[255, 255, 255], [0, 0, 0], [0, 255, 0]]], np.uint8)).tolist() == [[255, 0, 149]]
