"""What the page offers follows from the weights."""

from __future__ import annotations

from pathlib import Path

from hunyuan_video import weights
from hunyuan_video.config import FullSampling
from hunyuan_video.demo.offer import OFFICIAL_SIZES, Offer, length_name, sizes_between
from hunyuan_video.weights import Weights


def test_the_miniature_offers_what_it_was_trained_on() -> None:
    offer = Offer.of(weights.find_or_embedded(weights.EMBEDDED))
    assert offer.sizes[0] == (128, 128) and all(64 <= side <= 128 and side % 16 == 0 for size in offer.sizes for side in size)
    assert offer.lengths == (17, 33) and offer.defaults.num_steps == 20
    assert offer.image_to_video and offer.embedded_guidance


def test_weights_that_say_nothing_offer_the_official_sizes_and_lengths(tmp_path: Path) -> None:
    offer = Offer.of(Weights(tmp_path, tmp_path / "transformer", tmp_path, tmp_path, tmp_path))
    assert offer.sizes == OFFICIAL_SIZES and len(set(offer.sizes)) == 10 and offer.sizes[0] == (1280, 720)
    assert offer.defaults == FullSampling() and not offer.image_to_video
    assert [length_name(frames) for frames in offer.lengths] == ["2s(65f)", "5s(129f)"]


def test_sizes_stay_within_what_was_trained() -> None:
    assert sizes_between(64, 64) == ((64, 64),)
    assert set(sizes_between(256, 512)) == {
        (512, 512), (512, 384), (384, 512), (512, 288), (288, 512), (384, 384), (256, 256),
    }  # fmt: skip
