"""The fastest pieces of a block are taken, if they compute the same; measured once."""

from __future__ import annotations

import pytest
import torch

from hunyuan_video.kernels import fused, kept, measured, pieces
from hunyuan_video.kernels.fused import Layers, candidates, fastest_pieces
from hunyuan_video.kernels.pieces import Pieces

CPU = torch.device("cpu")
SIZES = (16, 2, 64, 8, torch.float32, CPU)
OTHER = Pieces(linear=lambda layer, x: pieces.linear(layer, x))


@pytest.fixture(autouse=True)
def measured_anew(monkeypatch):
    monkeypatch.setattr(kept, "recall", lambda _question: None)
    monkeypatch.setattr(kept, "keep", lambda _question, _seconds: None)
    monkeypatch.setattr(fused, "candidates", lambda _device: {"PyTorch": Pieces(), "other": OTHER})
    monkeypatch.setattr(measured, "_fastest", {})


@pytest.mark.parametrize(("torchs", "others", "expected"), [(1.0, 0.5, OTHER), (0.5, 1.0, Pieces()), (1.0, 0.98, Pieces())])
def test_what_was_faster_on_this_machine_is_taken_and_a_tie_is_pytorchs(monkeypatch, torchs, others, expected):
    monkeypatch.setattr(kept, "recall", lambda _question: {"PyTorch": torchs, "other": others})
    assert fastest_pieces(*SIZES) == expected


def test_it_is_measured_once(monkeypatch):
    stored = []
    monkeypatch.setattr(kept, "keep", lambda _question, seconds: stored.append(seconds))
    for _ in range(2):
        fastest_pieces(*SIZES)
    assert len(stored) == 1
    assert set(stored[0]) == {"PyTorch", "other"}
    assert all(seconds > 0 for seconds in stored[0].values())


def fail(*_: object) -> torch.Tensor:
    raise RuntimeError("no such instruction")


@pytest.mark.parametrize("name", Pieces._fields)
def test_pieces_that_fail_or_compute_something_else_are_not_taken(monkeypatch, name):
    for broken in (fail, lambda *given: None if name == "add_gated" else 2 * getattr(pieces, name)(*given)):
        monkeypatch.setattr(
            fused, "candidates", lambda _device, broken=broken: {"PyTorch": Pieces(), "other": Pieces()._replace(**{name: broken})}
        )
        monkeypatch.setattr(measured, "_fastest", {})
        stored = []
        monkeypatch.setattr(kept, "keep", lambda _question, seconds, stored=stored: stored.append(seconds))
        assert fastest_pieces(*SIZES) == Pieces()
        assert set(stored[0]) == {"PyTorch"}


def test_what_an_older_version_has_kept_is_measured_anew(monkeypatch):
    monkeypatch.setattr(kept, "recall", lambda _question: {"PyTorch": 1.0, "gone": 0.1})
    assert fastest_pieces(*SIZES) in (Pieces(), OTHER)


def test_on_a_cpu_all_candidates_compute_the_same():
    layers = Layers(*SIZES)
    for way in candidates(CPU).values():
        torch.testing.assert_close(layers.run(way), layers.run(Pieces()))


def test_they_are_measured_anew_after_an_update(monkeypatch):
    asked = []
    monkeypatch.setattr(kept, "recall", lambda question: asked.append(question))
    for version in ("1", "2"):
        monkeypatch.setattr(fused, "_version", lambda name, version=version: f"{name}'s {version}")
        fastest_pieces(*SIZES)
    assert [question["ways"][1] for question in asked] == ["other other's 1", "other other's 2"]


def test_on_a_cpu_few_tokens_are_measured(monkeypatch):
    seen = []
    of_size = lambda layer, x: seen.append(x.shape[1]) or pieces.linear(layer, x)  # noqa: E731
    monkeypatch.setattr(fused, "candidates", lambda _device: {"PyTorch": Pieces(), "other": Pieces(linear=of_size)})
    fastest_pieces(16, 2, 64, 4096, torch.float32, CPU)
    assert set(seen) == {fused.CPU_TOKENS}


def test_what_takes_long_is_measured_in_few_rounds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measured.time, "perf_counter", lambda: now.__setitem__(0, now[0] + 0.1) or now[0])
    rounds = []
    measured.measure({"slow": 0}, lambda _way: rounds.append(1) or torch.zeros(1), CPU)
    assert len(rounds) == 4  # one of which warms up
