"""The same clip is found again under another coding, size and light; another one is not."""

from __future__ import annotations

import numpy as np
import pytest
from footage_files import film, moving

from hunyuan_video.curation import balance, fingerprints
from hunyuan_video.curation.balance import Concepts
from hunyuan_video.curation.duplicates import Alike, differing, originals
from hunyuan_video.curation.extras import opencv
from hunyuan_video.curation.footage import Part


def smooth(seed: int) -> np.ndarray:
    """A clip of large forms, which have a face when they are small."""
    return np.stack([opencv().GaussianBlur(frame, (0, 0), 6) for frame in moving(seed, 24, speed=1)])


@pytest.fixture(scope="module")
def prints(tmp_path_factory) -> list[fingerprints.Fingerprint]:
    """Of two clips, and of the first one smaller, lighter, coded badly, and six frames later."""
    folder = tmp_path_factory.mktemp("prints")
    first = smooth(1)
    shrunk = np.stack([opencv().resize(frame, (96, 72), interpolation=opencv().INTER_AREA) for frame in first])
    lighter = np.clip(shrunk.astype(int) + 15, 0, 255).astype(np.uint8)
    paths = [film(folder / "a.mp4", first), film(folder / "b.mp4", smooth(2)), film(folder / "c.mp4", lighter, crf=32)]
    return [fingerprints.fingerprint(Part(path, start, 17), None) for path, start in zip(paths, (0, 0, 6), strict=True)]


def test_a_copy_is_a_duplicate_of_what_came_first(prints):
    assert originals(prints, Alike()) == [0, 1, 0]


def test_hashes_of_a_copy_differ_in_few_bits_and_others_in_many(prints):
    first, other, copy = (one.hashes for one in prints)
    assert differing(first, copy) <= Alike().bits - 3 and differing(first, other) >= Alike().bits + 8  # room for other codecs


def test_a_fingerprint_is_kept_as_text(prints):
    again = fingerprints.from_json(fingerprints.to_json(prints[0]))
    assert np.array_equal(again.hashes, prints[0].hashes) and np.abs(again.vector - prints[0].vector).max() < 1e-3


def test_a_chain_of_copies_goes_back_to_one_that_is_kept():
    vector = np.array([1.0, 0.0], np.float32)
    chain = [fingerprints.Fingerprint(np.array([2**bits - 1], np.uint64), vector) for bits in (0, 10, 20)]
    assert originals(chain, Alike(bits=12.0)) == [0, 0, 2]  # the third is like the second only, which is gone


def test_nothing_has_no_duplicates():
    assert originals([], Alike()) == []


def test_what_lies_together_is_a_concept():
    draw, centres = np.random.default_rng(0), np.eye(4, 8, dtype=np.float32).repeat(32, 0)
    vectors = (centres + draw.normal(0, 0.01, centres.shape)).astype(np.float32)
    found = balance.concepts(vectors, Concepts(most=4, clips=16)).reshape(4, 32)
    assert (found == found[:, :1]).all() and len(np.unique(found)) == 4
    assert len(np.unique(balance.concepts(vectors, Concepts(most=2)))) == 2


def test_a_concept_that_drowns_the_others_is_cut_down_to_its_share():
    sizes, draw = (100, 10, 10, 10), np.random.default_rng(0)
    found, order = np.arange(4).repeat(sizes), draw.permutation(130)
    keep = balance.kept(found, [f"{number:03d}" for number in order], Concepts(share=1.0))
    assert [sum(part) for part in np.split(np.array(keep), np.cumsum(sizes)[:-1])] == [33, 10, 10, 10]
    assert order[:100][np.array(keep[:100])].max() < order[:100][~np.array(keep[:100])].min()  # the first in that order


def test_few_clips_are_one_concept_of_which_all_are_kept():
    found = balance.concepts(np.eye(5, dtype=np.float32), Concepts())
    assert balance.kept(found, list("abcde"), Concepts()) == [True] * 5
