"""Videos and images on disk: what is found, which frames are taken, how they are fitted, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media_files import at, numbers, turn, write_video
from PIL import ExifTags, Image, ImageOps

from hunyuan_video.pictures import fill
from hunyuan_video.training import media
from hunyuan_video.training.dataset import Bucket
from hunyuan_video.video import save_video

VIDEO, LONG, IMAGE = Bucket(5, 16, 16), Bucket(17, 16, 16), Bucket(1, 16, 16)


def clips(path: Path, *buckets: Bucket, fps: float = 24.0, max_clips: int = 1) -> list[np.ndarray]:
    item = media.Item(path, path.name, "words")
    return list(media.read_clips(item, media.plan(item, buckets or (IMAGE, VIDEO, LONG), fps, max_clips)))


def refusal(path: Path, *buckets: Bucket) -> str:
    with pytest.raises(media.UnusableError) as caught:
        clips(path, *buckets)
    return caught.value.reason


# ---------------------------------------------------------------------------------------------------- what is found


def test_a_folder_gives_its_captioned_media_sorted_with_subfolders(tmp_path):
    for name in ("b.mp4", "a/z.PNG", "a/c.jpg", "a.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        (tmp_path / name).with_suffix(".txt").write_text(f" about {name}\n", encoding="utf-8-sig")
    for name in ("notes.txt", "table.xlsx", ".b.mp4"):
        (tmp_path / name).touch()
    found = [(item.name, item.caption, item.problem) for item in media.find_items(tmp_path)]
    assert found == [(name, f"about {name}", "") for name in ("a.webm", "a/c.jpg", "a/z.PNG", "b.mp4")]


@pytest.mark.parametrize(
    ("name", "caption", "problem"),
    [
        ("a.mp4", None, "no caption"),
        ("a.mp4", b" \n", "no caption"),
        ("a.mp4", "é".encode("latin-1"), "caption is not UTF-8"),
        ("a.mp4", b"x" * 20_000, "caption too long"),
        ("a.wmv", b"words", "unknown kind of file"),
    ],
)
def test_what_is_wrong_with_a_source_is_its_problem_not_an_error(tmp_path, name, caption, problem):
    (tmp_path / name).touch()
    if caption is not None:
        (tmp_path / "a.txt").write_bytes(caption)
    (item,) = media.find_items(tmp_path)
    assert item.problem == refusal_of(item) == problem


def refusal_of(item: media.Item) -> str:
    with pytest.raises(media.UnusableError) as caught:
        media.plan(item, [VIDEO], 24.0, 1)
    return caught.value.reason


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.jsonl", '{"file": "sub/a.mp4", "caption": "狗, a dog", "more": 1}\n\n{"file": "gone.mp4", "caption": "x"}\n'),
        ("list.csv", '\ufefffile,more,caption\nsub/a.mp4,1,"狗, a dog"\ngone.mp4,,x\n'),
    ],
)
def test_a_list_gives_its_rows_in_order_relative_to_itself(tmp_path, name, text):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.mp4").touch()
    (tmp_path / name).write_text(text, encoding="utf-8")
    first, second = media.find_items(tmp_path / name)
    assert first == media.Item(tmp_path / "sub" / "a.mp4", "sub/a.mp4", "狗, a dog")
    assert (second.name, second.problem) == ("gone.mp4", "missing file")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.jsonl", '{"file": "a.mp4", "caption": "x"}\n{"file": "a.mp4"}\n', "line 2: a row needs"),
        ("a.jsonl", '{"file": "a.mp4", "caption": 3}\n', "line 1: a row needs"),
        ("a.jsonl", "\n[]\n", "line 2: a row needs"),
        ("a.jsonl", "{file: a.mp4}\n", "line 1: this is not JSON"),
        ("a.csv", "path,text\na.mp4,x\n", "line 1: the first line must"),
        ("a.csv", "file,caption\na.mp4,x\nb.mp4,red, green\n", "line 3: a row needs"),
        ("a.csv", "file,caption\na.mp4\n", "line 2: a row needs"),
        ("a.csv", 'file,caption\na.mp4,"x\n', "line 2: this is not CSV"),
        ("a.csv", "file,caption\n", "holds no .mp4"),
        ("a.csv", b"file,caption\na.mp4,\xe9\n", "not a text file in UTF-8"),
        ("a.xml", "", "no folder, .jsonl or .csv"),
    ],
)
def test_a_wrong_list_is_refused_naming_the_line(tmp_path, name, text, sentence):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=sentence):
        media.find_items(tmp_path / name)


def test_a_source_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        media.find_items(tmp_path / "gone")


# ---------------------------------------------------------------------------------------------------- which frames


@pytest.mark.parametrize(
    ("times", "fps", "expected"),
    [
        (at(24, 9), 24.0, [0, 1, 2, 3, 4]),
        (at(24, 12), 12.0, [0, 2, 4, 6, 8]),
        (at(12, 5), 24.0, [0, 0, 1, 1, 2]),
        (at(30, 12), 24.0, [0, 1, 2, 3, 5]),
        ([0, 0.3, 0.35, 0.4, 1.0, 1.1], 10.0, [0, 0, 0, 1, 3]),
        ([5 + time for time in at(24, 9)], 24.0, [0, 1, 2, 3, 4]),
    ],
    ids=["same", "every other", "repeated", "30 to 24", "variable", "late start"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_each_moment_shows_the_last_frame_at_or_before_it(tmp_path, times, fps, expected, suffix):
    (clip,) = clips(write_video(tmp_path / f"a{suffix}", times), VIDEO, fps=fps)
    assert numbers(clip) == expected


def test_millisecond_stamps_lose_no_frame(tmp_path):
    (clip,) = clips(write_video(tmp_path / "a.mkv", at(24, 34)), Bucket(33, 16, 16))
    assert numbers(clip) == list(range(33))


def test_h264_in_avi_whose_frames_come_without_usable_times_is_read_in_order(tmp_path):
    (clip,) = clips(write_video(tmp_path / "a.avi", at(24, 12), per_second=24), VIDEO)
    assert numbers(clip) == [0, 1, 2, 3, 4]


def test_a_long_video_gives_its_start_or_consecutive_clips(tmp_path):
    path = write_video(tmp_path / "a.mp4", at(24, 29))
    assert [numbers(clip) for clip in clips(path)] == [list(range(17))]
    assert [numbers(clip) for clip in clips(path, max_clips=2)] == [list(range(17)), list(range(17, 22))]
    assert [len(clip) for clip in clips(path, max_clips=9)] == [17, 5, 5]


def test_of_a_long_video_only_the_start_is_looked_at(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", at(2, 40))
    looked_at = []
    look = media._look_at_video
    monkeypatch.setattr(media, "_look_at_video", lambda *arguments: looked_at.append(look(*arguments)) or looked_at[-1])
    clips(path, VIDEO)
    assert len(looked_at[0][0]) < 20


def test_a_short_video_goes_into_a_shorter_bucket_or_is_too_short(tmp_path):
    assert [len(clip) for clip in clips(write_video(tmp_path / "a.mp4", at(24, 16)))] == [5]
    assert refusal(write_video(tmp_path / "b.mp4", at(24, 4))) == "too short"
    assert refusal(write_video(tmp_path / "c.mp4", at(24, 1))) == "too short"


def test_a_video_never_becomes_an_image_nor_an_image_a_video(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    assert refusal(tmp_path / "a.png", VIDEO) == "no bucket for images"
    assert refusal(write_video(tmp_path / "a.mp4", at(24, 9)), IMAGE) == "no bucket for videos"


# ---------------------------------------------------------------------------------------------------- how they are fitted


def test_the_middle_is_cropped_and_nothing_is_squeezed():
    picture = np.zeros((32, 96, 3), np.uint8)
    picture[:, 32:64] = 255
    assert fill(Image.fromarray(picture), 16, 16).min() > 230
    assert fill(Image.fromarray(picture).transpose(Image.Transpose.ROTATE_90), 16, 16).min() > 230


def test_small_pictures_are_enlarged_and_large_ones_antialiased():
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    fitted = fill(Image.fromarray(checkers).convert("RGB"), 16, 16)
    assert np.abs(fitted.astype(int) - 127).max() < 12
    assert fill(Image.new("RGB", (5, 7), "red"), 32, 48).shape == (32, 48, 3)


def test_a_video_is_turned_as_its_header_says(tmp_path):
    picture = Image.new("RGB", (64, 32), "black")
    picture.paste("white", (0, 0, 32, 32))
    path = save_video(np.stack([np.asarray(picture)] * 5), tmp_path / "a.mp4")
    turn(path)
    (clip,) = clips(path, Bucket(5, 32, 16), Bucket(5, 16, 32))
    assert clip.shape == (5, 32, 16, 3)
    assert clip[:, :15].min() > 200 and clip[:, 17:].max() < 50  # what was left is on top


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_says(tmp_path, orientation):
    picture = Image.effect_noise((32, 48), 90).resize((64, 32)).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    (clip,) = clips(tmp_path / "a.png", Bucket(1, 64, 32), Bucket(1, 32, 64))
    np.testing.assert_array_equal(clip[0], expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path, mode):
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 32, 16))
    if mode == "P":
        picture = Image.new("P", (32, 32), 1)
        picture.putpalette([0, 0, 0, 9, 9, 9])
        picture.paste(0, (0, 0, 32, 16))
        picture.save(tmp_path / "a.png", transparency=1)
    else:
        picture.convert(mode).save(tmp_path / "a.png")
    (clip,) = clips(tmp_path / "a.png")
    assert clip[:, 10:].min() > 240 and clip[:, :6].max() < 15


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_cut_video_is_unreadable(tmp_path):
    path = write_video(tmp_path / "a.mp4", at(24, 9))
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(path) == "unreadable"


def test_a_video_that_ends_before_its_headers_say_is_unreadable(tmp_path):
    item = media.Item(write_video(tmp_path / "a.mp4", at(24, 9)), "a.mp4", "words")
    with pytest.raises(media.UnusableError, match="frames are missing"):
        list(media.read_clips(item, [media.Cut(VIDEO, [0, 1, 2, 3, 99])]))


def test_a_video_of_no_frames_is_refused(tmp_path):
    assert refusal(write_video(tmp_path / "a.avi", [])) == "no frames"
    assert refusal(write_video(tmp_path / "a.mp4", [])) == "unreadable"  # an MP4 has then not even a track


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.png", "a.jpg"])
def test_other_bytes_under_a_known_name_are_unreadable(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>404</html>" * 20)
    assert refusal(tmp_path / name) == "unreadable"


def test_a_cut_image_is_unreadable(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-400])
    assert refusal(tmp_path / "a.jpg") == "unreadable"


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.new("1", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)
    assert refusal(tmp_path / "a.png") == "unreadable"
