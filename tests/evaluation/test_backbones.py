"""VBench's formulas around networks that say what they were given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hunyuan_video.evaluation import backbones
from hunyuan_video.evaluation.backbones import Backbone, consistency, middles

FRAMES = np.random.default_rng(0).integers(0, 255, (10, 24, 40, 3), np.uint8)
FUNCTIONS = """
import torch
def mean(x): return x.mean(dim=(-1, -2))
def first(x): return x[:, 0].mean(dim=(-1, -2, -3))[:, None].repeat(1, 2)
def texts(prompts): return torch.tensor([[1.0, 1.0]] * len(prompts))
def hundred(x): return 100 * x.mean(dim=(1, 2, 3))
def ten(x): return torch.full((len(x),), 7.0)
def fast(one, two): return torch.full((1, 2, *one.shape[-2:]), 99.0)
"""


@pytest.fixture
def networks(tmp_path):
    (tmp_path / "networks.py").write_text(FUNCTIONS, encoding="utf-8")
    return lambda name: f"{tmp_path / 'networks.py'}:{name}"


def scored(dimension: str, network: str, text: str | None = None) -> float:
    return Backbone(dimension, network, text, size=16).load()(FRAMES, 24.0, "a cat")


def test_consistency_is_likeness_to_the_frame_before_and_to_the_first():
    features = torch.tensor([[1.0, 0], [0, 2], [0, 3], [-1, 0]])
    assert consistency(features) == pytest.approx((0 + 0 + 1 + 0 + 0 + 0) / 2 / 3)  # negative likeness is none
    assert consistency(torch.ones(5, 3)) == pytest.approx(1) and consistency(torch.ones(1, 3)) == 1


def test_eight_frames_are_the_middles_of_eight_parts():
    assert middles(16, 8) == [0, 2, 4, 6, 8, 10, 12, 14] and middles(129, 8) == [7, 23, 39, 55, 71, 87, 103, 120]
    assert middles(3, 8) == [0, 1, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("dimension", "network", "expected"),
    [("imaging_quality", "hundred", FRAMES.mean() / 255), ("aesthetic_quality", "ten", 0.7), ("dynamic_degree", "fast", 1.0)],
)
def test_a_score_is_a_share(dimension, network, expected, networks):
    assert scored(dimension, networks(network)) == pytest.approx(expected, abs=1e-5)


def test_agreement_is_the_cosine_with_the_prompt(networks):
    assert abs(scored("overall_consistency", networks("first"), networks("texts"))) == pytest.approx(1, abs=1e-5)


def test_pictures_are_squares_but_dinos_and_as_each_was_trained():
    square, wide = (Backbone(name, "x.pt", size=16).pictures(FRAMES) for name in ("background_consistency", "subject_consistency"))
    assert square.shape == (10, 3, 16, 16) and wide.shape == (10, 3, 16, 26)
    assert float(wide[:, 0].mean()) == pytest.approx((FRAMES[..., 0].mean() / 255 - 0.485) / 0.229, abs=0.02)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # users have such files all the same
def test_torchscript_is_loaded(tmp_path, networks):
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=[2, 3])

    path = tmp_path / "mean.pt"
    torch.jit.trace(Mean(), torch.zeros(2, 3, 16, 16)).save(str(path))
    assert scored("background_consistency", str(path)) == pytest.approx(scored("background_consistency", networks("mean")), abs=1e-6)


def test_another_network_is_another_measure(tmp_path):
    (tmp_path / "a.py").write_text("def f(x): return x", encoding="utf-8")
    before = Backbone("aesthetic_quality", f"{tmp_path}/a.py:f").identity()
    (tmp_path / "a.py").write_text("def f(x): return 2 * x", encoding="utf-8")
    assert Backbone("aesthetic_quality", f"{tmp_path}/a.py:f").identity() != before


def test_a_file_says_where_networks_are_beside_it(tmp_path):
    path = tmp_path / "networks.toml"
    path.write_text('[temporal_style]\nnetwork = "v.pt"\ntext = "t.py:f"\nsize = 8\n', encoding="utf-8")
    assert backbones.read(path) == (Backbone("temporal_style", f"{tmp_path}/v.pt", f"{tmp_path}/t.py:f", 8),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[fvd]\nnetwork = "a.pt"', "There is no dimension 'fvd' here"),
        ("[imaging_quality]\nsize = 8", "lacks `network`"),
        ('[overall_consistency]\nnetwork = "a.pt"', "needs `text`"),
        ('[imaging_quality]\nnetwork = "a.pt"\nmean = 1', "holds no backbones"),
        ("[a", "holds no backbones"),
    ],
)
def test_a_file_of_something_else_is_refused(text, why, tmp_path):
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=why):
        backbones.read(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("name", "why"), [("none.pt", "is no file with a network"), (__file__, "neither TorchScript"), (f"{__file__}:no", "no function no")]
)
def test_what_is_no_network_is_refused(name, why):
    with pytest.raises((ValueError, FileNotFoundError), match=why):
        backbones.load(name)
