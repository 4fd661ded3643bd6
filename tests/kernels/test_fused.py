"""The fastest pieces of a block are taken, if they compute the same; measured once."""

from __future__ import annotations

import pytest
import torch

from hunyuan_video.kernels import fused, kept, measured, pieces
from hunyuan_video.kernels.fused import PYTORCH, Layers, fastest, load
from hunyuan_video.kernels.native.build import NotBuiltError
from hunyuan_video.kernels.pieces import Pieces

CPU = torch.device("cpu")
SIZES = (16, 2, 64, 8, torch.float32, CPU)
LINEARS, PASSES = ("linear", "linear_gelu"), ("modulate", "norm_rope", "add_gated")


def same(name: str, wrong: bool = False) -> Pieces:
    """PyTorch's, with one piece that is another object, and may compute something else."""

    def other(*given: torch.Tensor) -> torch.Tensor | None:
        made = getattr(pieces, name)(*given)
        changed = given[0] if name == "add_gated" else given[-1] if name == "norm_rope" else made
        changed.mul_(2 if wrong else 1)
        return made

    return Pieces()._replace(**{name: other})


def other_of(name: str) -> str:
    """The name of another way to compute this piece."""
    return "onednn" if name in LINEARS else "native"


def give(monkeypatch, name: str, other: Pieces) -> None:
    """Let this be the only other way to compute a piece."""
    ways = {PYTORCH: Pieces, other_of(name): lambda: other}
    monkeypatch.setattr(fused, "linears" if name in LINEARS else "pointwise", lambda _device: ways)


@pytest.fixture(autouse=True)
def measured_anew(monkeypatch):
    monkeypatch.setattr(kept, "recall", lambda _question: None)
    monkeypatch.setattr(kept, "keep", lambda _question, _seconds: None)
    monkeypatch.setattr(measured, "_fastest", {})
    for name in ("linears", "pointwise"):
        monkeypatch.setattr(fused, name, lambda _device: {PYTORCH: Pieces})


@pytest.mark.parametrize(("torchs", "others", "taken"), [(1.0, 0.5, True), (0.5, 1.0, False), (1.0, 0.98, False)])
@pytest.mark.parametrize("name", Pieces._fields)
def test_what_was_faster_on_this_machine_is_taken_and_a_tie_is_pytorchs(monkeypatch, name, torchs, others, taken):
    other = same(name)
    give(monkeypatch, name, other)
    monkeypatch.setattr(kept, "recall", lambda _question: {PYTORCH: torchs, other_of(name): others})
    assert fastest(*SIZES) == (other_of(name) if taken else PYTORCH)
    assert load(fastest(*SIZES), CPU) == (other if taken else Pieces())


def test_linear_layers_and_pointwise_ops_are_chosen_apart(monkeypatch):
    give(monkeypatch, "linear", same("linear"))
    give(monkeypatch, "modulate", same("modulate"))
    seconds = {"linear layers": {PYTORCH: 2.0, "onednn": 1.0}, "pointwise ops": {PYTORCH: 1.0, "native": 2.0}}
    monkeypatch.setattr(kept, "recall", lambda asked: seconds[asked["what"]])
    assert fastest(*SIZES) == "onednn"
    chosen = load("onednn", CPU)
    assert chosen.linear is not pieces.linear and chosen.modulate is pieces.modulate


def test_it_is_measured_once(monkeypatch):
    give(monkeypatch, "linear", same("linear"))
    stored = []
    monkeypatch.setattr(kept, "keep", lambda _question, seconds: stored.append(seconds))
    for _ in range(2):
        fastest(*SIZES)
    assert len(stored) == 1
    assert set(stored[0]) == {PYTORCH, "onednn"}
    assert all(seconds > 0 for seconds in stored[0].values())


def fail(*_: object) -> torch.Tensor:
    raise RuntimeError("no such instruction")


@pytest.mark.parametrize("name", Pieces._fields)
def test_pieces_that_fail_or_compute_something_else_are_not_taken(monkeypatch, name):
    for broken in (Pieces()._replace(**{name: fail}), same(name, wrong=True)):
        give(monkeypatch, name, broken)
        monkeypatch.setattr(measured, "_fastest", {})
        stored = []
        monkeypatch.setattr(kept, "keep", lambda _question, seconds, stored=stored: stored.append(seconds))
        assert fastest(*SIZES) == PYTORCH
        assert set(stored[0]) == {PYTORCH}


def test_what_an_older_version_has_kept_is_measured_anew(monkeypatch):
    other = same("linear")
    give(monkeypatch, "linear", other)
    monkeypatch.setattr(kept, "recall", lambda _question: {PYTORCH: 1.0, "gone": 0.1})
    stored = []
    monkeypatch.setattr(kept, "keep", lambda _question, seconds: stored.append(seconds))
    fastest(*SIZES)
    assert set(stored[0]) == {PYTORCH, "onednn"}


@pytest.mark.parametrize(("name", "run"), [("linears", Layers.linears), ("pointwise", Layers.pointwise)])
def test_on_a_cpu_all_ways_compute_the_same(monkeypatch, name, run):
    monkeypatch.undo()
    layers = Layers(*SIZES)
    for way in getattr(fused, name)(CPU).values():
        try:
            made = way()
        except RuntimeError:  # there is no compiler, say
            continue
        torch.testing.assert_close(run(layers, made), run(layers, Pieces()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "sentence"), [
    ("triton", "block_ops is 'triton', which is not for cpu; use pytorch, or auto."),
    ("onednn+native", "block_ops is 'onednn+native', but there is no compiler; use pytorch, or auto."),
])  # fmt: skip
def test_what_cannot_be_had_is_said(monkeypatch, name, sentence):
    monkeypatch.undo()

    def missing() -> Pieces:
        raise NotBuiltError("there is no compiler.")

    monkeypatch.setattr(fused.norm_rope, "load", missing)
    assert fused.why_not(name, CPU) == sentence


def test_two_names_are_the_linear_layers_of_the_one_and_the_pointwise_ops_of_the_other(monkeypatch):
    monkeypatch.setattr(fused, "linears", lambda _device: {PYTORCH: Pieces, "onednn": lambda: same("linear")})
    monkeypatch.setattr(fused, "pointwise", lambda _device: {PYTORCH: Pieces, "native": lambda: same("modulate")})
    both = load("onednn+native", CPU)
    assert both.linear is not pieces.linear and both.modulate is not pieces.modulate
    assert load("native", CPU).linear is pieces.linear and load("onednn", CPU).modulate is pieces.modulate


def test_they_are_measured_anew_after_an_update(monkeypatch):
    give(monkeypatch, "linear", same("linear"))
    asked = []
    monkeypatch.setattr(kept, "recall", lambda question: asked.append(question))
    for version in ("1", "2"):
        monkeypatch.setattr(fused, "_version", lambda name, version=version: f"{name}'s {version}")
        fastest(*SIZES)
    assert [question["ways"][1] for question in asked] == ["onednn onednn's 1", "onednn onednn's 2"]


def test_on_a_cpu_few_tokens_are_measured(monkeypatch):
    seen = []
    give(monkeypatch, "linear", Pieces(linear=lambda layer, x: seen.append(x.shape[1]) or pieces.linear(layer, x)))
    fastest(16, 2, 64, 4096, torch.float32, CPU)
    assert set(seen) == {fused.CPU_TOKENS}


def test_what_takes_long_is_measured_in_few_rounds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measured.time, "perf_counter", lambda: now.__setitem__(0, now[0] + 0.1) or now[0])
    rounds = []
    measured.measure({"slow": 0}, lambda _way: rounds.append(1) or torch.zeros(1), CPU)
    assert len(rounds) == 4  # one of which warms up
