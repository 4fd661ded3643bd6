"""Colours of videos: what goes in comes out, whatever the coding says or leaves unsaid."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from conftest import DATA
from media_files import coded, write_coded

from hunyuan_video import colours
from hunyuan_video.containers import open_container, rgb, video_stream

FIELD = DATA / "field" / "media"
COLOUR = (200, 100, 30)
TO_BT2020 = np.array([[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]])  # BT.2087


def first(path: Path) -> np.ndarray:
    """The pixel in the middle of the first frame."""
    with open_container(path) as container:
        frame = rgb(next(container.decode(video_stream(container))))
    return frame[frame.shape[0] // 2, frame.shape[1] // 2].astype(int)


def assert_shows(path: Path, colour=COLOUR, within: int = 1) -> None:
    assert np.abs(first(path) - colour).max() <= within, first(path)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize(("pix_fmt", "bits"), [("yuv420p", 8), ("yuv420p10le", 10), ("yuv444p12le", 12)])
def test_tagged_colours_come_out_as_they_are_said_to_be(tmp_path, pix_fmt, bits, matrix, full):
    levels = coded([level / 255 for level in COLOUR], matrix, bits, full)
    path = write_coded(tmp_path / "a.mkv", levels, pix_fmt, colorspace=matrix, color_range=2 if full else 1)
    assert_shows(path)


@pytest.mark.parametrize(("height", "matrix"), [(576, 6), (718, 6), (720, 1), (1080, 1)])
def test_untagged_colours_are_taken_as_players_take_them(tmp_path, height, matrix):
    levels = coded([level / 255 for level in COLOUR], matrix)
    assert_shows(write_coded(tmp_path / "a.mkv", levels, "yuv420p", size=(height, 64)))


def test_untagged_hd_from_the_field_is_bt709():
    assert_shows(FIELD / "untagged_709_hd.mp4", (200, 60, 30))


def test_the_video_is_taken_and_not_the_cover_before_it():
    with open_container(FIELD / "twostreams.mkv") as container:
        assert video_stream(container).index == 1


def light(colour, white: float) -> np.ndarray:
    """Red, green and blue of BT.2020 in cd/m², of a colour on an ordinary screen whose white is that bright."""
    return TO_BT2020 @ (np.array(colour) / 255) ** 2.4 * white


def pq(nits: np.ndarray) -> np.ndarray:
    power = (nits / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(nits: np.ndarray) -> np.ndarray:
    bright = nits @ [0.2627, 0.6780, 0.0593] / 1000
    scene = nits / 1000 * bright ** (1 / 1.2 - 1)
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073)


@pytest.mark.parametrize("colour", [(200, 100, 30), (255, 255, 255), (90, 90, 90), (30, 60, 200)], ids=str)
@pytest.mark.parametrize("unsaid", [False, True], ids=["all tags", "the transfer alone"])
@pytest.mark.parametrize(("transfer", "encode"), [(16, pq), (18, hlg)], ids=["PQ", "HLG"])
def test_what_an_ordinary_screen_can_show_comes_back_from_hdr(tmp_path, transfer, encode, unsaid, colour):
    tags = {"color_trc": transfer} | ({} if unsaid else {"color_primaries": 9, "colorspace": 9, "color_range": 1})
    levels = coded(encode(light(colour, 203)), 9, 10)
    assert_shows(write_coded(tmp_path / "a.mkv", levels, "yuv444p10le", **tags), colour, within=3)  # a level of 10 bits is up to 2 of 8


def test_highlights_beyond_white_are_white(tmp_path):
    levels = coded(pq(light((255, 255, 255), 4000)), 9, 10)
    assert_shows(write_coded(tmp_path / "a.mkv", levels, "yuv420p10le", color_trc=16, color_primaries=9, colorspace=9), (255, 255, 255))


def test_white_of_hdr10_from_the_field_is_white():
    assert first(FIELD / "hdr_pq.mp4").min() >= 250


def test_a_wide_gamut_comes_back_in_bt709(tmp_path):
    levels = coded(light(COLOUR, 1) ** (1 / 2.4), 9, 10)
    path = write_coded(tmp_path / "a.mkv", levels, "yuv444p10le", color_primaries=9, colorspace=9, color_trc=14)
    assert_shows(path, within=2)


def test_display_p3_keeps_grey_and_its_red_is_beyond_ours():
    grey, red = np.full((1, 1, 3), 30_000, np.uint16), np.array([[[65_535, 0, 0]]], np.uint16)
    assert colours.to_bt709(grey, 1, colours.DISPLAY_P3).tolist() == [[[117, 117, 117]]]
    assert colours.to_bt709(red, 1, colours.DISPLAY_P3).tolist() == [[[255, 0, 0]]]


def test_codings_that_are_not_read_are_refused(tmp_path):
    path = write_coded(tmp_path / "a.mkv", [100, 128, 128], "yuv420p", colorspace=8)
    with pytest.raises(ValueError, match=r"coded by matrix 8 of H\.273"):
        first(path)


@pytest.mark.parametrize(("alpha", "expected"), [(0, (255, 255, 255)), (128, (227, 177, 142)), (255, COLOUR)])
def test_transparent_video_is_on_white(tmp_path, alpha, expected):
    levels = [*coded([level / 255 for level in COLOUR], 6), alpha]
    assert_shows(write_coded(tmp_path / "a.mkv", levels, "yuva444p"), expected)


def test_transparency_that_the_decoder_drops_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuva420p")))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="transparency is not read"):
        first(tmp_path / "a.webm")
