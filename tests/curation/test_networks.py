"""A user's own networks see pictures as CLIP does."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import linear, mean_colour

from hunyuan_video.curation.networks import DEVIATION, MEAN, Networks, embed, judge


def test_an_embedder_is_given_pictures_normalised_as_for_clip(tmp_path):
    picture = np.full((10, 16, 3), (255, 0, 128), np.uint8)
    picture[:, :3] = picture[:, -3:] = 0  # outside of the square in the middle
    (found,) = embed(mean_colour(tmp_path / "see.onnx"), picture[None])
    expected = (np.array([1, 0, 128 / 255]) - MEAN) / DEVIATION
    assert np.allclose(found, expected / np.linalg.norm(expected), atol=1e-6)


def test_a_head_scores_what_the_embedder_sees(tmp_path):
    head = linear(tmp_path / "head.onnx", np.array([[1.0], [2.0], [4.0]]))
    assert judge(head, np.array([[1.0, 0, 0], [0, 1.0, 1.0]])) == pytest.approx(3.5)


def test_a_network_that_takes_no_pictures_is_refused(tmp_path):
    path = linear(tmp_path / "head.onnx", np.ones((3, 1)))
    with pytest.raises(ValueError, match="an embedder takes pictures"):
        embed(path, np.zeros((1, 8, 8, 3), np.uint8))


def test_a_head_without_an_embedder_and_a_file_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(ValueError, match="give --embedder, too"):
        Networks(aesthetic=linear(tmp_path / "head.onnx", np.ones((3, 1))))
    with pytest.raises(FileNotFoundError, match="gone does not exist; give an ONNX file"):
        Networks(embedder=tmp_path / "gone")


def test_networks_are_known_by_content(tmp_path):
    one, other = (Networks(mean_colour(tmp_path / f"{name}.onnx", side)) for name, side in (("a", 8), ("b", 16)))
    assert one.identity != other.identity and set(one.identity) == {"embedder"}
