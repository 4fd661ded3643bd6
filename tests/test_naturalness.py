"""BRISQUE by the package that has the model."""

from __future__ import annotations

import numpy as np
import pytest
from rendered_cameras import film, path

from hunyuan_video.naturalness import brisque

pytest.importorskip("brisque", reason="the extra brisque is not installed", exc_type=ImportError)


def test_noise_is_worse_and_flat_pictures_have_none():
    clean = film(path("static", 0, 1), 0)[0]
    noisy = np.clip(clean + np.random.default_rng(0).normal(size=clean.shape) * 40, 0, 255).astype(np.uint8)
    scores = [brisque(clean), brisque(noisy)]
    assert scores[0] is not None and scores[1] is not None and scores[0] < scores[1]
    assert brisque(np.zeros_like(clean)) is None
