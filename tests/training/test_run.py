"""A run folder loses nothing and mixes nothing up."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_disk import small_disk

from hunyuan_video.training import master
from hunyuan_video.training import run as module
from hunyuan_video.training.master import MasterWeights
from hunyuan_video.training.run import Run, keep_config, lock, random_generator


@dataclass(frozen=True)
class Config:
    size: int = 4


def saved(run: Run, step: int, value: float) -> None:
    run.save(step, {"weight": torch.full((3,), value)})


def loaded(run: Run) -> tuple[int, float]:
    state = {"weight": torch.zeros(3)}
    return run.load(state), state["weight"][0].item()


def test_a_checkpoint_is_read_in_place(tmp_path):
    saved(Run(tmp_path, Config()), 7, 0.5)
    assert loaded(Run(tmp_path, Config())) == (7, 0.5)


def test_a_new_run_starts_at_step_0(tmp_path):
    assert loaded(Run(tmp_path, Config())) == (0, 0.0)


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    run = Run(tmp_path, Config(), keep=2)
    for step in range(1, 5):
        saved(run, step, float(step))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]


def test_a_half_written_checkpoint_is_not_read_and_is_removed(tmp_path, monkeypatch):
    run = Run(tmp_path, Config())
    saved(run, 1, 1.0)

    def broken(*_arguments: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", broken)
        with pytest.raises(OSError, match="disk full"):
            saved(run, 2, 2.0)
    run.close()
    assert len(os.listdir(tmp_path / "checkpoints")) == 2
    assert loaded(Run(tmp_path, Config())) == (1, 1.0)
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000001"]


def test_a_run_with_other_settings_is_not_continued(tmp_path):
    saved(Run(tmp_path, Config()), 1, 1.0)
    with pytest.raises(ValueError, match="size: 4 -> 8"):
        Run(tmp_path, Config(size=8))


def test_metrics_go_to_wandb_if_asked(tmp_path, monkeypatch):
    logged, given = [], {}

    def init(**settings: object) -> SimpleNamespace:
        given.update(settings)
        return SimpleNamespace(log=lambda scalars, step: logged.append((step, scalars)), finish=lambda: logged.append("finished"))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    run = Run(tmp_path, Config(), wandb_project="cats")
    run.log(3, loss=0.5)
    run.close()
    assert logged == [(3, {"loss": 0.5}), "finished"]
    assert given["project"] == "cats" and given["config"] == {"size": 4}
    first = given["id"]
    Run(tmp_path, Config(), wandb_project="cats")
    assert given["id"] == first and given["resume"] == "allow"


def test_without_wandb_one_learns_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"hunyuan-video\[wandb\]"):
        Run(tmp_path, Config(), wandb_project="cats")


def test_random_numbers_depend_on_seed_purpose_and_step_only():
    def draw(*keys: int | str) -> float:
        return torch.rand((), generator=random_generator(*keys)).item()

    assert draw(0, "noise", 5) == draw(0, "noise", 5)
    assert len({draw(0, "noise", 5), draw(1, "noise", 5), draw(0, "batch", 5), draw(0, "noise", 6)}) == 4


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def due_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: float, **how: float) -> list[int]:
    """The steps of 20, each of ten seconds, after which a checkpoint was saved, which took `took` seconds."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    run, found = Run(tmp_path, Config(), **how), []

    def save(_state: object, *, checkpoint_id: Path, **_: object) -> None:
        checkpoint_id.mkdir()
        clock.now += took

    monkeypatch.setattr(module.dcp, "save", save)
    for step in range(1, 21):
        clock.now += 10
        if run.is_due(step):
            run.save(step, {})
            found.append(step)
    return found


def test_checkpoints_come_every_minute(tmp_path, monkeypatch):
    assert due_at(tmp_path, monkeypatch, 0.0) == [6, 12, 18]


def test_checkpoints_that_take_long_take_a_tenth_of_the_time(tmp_path, monkeypatch):
    assert due_at(tmp_path, monkeypatch, 10.0) == [6, 15]


def test_checkpoints_come_every_so_many_steps_if_told(tmp_path, monkeypatch):
    assert due_at(tmp_path, monkeypatch, 100.0, save_every=7) == [7, 14]


def test_a_folder_in_which_a_training_works_is_refused_to_another(tmp_path):
    run = Run(tmp_path, Config())
    with pytest.raises(BlockingIOError, match=r"Another training works in .*; wait for its end, or choose another folder"):
        Run(tmp_path, Config())
    run.close()
    Run(tmp_path, Config()).close()


def test_a_run_that_is_refused_leaves_its_folder_free(tmp_path):
    saved(Run(tmp_path, Config()), 1, 1.0)
    with pytest.raises(ValueError, match="other settings") as refused:
        Run(tmp_path, Config(size=8))
    with lock(tmp_path, "training"):
        assert refused.tb is not None  # whose frames keep what was opened


def test_a_start_says_where_it_starts(tmp_path, caplog):
    caplog.set_level("INFO", "hunyuan_video")
    loaded(Run(tmp_path, Config()))
    assert "begins at step 0: there is no checkpoint here" in caplog.text
    saved(Run(tmp_path, Config()), 7, 0.5)
    loaded(Run(tmp_path, Config()))
    assert "continues at step 7" in caplog.text


def test_a_disk_that_is_full_is_said_with_the_path_and_costs_no_older_checkpoint(tmp_path):
    run = Run(tmp_path, Config())
    saved(run, 1, 1.0)
    with (
        small_disk(1000),
        pytest.raises(OSError, match=r"Cannot write .*step-00000002: the disk is full; make room.*older checkpoints are whole"),
    ):
        run.save(2, {"weight": torch.zeros(100_000)})
    run.close()
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000001"]
    assert loaded(Run(tmp_path, Config())) == (1, 1.0)


def masters_of(model: torch.nn.Module, ema_decay: float | None = 0.9) -> MasterWeights:
    return MasterWeights(model, betas=(0.9, 0.97), weight_decay=0.0, clip_norm=1.0, ema_decay=ema_decay)


@pytest.mark.parametrize("what", ["gradient", "loss"])
def test_what_is_not_finite_changes_nothing(what):
    model = torch.nn.Linear(4, 4)
    weights = masters_of(model)
    before = {name: tensor.clone() for name, tensor in weights.state_dict().items()}
    model(torch.full((1, 4), float("nan") if what == "gradient" else 1.0)).sum().backward()
    weights.step(model, 0, 0.1, usable=what == "gradient")
    assert all(torch.equal(before[name], tensor) for name, tensor in weights.state_dict().items())
    model(torch.ones(1, 4)).sum().backward()
    weights.step(model, 1, 0.1)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("given", "device", "multiplies", "computes"), [
    ("auto", "cpu", True, torch.bfloat16),
    ("auto", "cpu", False, torch.float32),
    ("auto", "cuda", False, torch.bfloat16),
    ("bfloat16", "cpu", False, torch.bfloat16),
    ("float32", "cuda", True, torch.float32),
])  # fmt: skip
def test_a_cpu_that_does_not_multiply_bfloat16_is_not_asked_to_unless_told(monkeypatch, given, device, multiplies, computes):
    monkeypatch.setattr(master, "multiplies_bfloat16", lambda: multiplies)
    assert master.dtype_of_worker(given, torch.device(device)) == computes


def test_steps_too_small_for_bfloat16_add_up_in_the_masters():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    worker = torch.nn.Linear(1, 1, bias=False).bfloat16()
    weights = masters_of(model)
    weights.load_into(worker)
    for step in range(200):
        worker(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        weights.step(worker, step, 1e-4)  # bfloat16 cannot tell 1 - 1e-4 from 1
    assert worker.weight.item() == pytest.approx(0.98, abs=0.004)


def test_gradients_of_several_micro_batches_add_up_in_float32():
    model = torch.nn.Linear(1, 1, bias=False)
    worker = torch.nn.Linear(1, 1, bias=False).bfloat16()
    weights = masters_of(model)
    for _ in range(300):  # bfloat16 would stop at 256
        worker(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        weights.accumulate(worker)
    assert weights.step(worker, 0, 0.1) == 300.0


def test_averaged_weights_are_there_inside_the_block_and_leave_no_trace():
    model = torch.nn.Linear(2, 2)
    weights = masters_of(model)
    for step in range(3):
        model(torch.ones(1, 2)).sum().backward()
        weights.step(model, step, 0.1)
    before = {name: tensor.clone() for name, tensor in weights.state_dict().items()}
    with weights.averaged(model):
        assert torch.equal(model.weight, before["ema.weight"]) and not torch.equal(model.weight, before["master.weight"])
    assert all(torch.equal(before[name], tensor) for name, tensor in weights.state_dict().items())


def test_without_an_average_the_latest_weights_are_the_result():
    model = torch.nn.Linear(2, 2)
    assert torch.equal(dict(masters_of(model, ema_decay=None).result())["weight"], model.weight)


def test_a_folder_in_which_nothing_was_made_takes_other_settings(tmp_path):
    keep_config(tmp_path / "run", {"rank": 4}, begun=False)
    keep_config(tmp_path / "run", {"rank": 8}, begun=False)
    with pytest.raises(ValueError, match="rank: 8 -> 4"):
        keep_config(tmp_path / "run", {"rank": 4})


def test_another_input_is_refused_and_one_that_was_not_recorded_is_taken_to_be_the_same(tmp_path):
    keep_config(tmp_path / "new", {"rank": 8, "start_identity": "a"})
    with pytest.raises(ValueError, match="what is in start has changed"):
        keep_config(tmp_path / "new", {"rank": 8, "start_identity": "b"})
    keep_config(tmp_path / "old", {"rank": 8, "start_digest": "of another kind"})
    keep_config(tmp_path / "old", {"rank": 8, "start_identity": "a"})
    with pytest.raises(ValueError, match="rank: 8 -> 4"):
        keep_config(tmp_path / "old", {"rank": 4, "start_identity": "a"})
