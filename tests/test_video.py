"""Video files: what goes in comes out, the same bytes every time, and never half a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import read_video
from PIL import GifImagePlugin, Image
from safetensors.torch import save_file
from small_disk import small_disk

from hunyuan_video import files, video
from hunyuan_video.pictures import read_image

NASTY = {
    "prompt": "猫 in the 雨 🐈‍⬛ \"quoted\" 'too' \\ back\r\nnew\tline \x00\x07 </script> \u2028 \ud800",
    "long": "a cat walks on the grass; " * 400 + "长" * 3000,
    "settings": {"seed": 2**63 - 1, "guidance": 6.0, "negative": None, "offload": True, "sizes": [720, 1280]},
}
SUFFIXES = [".mp4", ".webm", ".gif", ".png"]


def moving(num_frames: int = 9, height: int = 128, width: int = 192) -> np.ndarray:
    """A smooth pattern in motion, of more colours than a GIF has."""
    y, x = np.mgrid[0:height, 0:width]
    red = [127 + 90 * np.sin(x / 37 + t / 9) for t in range(num_frames)]
    green = [127 + 60 * np.sin(x / 37 + t / 9 + 1) + 20 * np.cos(y / 43 - t / 17) for t in range(num_frames)]
    blue = [100 + 60 * np.sin((x + y) / 53 + t / 19) for t in range(num_frames)]
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


# ---------------------------------------------------------------------------------------------------- frames and tensors


def test_every_level_survives_the_way_to_a_tensor_and_back():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    x = video.to_tensor(frames)
    assert (x.dtype, x.shape, x.min(), x.max()) == (torch.float32, (3, 1, 16, 16), -1, 1)
    np.testing.assert_array_equal(video.to_frames(x), frames)


def test_to_frames_rounds_and_clips():
    x = torch.tensor([-9.0, -1.0, 127.4 / 127.5 - 1, 127.6 / 127.5 - 1, 1.0, 9.0]).reshape(1, 1, 2, 3).repeat(3, 1, 1, 1)
    assert video.to_frames(x)[0, :, :, 0].tolist() == [[0, 0, 127], [128, 255, 255]]


def test_to_frames_refuses_nan():
    with pytest.raises(ValueError, match="NaN"):
        video.to_frames(torch.full((3, 1, 2, 2), float("nan")))


# ---------------------------------------------------------------------------------------------------- without PyAV


def test_all_but_video_files_works_without_pyav(tmp_path: Path):
    code = """
import sys
sys.modules["av"] = None  # as if it were not installed
import numpy as np
import hunyuan_video.pipeline, hunyuan_video.plan, hunyuan_video.training.media, hunyuan_video.training.train
from hunyuan_video.pictures import read_picture
from hunyuan_video.video import save_video
frames = np.zeros((2, 16, 16, 3), np.uint8)
assert (read_picture(save_video(frames, "clip.png").with_suffix("") / "00001.png").pixels == frames[1]).all()
save_video(frames, "clip.mp4")
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.stderr.endswith("ImportError: Video files are read and written by PyAV, which is not installed: pip install av\n")


# ---------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize(("suffix", "least"), [(".mp4", 44), (".webm", 44), (".gif", 32)])
@pytest.mark.parametrize("num_frames", [1, 9])
def test_video_round_trip(tmp_path, suffix, least, num_frames):
    frames = moving(num_frames)
    read, fps = read_video(video.save_video(frames, tmp_path / f"a{suffix}"))
    assert read.shape == frames.shape
    assert psnr(read, frames) > least
    # A GIF counts hundredths of a second: one frame lasts 0.04, nine last 0.38.
    assert fps == pytest.approx({(".gif", 1): 25, (".gif", 9): 9 / 0.38}.get((suffix, num_frames), 24))


@pytest.mark.parametrize(("num_frames", "name"), [(1, "a.png"), (3, "a")])
def test_png_is_lossless_at_any_size_and_keeps_fps(tmp_path, num_frames, name):
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, 13, 7, 3), dtype=np.uint8)
    path = video.save_video(frames, tmp_path / "a.png", fps=12.5, metadata={"a": 1})
    read, fps = read_video(path)
    assert (path.name, fps, video.read_metadata(path)) == (name, 12.5, {"a": 1})
    np.testing.assert_array_equal(read, frames)


def test_crf_trades_quality_for_size(tmp_path):
    frames = moving()
    for suffix in (".mp4", ".webm"):
        fine, coarse = (video.save_video(frames, tmp_path / f"{crf}{suffix}", crf=crf) for crf in (5, 45))
        assert fine.stat().st_size > coarse.stat().st_size
        assert psnr(read_video(fine)[0], frames) > psnr(read_video(coarse)[0], frames)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h264"), (".webm", "av1")])
def test_every_player_can_play_it(tmp_path, suffix, codec):
    path = video.save_video(moving(), tmp_path / f"a{suffix}")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.codec.canonical_name, context.pix_fmt, context.width, context.height, stream.average_rate) == (
            codec,
            "yuv420p",
            192,
            128,
            24,
        )
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)  # BT.709, limited
        assert sum(1 for _ in container.decode(stream)) == 9
    if suffix == ".mp4":
        content = path.read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")  # plays before it is loaded


@pytest.mark.parametrize(("given", "stored"), [(24, 24), (23.976, 24000 / 1001), (12.5, 12.5), (60, 60)])
def test_frame_rates(tmp_path, given, stored):
    for suffix in (".mp4", ".webm"):
        assert read_video(video.save_video(moving(5, 64, 64), tmp_path / f"a{suffix}", fps=given))[1] == pytest.approx(stored, rel=1e-5)


def test_gif_lasts_as_long_as_the_video_though_it_counts_hundredths(tmp_path):
    path = video.save_video(moving(25, 32, 32), tmp_path / "a.gif", fps=24)
    with Image.open(path) as image:
        delays = []
        for index in range(image.n_frames):
            image.seek(index)
            delays.append(image.info["duration"])
    assert set(delays) == {40, 50}
    assert sum(delays) == 1040  # 25 / 24 s


def test_gif_keeps_frames_that_equal_the_one_before(tmp_path):
    frames = moving(1, 32, 32).repeat(4, axis=0)
    assert read_video(video.save_video(frames, tmp_path / "a.gif"))[0].shape == frames.shape


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_frames_give_the_same_bytes(tmp_path, suffix):
    # Wide and long enough for x264's uninitialized reads to show, of which each round would make another file.
    frames = moving(24) if suffix != ".png" else moving(1)
    paths = [video.save_video(frames, tmp_path / f"{index}{suffix}", metadata=NASTY) for index in range(4)]
    assert len({path.read_bytes() for path in paths}) == 1


def test_torch_frames_and_any_strides_are_welcome(tmp_path):
    frames = moving(4, 32, 48)
    straight = video.save_video(frames, tmp_path / "a.mp4").read_bytes()
    assert video.save_video(torch.from_numpy(frames), tmp_path / "b.mp4").read_bytes() == straight
    assert video.save_video(frames[::-1].copy()[::-1], tmp_path / "c.MP4").read_bytes() == straight


# ---------------------------------------------------------------------------------------------------- metadata


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("num_frames", [1, 3])
def test_metadata_round_trip(tmp_path, suffix, num_frames):
    path = video.save_video(moving(num_frames, 32, 48), tmp_path / f"a{suffix}", metadata=NASTY)
    assert video.read_metadata(path) == NASTY


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_metadata_means_none_in_the_file(tmp_path, suffix):
    path = video.save_video(moving(1, 32, 48), tmp_path / f"a{suffix}")
    assert video.MARK.encode() not in path.read_bytes()
    with pytest.raises(ValueError, match="has no metadata of hunyuan-video"):
        video.read_metadata(path)


@pytest.mark.parametrize("comment", ["made by hand", '{"prompt": "another tool\'s"}', "[1]", "[" * 100_000])
def test_comments_of_other_programs_are_not_taken_for_ours(tmp_path, comment):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif", comment=comment)
    with pytest.raises(ValueError, match="has no metadata of hunyuan-video"):
        video.read_metadata(tmp_path / "a.gif")


# ---------------------------------------------------------------------------------------------------- latents


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_latents_round_trip(tmp_path, dtype):
    latents = torch.randn(1, 16, 3, 4, 5).to(dtype)
    paths = [video.save_latents(latents.transpose(3, 4), tmp_path / f"{index}.safetensors", NASTY) for index in range(3)]
    read, metadata = video.load_latents(paths[0])
    assert torch.equal(read, latents.transpose(3, 4))
    assert read.dtype == dtype
    assert metadata == video.read_metadata(paths[0]) == NASTY
    assert len({path.read_bytes() for path in paths}) == 1
    assert video.load_latents(video.save_latents(latents, paths[0]))[1] == {}


def test_latents_with_one_changed_bit_are_refused(tmp_path):
    path = video.save_latents(torch.randn(1, 4, 2, 3, 4), tmp_path / "a.safetensors")
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="bytes have changed"):
        video.load_latents(path)


def test_latents_that_are_not_finite_or_no_latents_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for tensor in (torch.full((1, 4, 2, 3, 4), float("inf")), torch.zeros(1, 2), torch.zeros(1, 4, 2, 3, 4, dtype=torch.int64)):
        save_file({"latents": tensor}, path)
        with pytest.raises(ValueError, match="instead of finite floats"):
            video.load_latents(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="cannot be read"):
        video.load_latents(path)
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="header is longer"):
        video.load_latents(path)


# ---------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".png", ".safetensors"])
def test_cut_files_are_refused_in_a_sentence(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".safetensors":
        video.save_latents(torch.randn(1, 4, 2, 3, 4), path, {"a": 1})
    else:
        video.save_video(moving(1 if suffix == ".png" else 9, 64, 64), path, metadata={"a": 1})
    content = path.read_bytes()
    for kept in (0, 1, 8, 40, len(content) // 2, len(content) * 9 // 10, len(content) - 40):
        path.write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"cannot be read \(.*\): it is cut short"):
            {".safetensors": video.load_latents, ".png": read_image}.get(suffix, video.read_metadata)(path)


@pytest.mark.parametrize(
    "content",
    [
        b"just text\n" * 50,
        b"ffconcat version 1.0\nfile secret.mp4\n",  # FFmpeg would open the file that it names
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    ],
)
def test_what_is_no_video_is_refused(tmp_path, content):
    video.save_video(moving(2, 32, 32), tmp_path / "secret.mp4", metadata={"a": 1})
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        video.read_metadata(tmp_path / "a.mp4")


def test_text_of_other_programs_that_is_no_utf8_does_not_matter(tmp_path):
    path = video.save_video(moving(2, 32, 32), tmp_path / "a.mp4", metadata={"a": "latin"})
    path.write_bytes(path.read_bytes().replace(b"latin", b"\xe4\xf6\xfc\xdf\xe9"))
    assert video.read_metadata(path) == {"a": "\udce4\udcf6\udcfc\udcdf\udce9"}


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="there is no video in it"):
        video.read_metadata(tmp_path / "a.mp4")


def test_what_does_not_exist_is_named(tmp_path):
    for read in (read_image, video.read_metadata, video.load_latents):
        with pytest.raises(FileNotFoundError, match=r"nothing\.mp4 does not exist"):
            read(tmp_path / "nothing.mp4")


def test_a_name_like_a_protocol_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video.save_video(moving(2, 32, 32), "12:30.mp4", metadata={"a": 1})
    assert video.read_metadata("12:30.mp4") == {"a": 1}


# ---------------------------------------------------------------------------------------------------- never half a file


class FailingContainer:
    """A real container that fails when it is nearly done."""

    def __init__(self, container, folder: Path, error: BaseException):
        self.container, self.folder, self.error, self.calls = container, folder, error, 0

    def __getattr__(self, name):
        return getattr(self.container, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.container.close()

    def mux(self, packets):
        self.container.mux(packets)
        self.calls += 1
        if self.calls == 9:  # the last packet
            assert list(self.folder.glob(".*.tmp"))  # there is something to clean up
            raise self.error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("bug"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_save_leaves_the_folder_as_it_was(tmp_path, monkeypatch, suffix, error):
    target = tmp_path / f"a{suffix}"
    target.write_bytes(b"the old file")
    really_open, calls = av.open, iter(range(100))

    def fail_late(*_, **__):
        if next(calls) == 5:
            raise error
        return []

    monkeypatch.setattr(av, "open", lambda *args, **options: FailingContainer(really_open(*args, **options), tmp_path, error))
    monkeypatch.setattr(GifImagePlugin, "getdata", fail_late)
    monkeypatch.setattr(Image.Image, "save", lambda image, path, **_: (path.write_bytes(b"half"), fail_late()))
    with pytest.raises(type(error)):
        video.save_video(moving(9, 32, 32), target)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"the old file"


def test_folders_are_not_opened_where_a_system_cannot(tmp_path, monkeypatch):
    file, opened, really = tmp_path / "a", [], os.open
    file.touch()
    with monkeypatch.context() as windows:
        windows.setattr(os, "name", "nt")
        windows.setattr(os, "open", lambda path, *flags: opened.append(path) or really(path, *flags))
        files.flush(tmp_path)
        files.flush(file)
    assert opened == [file]


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "refused")

    monkeypatch.setattr(os, "replace", refuse)
    frames, latents = moving(2, 32, 32), torch.zeros(1, 1, 1, 1, 1)
    for save in (
        lambda: video.save_video(frames, tmp_path / "a.png"),
        lambda: video.save_latents(latents, tmp_path / "a.safetensors"),
    ):
        with pytest.raises(PermissionError):
            save()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_in_a_sentence(tmp_path, monkeypatch):
    error = av.error.OSError(28, "No space left on device", "a.mp4")
    really_open = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: FailingContainer(really_open(*args, **options), tmp_path, error))
    with pytest.raises(OSError, match=r"Cannot write .*a\.mp4: No space left on device; is the disk full\?"):
        video.save_video(moving(9, 32, 32), tmp_path / "a.mp4")


def test_saving_replaces_an_older_file_with_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "a.mp4").write_bytes(b"old")
    path = video.save_video(moving(2, 32, 32), tmp_path / "a.mp4")
    assert len(read_video(path)[0]) == 2
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


# ---------------------------------------------------------------------------------------------------- wrong requests


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("a.avi", {}, r"ends in none of \.mp4, \.webm, \.gif, \.png.*such as .*a\.mp4"),
        ("results/", {}, r"ends in none of .*such as .*results/video\.mp4"),
        ("a.mp4", {"crf": 52}, "crf is 52; it must be 0"),
        ("a.gif", {"crf": 5}, "crf is 5; .* left out for other formats"),
        ("a.mp4", {"fps": 0}, "fps is 0; it must be 1 to 240"),
        ("a.mp4", {"fps": float("nan")}, "fps is nan"),
        ("a.gif", {"fps": 60}, "at most 50 in a GIF"),
        ("a.mp4", {"metadata": {"a": float("nan")}}, "not JSON compliant"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(tmp_path, name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        video.save_video(moving(1, 32, 32), f"{tmp_path}/{name}", **options)
    assert not list(tmp_path.iterdir())


def test_wrong_frames_are_refused(tmp_path):
    frames = moving(2, 32, 32)
    for wrong in (frames[0], frames.astype(np.float32), frames[..., :2], frames[:0]):
        with pytest.raises((ValueError, TypeError), match=r"T.*H.*W.*3"):  # TypeError if jaxtyping checks the run
            video.save_video(wrong, tmp_path / "a.mp4")
    for size in ((33, 32), (32, 31), (8, 32)):
        with pytest.raises(ValueError, match="needs even sizes"):
            video.save_video(np.zeros((1, *size, 3), np.uint8), tmp_path / "a.mp4")


def test_check_writable_makes_the_folder_and_nothing_else(tmp_path):
    path = files.check_writable(tmp_path / "new" / "deep" / "a.mp4")
    assert path.parent.is_dir()
    assert not list(path.parent.iterdir())
    assert files.check_writable(tmp_path / "state.safetensors").name == "state.safetensors"


def test_check_writable_says_what_is_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "frames").mkdir()
    with pytest.raises(NotADirectoryError, match=r"file is a file, not a folder; choose another folder\."):
        files.check_writable(tmp_path / "file" / "a.mp4")
    with pytest.raises(IsADirectoryError, match=r"folder\.mp4 is a folder; name a file in it"):
        files.check_writable(tmp_path / "folder.mp4")
    with pytest.raises(FileExistsError, match=r"9 frames make a folder .*frames, which exists already"):
        files.check_writable(tmp_path / "frames.png", num_frames=9)
    with pytest.raises(OSError, match="name too long"):
        files.check_writable(tmp_path / f"{'a' * 300}.mp4")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has other permissions")
def test_an_unwritable_folder_is_said_in_a_sentence(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    root = os.geteuid() == 0
    if root:  # whom no permission stops
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match=r"Cannot write .*a\.mp4: Permission denied; choose another name or folder"):
            files.check_writable(tmp_path / "locked" / "a.mp4")
    finally:
        if root:
            os.seteuid(0)


# ---------------------------------------------------------------------------------------------------- names

RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{device}{digit}" for device in ("COM", "LPT") for digit in "0123456789¹²³")}


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from('<>:"/\\|?*. \n猫🐈')), max_size=300), st.integers(0, 2**63 - 1))
def test_safe_names_are_safe_everywhere(prompt, seed):
    name = files.safe_name(prompt, seed)
    assert len(name.encode()) <= files.MAX_NAME_BYTES
    assert name.endswith(f"_seed{seed}")
    assert not set(name) & set('<>:"/\\|?*. ')
    assert name.isprintable()
    assert name.upper() not in RESERVED
    assert Path(name).name == name
    assert files.safe_name(prompt, seed) == name
    assert files.safe_name(prompt, seed ^ 1) != name


def test_safe_names_can_be_read():
    assert files.safe_name("A cat walks on the grass, realistic style.", 7) == "A_cat_walks_on_the_grass_realistic_style_seed7"
    assert files.safe_name("一只猫：在草地上", 7) == "一只猫_在草地上_seed7"
    assert files.safe_name("หมาวิ่ง", 7) == "หมาวิ่ง_seed7"  # vowel signs are no letters, yet part of the word
    assert files.safe_name("../../etc/passwd", 7) == "etc_passwd_seed7"
    assert files.safe_name("🐈 ...", 7) == files.safe_name("", 7) == "video_seed7"


def test_longest_names_fit_on_the_disk(tmp_path):
    name = files.safe_name("长" * 1000, 2**63 - 1)
    assert name.startswith("长" * 20)
    video.save_latents(torch.zeros(1, 1, 1, 1, 1), tmp_path / f"{name}.safetensors", overwrite=False)


def test_names_with_more_traits_than_fit_are_short_and_still_tell_videos_apart(tmp_path):
    assert files.safe_name("A cat", 7, ["30steps", "96x96"]) == "A_cat_seed7_30steps_96x96"
    long = ["30steps", *("lora-长长长长长长" for _ in range(9))]
    one, other = (files.safe_name("长" * 1000, 2**63 - 1, [*long, last]) for last in ("a", "b"))
    assert one != other and all(name.startswith("长长") and f"_seed{2**63 - 1}_30steps_lora-长" in name for name in (one, other))
    assert max(len(name.encode()) for name in (one, other)) <= files.MAX_NAME_BYTES
    video.save_latents(torch.zeros(1, 1, 1, 1, 1), tmp_path / f"{one}.safetensors", overwrite=False)


def test_without_overwriting_the_next_free_name_is_taken(tmp_path):
    frames = moving(2, 32, 32)
    for expected in ("a.b.gif", "a.b-2.gif", "a.b-3.gif"):
        assert video.save_video(frames, tmp_path / "a.b.gif", overwrite=False) == tmp_path / expected
    (tmp_path / "frames").mkdir()
    assert video.save_video(frames, tmp_path / "frames.png", overwrite=False) == tmp_path / "frames-2"
    assert video.save_video(frames[:1], tmp_path / "frames.png", overwrite=False) == tmp_path / "frames-3.png"


def test_a_video_given_as_latents_is_called_that(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(ValueError, match=r"a\.mp4 is a video or a picture; latents are in a \.safetensors file"):
        video.load_latents(tmp_path / "a.mp4")


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_of_two_that_want_the_same_name_at_the_same_time_each_gets_its_own(tmp_path, monkeypatch, kind, has_links):
    """Both have looked, and the name was free, before either takes it."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    frames = moving(1 if kind == "file" else 2, 16, 16)
    real, others = os.path.lexists, []

    def looked(path: str) -> bool:
        free = not real(path)
        if free and not others and path.endswith("clip" if kind == "folder" else "clip.png"):
            others.append(None)  # the other one is served while this one has only looked
            others.append(video.save_video(frames, tmp_path / "clip.png", overwrite=False))
        return not free

    monkeypatch.setattr(os.path, "lexists", looked)
    mine, other = video.save_video(frames, tmp_path / "clip.png", overwrite=False), others[1]
    assert mine != other and sorted(os.listdir(tmp_path)) == sorted(path.name for path in (mine, other))
    assert all(len(list(path.glob("*"))) == 2 or path.stat().st_size > 0 for path in (mine, other))


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png", "a.safetensors"])
def test_a_disk_that_is_full_is_said_with_the_path_and_leaves_nothing(tmp_path, name, overwrite):
    noise = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    crf = 0 if name in ("a.mp4", "a.webm") else None

    def save() -> None:
        if name == "a.safetensors":
            video.save_latents(torch.zeros(1, 16, 5, 16, 16), tmp_path / name, overwrite=overwrite)
        else:
            video.save_video(noise, tmp_path / name, crf=crf, overwrite=overwrite)

    with small_disk(5_000), pytest.raises(OSError, match=r"Cannot write .*/a(\.\w+)?: [Ff]ile too large"):
        save()
    assert not list(tmp_path.iterdir())
