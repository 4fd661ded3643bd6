"""Which clips the VAE sees: cut from files at bounded strides, videos and images in the ratio that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hunyuan_video.training import vae_clips
from hunyuan_video.training.run import random_generator
from hunyuan_video.training.train_vae import VAETraining, clips_of
from hunyuan_video.training.vae_clips import MediaFiles
from hunyuan_video.video import save_video


def steps_of(clip: np.ndarray) -> list[int]:
    """How far apart the frames are, where frame number i is of brightness 4 i."""
    return (np.diff(clip[:, clip.shape[1] // 2, clip.shape[2] // 2, 0].astype(int)) / 4).round().astype(int).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of 49 frames, that get brighter from frame to frame and redder to the right; an image; and what is none."""
    folder = tmp_path_factory.mktemp("media")
    frames = np.zeros((49, 32, 48, 3), np.uint8) + 4 * np.arange(49, dtype=np.uint8)[:, None, None, None]
    for name in ("a.mp4", "b.mp4"):
        save_video(frames, folder / name, fps=24, crf=1)
    Image.fromarray(np.full((40, 32, 3), 200, np.uint8)).save(folder / "image.png")
    (folder / "notes.md").write_text("none")
    return folder


def test_files_are_cut_at_bounded_strides(folder: Path):
    source = MediaFiles(folder, num_frames=5, size=16, max_stride=3, num_held_out=1)
    clips = [source.video(random_generator(0, i)) for i in range(24)]
    assert {clip.shape for clip in clips} == {(5, 16, 16, 3)}
    assert {stride for clip in clips for stride in steps_of(clip)} == {1, 2, 3}
    assert all(len(set(steps_of(clip))) == 1 for clip in clips)
    assert len({int(clip[0, 8, 8, 0]) for clip in clips}) > 4  # they start in many places


def test_kept_files_are_never_trained_on(folder: Path):
    source = MediaFiles(folder, num_frames=5, size=16, max_stride=1, num_held_out=1)
    assert [item.name for item in source.kept] == ["a.mp4"] and [item.name for item in source.videos] == ["b.mp4"]
    assert source.held_out(0).shape == (5, 16, 16, 3)


def test_images_come_from_images_else_from_videos(folder: Path):
    source = MediaFiles(folder, num_frames=5, size=16, max_stride=1, num_held_out=1)
    image = source.image(random_generator(0))
    assert image.shape == (1, 16, 16, 3) and (image == 200).all()
    source.images.clear()
    assert source.image(random_generator(0)).shape == (1, 16, 16, 3)


def test_squares_are_cut_everywhere_along_the_longer_side(tmp_path: Path):
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (16, 64, 3))
    for name in ("a.png", "b.png"):
        Image.fromarray(ramp).save(tmp_path / name)
    source = MediaFiles(tmp_path, num_frames=1, size=16, max_stride=1, num_held_out=1)
    left = [int(source.image(random_generator(0, i))[0, 0, 0, 0]) for i in range(30)]
    assert min(left) < 54 + 6 and max(left) > 54 + 30  # 16:9, the widest that is cut from, is the middle 28 columns


def test_a_broken_file_is_passed_over(folder: Path, tmp_path: Path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "c.mp4").write_bytes((folder / "a.mp4").read_bytes()[:500])
    source = MediaFiles(tmp_path, num_frames=5, size=16, max_stride=1, num_held_out=1)
    assert all(source.video(random_generator(0, i)).shape == (5, 16, 16, 3) for i in range(8))


def test_what_cannot_be_trained_on_is_refused_in_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="has 2 videos or images, and 2 are to be kept"):
        MediaFiles(folder, num_frames=5, size=16, max_stride=1, num_held_out=2)
    monkeypatch.setattr(vae_clips, "TRIES", 3)
    with pytest.raises(ValueError, match=r"nothing that a clip can be cut from .*too short"):
        MediaFiles(folder, num_frames=101, size=16, max_stride=1, num_held_out=1).video(random_generator(0))


class Blank:
    """Clips of nothing."""

    def video(self, draw: torch.Generator) -> np.ndarray:
        return np.zeros((5, 8, 8, 3), np.uint8)

    def image(self, draw: torch.Generator) -> np.ndarray:
        return np.zeros((1, 8, 8, 3), np.uint8)

    def held_out(self, number: int) -> np.ndarray:
        return np.zeros((5, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.25, 1.0])
def test_images_are_exactly_their_share_of_the_steps(ratio: float):
    config = VAETraining(image_ratio=ratio, image_batch_size=3, batch_size=2)
    shapes = [tuple(clips_of(config, Blank(), step).shape[:2]) for step in range(200)]
    assert set(shapes) <= {(3, 1), (2, 5)}
    assert [shapes[:n].count((3, 1)) for n in (5, 20, 100, 200)] == [int(n * ratio) for n in (5, 20, 100, 200)]
