"""Videos and images on disk: what is found, which frames are taken, how they are fitted, and what is refused."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA
from media_files import LEVEL, at, numbers, turn, write_video
from PIL import ExifTags, Image, ImageCms, ImageOps

from hunyuan_video import clips as module
from hunyuan_video.pictures import fill, read_image
from hunyuan_video.training import media
from hunyuan_video.training.dataset import Bucket
from hunyuan_video.video import save_video

FIELD = DATA / "field"
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
        ("a.mp4", "words".encode("utf-16-le"), "caption is not text"),
        ("a.mp4", b"a cat\0walks", "caption is not text"),
        ("a.mp4", b"\xff\xfea", "caption is not UTF-8"),
        ("a.wmv", b"words", "unknown kind of file"),
    ],
)
def test_what_is_wrong_with_a_source_is_its_problem_not_an_error(tmp_path, name, caption, problem):
    (tmp_path / name).touch()
    if caption is not None:
        (tmp_path / "a.txt").write_bytes(caption)
    (item,) = media.find_items(tmp_path)
    assert item.problem == refusal_of(item) == problem


def test_a_caption_of_fields_is_one_in_a_list_and_in_a_text_file(tmp_path):
    fields = {"short": "A dog.", "style": "Old."}
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.txt").write_text(json.dumps(fields))
    (tmp_path / "a.jsonl").write_text(json.dumps({"file": "a.mp4", "caption": fields}) + "\n")
    for source in (tmp_path, tmp_path / "a.jsonl"):
        (item,) = media.find_items(source)
        assert item.problem == "" and json.loads(item.caption) == fields
    (tmp_path / "a.txt").write_text('{"title": "A dog."}')
    assert media.find_items(tmp_path)[0].problem == "caption of other fields"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_captions_and_lists_with_a_mark_are_read_as_it_says(tmp_path, encoding):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.txt").write_text("狗, a dog\n", encoding=encoding)
    (tmp_path / "a.jsonl").write_text('{"file": "a.mp4", "caption": "狗, a dog"}\n', encoding=encoding)
    for source in (tmp_path, tmp_path / "a.jsonl"):
        assert [(item.name, item.caption, item.problem) for item in media.find_items(source)] == [("a.mp4", "狗, a dog", "")]


def test_a_folder_from_the_field_gives_one_sample_a_name_or_a_reason():
    found = {item.name: (item.caption, item.problem) for item in media.find_items(FIELD / "captions")}
    assert found == {
        "clip.mp4": ("a cat", ""),
        "frames_dir": ("a clip as frames", ""),
        "nul.mp4": ("a cat\0walks", "caption is not text"),
        "upper.mp4": ("a cat", ""),
        "utf16le.mp4": ("a\0 \0c\0a\0t\0 \0w\0a\0l\0k\0s\0", "caption is not text"),
    }


@pytest.mark.parametrize(
    ("name", "second"),
    [("surrogate.jsonl", ("nul.mp4", "caption is not text")), ("surrogate_file.jsonl", ("no\\ud83dsuch.mp4", "missing file"))],
)
def test_half_a_character_in_a_list_costs_its_row_alone(name, second):
    first, other = media.find_items(FIELD / "captions" / name)
    assert (first.caption, first.problem) == ("a cat", "") and (other.name, other.problem) == second
    other.name.encode()  # so that it can be printed and stored


def test_of_several_with_one_caption_one_is_taken(tmp_path):
    for name in ("a.mp4", "a.jpg", "a.json", "b.png", "b.json", "c.png", "c.jpg", "d.wmv", "d.json"):
        (tmp_path / name).touch()
        (tmp_path / name).with_suffix(".txt").write_text("words")
    found = [(item.name, item.problem) for item in media.find_items(tmp_path)]
    assert found == [
        *(("a.mp4", ""), ("b.png", "")),
        *(("c.jpg", ""), ("c.png", "another of the same name")),
        *(("d.json", "unknown kind of file"), ("d.wmv", "unknown kind of file")),
    ]


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
    look = module._look_at_video
    monkeypatch.setattr(module, "_look_at_video", lambda *arguments: looked_at.append(look(*arguments)) or looked_at[-1])
    clips(path, VIDEO)
    assert len(looked_at[0][0]) < 20


def test_a_short_video_goes_into_a_shorter_bucket_or_is_too_short(tmp_path):
    assert [len(clip) for clip in clips(write_video(tmp_path / "a.mp4", at(24, 16)))] == [5]
    assert refusal(write_video(tmp_path / "b.mp4", at(24, 4))) == "too short"
    assert refusal(write_video(tmp_path / "c.mp4", at(24, 1))) == "too short"


def test_a_video_that_is_too_short_is_told_what_it_needs(tmp_path):
    sentence = r"too short \(it has 4 frames at 24 fps, 0.17 seconds; the shortest size, 5x16x16, needs 5 frames at 24 fps, 0.21 seconds\)"
    with pytest.raises(media.UnusableError, match=sentence):
        clips(write_video(tmp_path / "a.mp4", at(24, 4)), LONG, VIDEO, IMAGE)


def test_a_video_never_becomes_an_image_nor_an_image_a_video(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    assert refusal(tmp_path / "a.png", VIDEO) == "no bucket for images"
    assert refusal(write_video(tmp_path / "a.mp4", at(24, 9)), IMAGE) == "no bucket for videos"


# ---------------------------------------------------------------------------------------------------- frames and animations


def pictures(num_frames: int, size: tuple[int, int] = (64, 48)) -> list[Image.Image]:
    return [Image.new("RGB", size, (LEVEL * number,) * 3) for number in range(num_frames)]


def frame_folder(path: Path, found: list[Image.Image], first: int = 0) -> Path:
    path.mkdir()
    for number, picture in enumerate(found):
        picture.save(path / f"{first + number}.png")  # of which 10 sorts before 9 as text
    path.with_name(f"{path.name}.txt").write_text("a clip")
    return path


def test_a_folder_of_frames_with_one_caption_is_a_clip_in_the_order_of_its_numbers(tmp_path):
    path = frame_folder(tmp_path / "clip.v2", pictures(12), first=5)
    (item,) = media.find_items(tmp_path)
    assert (item.path, item.name, item.caption) == (path, "clip.v2", "a clip")
    assert [numbers(clip) for clip in clips(path, VIDEO, max_clips=2)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_frames_that_say_their_rate_are_taken_at_it(tmp_path):
    frames = np.stack([np.asarray(picture) for picture in pictures(12)])
    save_video(frames, tmp_path / "a.png", fps=48)
    assert [numbers(clip) for clip in clips(tmp_path / "a", VIDEO)] == [[0, 2, 4, 6, 8]]


def test_pictures_with_captions_of_their_own_are_no_clip(tmp_path):
    frame_folder(tmp_path / "photos", pictures(2))
    (tmp_path / "photos" / "0.txt").write_text("the first")
    found = [(item.name, item.problem) for item in media.find_items(tmp_path)]
    assert found == [("photos/0.png", ""), ("photos/1.png", "no caption")]


def test_a_row_of_a_list_may_name_a_folder_of_frames(tmp_path):
    frame_folder(tmp_path / "clip", pictures(5))
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("file,caption\nclip,x\nempty,x\n")
    clip, empty = media.find_items(tmp_path / "a.csv")
    assert (clip.problem, refusal_of(empty)) == ("", "no frames")


def test_frames_of_two_sizes_are_no_clip(tmp_path):
    assert refusal(frame_folder(tmp_path / "a", pictures(4) + pictures(4, size=(32, 32)))) == "frames of different sizes"


def test_what_a_folder_of_frames_holds_is_in_its_size(tmp_path):
    path = frame_folder(tmp_path / "a", pictures(2))
    item = media.Item(path, "a", "x")
    before = item.content
    (path / "1.png").write_bytes(b"another")
    assert item.content != before


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_an_animated_picture_is_a_clip_by_the_times_it_says(tmp_path, suffix):
    first, *others = pictures(10)
    lengths = [100, 100, 200, *[100] * 7]
    options = {"lossless": True} if suffix == ".webp" else {}
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=others, duration=lengths, loop=0, **options)
    assert [numbers(clip) for clip in clips(tmp_path / f"a{suffix}", VIDEO, fps=10.0, max_clips=2)] == [[0, 1, 2, 2, 3], [4, 5, 6, 7, 8]]


def test_what_is_transparent_in_an_animation_is_white(tmp_path):
    found = [Image.new("RGBA", (32, 32), (0, 0, 0, 0)) for _ in range(5)]
    for number, picture in enumerate(found):
        picture.paste((0, 0, 0, 255), (0, 0, 4 + number, 32))
    found[0].save(tmp_path / "a.png", save_all=True, append_images=found[1:], duration=100)
    (clip,) = clips(tmp_path / "a.png", Bucket(5, 32, 32), fps=10.0)
    assert all(frame[:, : 4 + number].max() == 0 and frame[:, 4 + number :].min() == 255 for number, frame in enumerate(clip))


def test_the_substitute_of_an_animation_is_not_in_it(tmp_path):
    substitute, *frames = pictures(6)
    substitute.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True, duration=100)
    assert [numbers(clip) for clip in clips(tmp_path / "a.png", VIDEO, fps=10.0)] == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize("name", ["anim.webp", "anim.png"])
def test_animations_from_the_field_are_clips(name):
    (clip,) = clips(FIELD / "media" / name, Bucket(9, 128, 128))
    assert len({frame.tobytes() for frame in clip}) > 1
    assert refusal(FIELD / "media" / name, IMAGE) == "no bucket for videos"


def test_a_still_picture_of_a_kind_that_can_move_is_an_image(tmp_path):
    for suffix in (".gif", ".webp", ".png"):
        pictures(8)[7].save(tmp_path / f"a{suffix}", quality=100)
        assert [numbers(clip) for clip in clips(tmp_path / f"a{suffix}")] == [[7]]


def test_two_pictures_of_one_scene_in_a_jpeg_are_an_image(tmp_path):
    first, second = pictures(2)
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert [numbers(clip) for clip in clips(tmp_path / "a.jpg")] == [[0]]


def test_the_video_behind_a_cover_is_the_clip():
    (clip,) = clips(FIELD / "media" / "twostreams.mkv", Bucket(33, 128, 128))
    assert len({frame.tobytes() for frame in clip}) > 1


# ---------------------------------------------------------------------------------------------------- colours of pictures


def shown(picture: Image.Image) -> list[int]:
    middle = picture.getpixel((picture.width // 2, picture.height // 2))
    assert isinstance(middle, tuple)
    return [int(level) for level in middle]


def test_a_grey_picture_of_16_bits_keeps_its_levels(tmp_path):
    Image.fromarray(np.full((16, 16), 180 * 257, np.uint16)).save(tmp_path / "a.png")
    assert shown(read_image(tmp_path / "a.png")) == [180, 180, 180]


@pytest.mark.parametrize(("kind", "levels", "expected"), [(2, (200, 100, 30), [200, 100, 30]), (6, (200, 100, 30, 0), [255, 255, 255])])
def test_a_coloured_picture_of_16_bits_keeps_its_colours(tmp_path, kind, levels, expected):
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    pixels = 16 * (b"\0" + 16 * struct.pack(f">{len(levels)}H", *(257 * level for level in levels)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 16, kind, 0, 0, 0))
    data = header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert shown(read_image(tmp_path / "a.png")) == expected


def test_the_transparent_level_of_16_bits_becomes_white(tmp_path):
    levels = np.full((16, 16), 180 * 257, np.uint16)
    levels[:8] = 1000
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=1000)
    picture = np.asarray(read_image(tmp_path / "a.png"))
    assert (picture[:8] == 255).all() and (picture[8:] == 180).all()


def test_a_colour_profile_counts(tmp_path):
    picture = Image.new("RGB", (16, 16), (200, 100, 30))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))  # of no use for RGB: passed over
    picture.save(tmp_path / "wrong.png", icc_profile=profile.tobytes())
    assert shown(read_image(tmp_path / "wrong.png")) == [200, 100, 30]
    picture.save(tmp_path / "damaged.png", icc_profile=b"no profile at all")
    assert shown(read_image(tmp_path / "damaged.png")) == [200, 100, 30]
    picture.save(tmp_path / "swapped.png", icc_profile=swapped_srgb())
    assert np.abs(np.subtract(shown(read_image(tmp_path / "swapped.png")), [30, 100, 200])).max() <= 1


def swapped_srgb() -> bytes:
    """sRGB's profile, in which red and blue have changed places and whose name is another."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    names = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(profile[128:132]), 12)}
    red, blue = names[b"rXYZ"], names[b"bXYZ"]
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile.replace("sRGB".encode("utf-16-be"), "gRBs".encode("utf-16-be")))


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
