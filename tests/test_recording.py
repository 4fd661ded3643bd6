"""Frames that are encoded as they come."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hunyuan_video import recording
from hunyuan_video.recording import Recording
from hunyuan_video.video import save_recording, save_video


def clip(frames: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.cumsum(rng.integers(0, 3, (frames, 32, 48, 3)), axis=0).astype(np.uint8)


def content(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".png"])
def test_pieces_make_the_same_bytes_as_the_whole(tmp_path, suffix):
    frames = clip(13)
    whole = save_video(frames, tmp_path / f"whole{suffix}", metadata={"a": 1})
    with Recording(suffix) as pieces:
        for start, end in ((0, 1), (1, 1), (1, 9), (9, 13)):
            pieces.add(frames[start:end])
        assert content(save_recording(pieces, tmp_path / f"pieces{suffix}", metadata={"a": 1})) == content(whole)


def test_encoding_begins_before_the_last_frames_are_there(tmp_path, monkeypatch):
    begun, encode = threading.Event(), recording._Encoder.encode
    monkeypatch.setattr(recording._Encoder, "encode", lambda self, picture: (encode(self, picture), begun.set()))
    with Recording(".mp4") as made:
        made.add(clip(4))
        assert begun.wait(30)
        made.add(clip(4))
        assert save_recording(made, tmp_path / "a.mp4").stat().st_size > 0


def test_whoever_leaves_waits_for_one_frame_only(monkeypatch):
    seen, one, go = [], threading.Event(), threading.Event()
    monkeypatch.setattr(recording._Encoder, "encode", lambda self, picture: (seen.append(1), one.set(), go.wait(30)))
    made = Recording(".mp4")
    made.add(clip(50))
    assert one.wait(30)
    leaving = threading.Thread(target=made.__exit__)
    leaving.start()
    while not made._done[-1].cancelled():
        time.sleep(0.01)
    go.set()
    leaving.join()
    assert len(seen) == 1


def test_frames_of_another_size_are_refused():
    with Recording(".gif") as made:
        made.add(clip(2))
        with pytest.raises(ValueError, match="32x48, but those before were 48x32"):
            made.add(clip(2).transpose(0, 2, 1, 3))


def test_what_fails_while_encoding_fails_when_it_is_written(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(recording._Encoder, "encode", fail)
    with Recording(".mp4") as made:
        made.add(clip(2))
        with pytest.raises(RuntimeError, match="bug"):
            save_recording(made, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_the_encoders_threads_end_with_the_recording(tmp_path):
    """And not when Python next looks for circles, which in a server may be a hundred threads later."""

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    gc.disable()
    try:
        before = threads()
        with Recording(".mp4") as recording:
            recording.add(np.zeros((5, 32, 32, 3), np.uint8))
            recording.write(tmp_path / "clip.mp4", None)
            assert threads() > before
        assert threads() == before
    finally:
        gc.enable()
