"""The file of thresholds says which clips a tier takes, and why it does not take others."""

from __future__ import annotations

from itertools import pairwise

import pytest
from footage_files import QUICK, quick

from hunyuan_video.curation import tiers
from hunyuan_video.curation.tiers import Tier

GOOD = {"frames": 129, "side": 720, "blur": 0.3, "contrast": 40.0, "flow": 0.1, "kept": 1.0}


def test_a_tier_says_the_first_reason_in_the_order_of_the_stages():
    tier = Tier("a", least={"side": 256.0, "flow": 0.01}, most={"blur": 0.5})
    assert tier.refuses(GOOD) is None
    assert tier.refuses(GOOD | {"flow": 0.0, "blur": 0.9}) == "blurred"
    assert tier.refuses({"side": 200}) == "too small"
    assert tier.refuses({}) is None  # nothing is known yet


def test_a_clip_is_refused_when_no_tier_takes_it():
    thresholds = tiers.read()
    assert thresholds.refuse(GOOD) is None
    assert thresholds.refuse(GOOD | {"frames": 65, "side": 256}) is None
    assert thresholds.refuse(GOOD | {"side": 128}) == "too small"


def test_in_ours_each_tier_is_at_least_as_strict_as_the_one_before():
    found = tiers.read().tiers
    assert [tier.name for tier in found] == ["256p", "360p", "540p", "720p"]
    for lower, higher in pairwise(found):
        assert all(higher.least[name] >= value for name, value in lower.least.items())
        assert all(higher.most[name] <= value for name, value in lower.most.items())


def test_without_a_line_for_it_no_network_looks_for_transitions(tmp_path):
    assert quick(tmp_path).transitions.learned is None and tiers.read().transitions.learned == 0.5


def test_only_what_a_tier_limits_is_measured(tmp_path):
    assert quick(tmp_path).measured == {"frames", "side", "contrast", "flow", "kept", "dark", "still"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[tier", "is not TOML"),
        ("", "has no tier; it needs one such as"),
        ("[tiers]\n", "the file says tiers, which nothing knows; it can say"),
        ("[tier.a]\nleast = {sides = 3}\n", r"least of \[tier.a\] says sides, which nothing knows"),
        ("[tier.a]\nmost = {blur = 'much'}\n", r"blur in most of \[tier.a\] is 'much'; it must be a number"),
        (QUICK.replace("look = 4", "look = 1.5"), r"look in \[lengths\] is 1.5; it must be a whole number"),
        (QUICK.replace("look = 4", "look = 0"), "look is 0; it must be 1 or more frames"),
        ("tier = 3", "tier"),
        (QUICK.replace("[tier.low]", "[tier.clips]"), "a tier is called 'clips'"),
        (QUICK.replace("[tier.low]", "[tier.'../low']"), r"a tier is called '\.\./low'"),
        (QUICK + "[concepts]\nclips = 0\n", r"clips in \[concepts\] is 0; it must be above 0"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        quick(tmp_path, text)


def test_no_file_asks_for_less_than_makes_a_clip(tmp_path):
    (tier,) = quick(tmp_path, QUICK[: QUICK.index("[tier.")] + "[tier.any]\nleast = {side = 0}\n").tiers
    assert tier.least["side"] == tiers.ALWAYS["side"] > 0
