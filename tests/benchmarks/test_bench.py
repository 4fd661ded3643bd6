"""The benchmarks' command goes on where it stopped, and docs/benchmarks.md says what the files of rows say."""

from __future__ import annotations

import sys
from dataclasses import replace

import bench
import bench_table
import dit_step
import end_to_end
import numpy as np
import pytest
import rows
import scaling
import torch
from measure import Spread, take_turns
from rows import Found, Machine, Row
from targets import ANYWHERE, STEPS, Target, at_most, target_of

AMX = Machine("A CPU", ("avx2", "amx_bf16"), 2, 1, "Linux", "3.11", {"torch": "2.13"}, "abc", "2026-11-28", 1.0)
STEP = Row("a1", "1,280 tokens, float32", "a step, beside Diffusers", 1.2, "×", {"ours": Spread(1.0, 0.9, 0.1, 7)}, {"error": 2e-6})


def test_the_page_is_what_the_files_of_rows_give():
    assert bench_table.PAGE.read_text(encoding="utf-8") == bench_table.page()


def test_a_table_says_what_was_aimed_at_and_by_how_much_it_was_missed():
    met = replace(STEP, case="3,456 tokens, float32", value=1.5, detail={"of_the_ceiling": 0.61})
    text = bench_table.tables([[Found(STEP, AMX), Found(met, AMX)]])
    assert text.startswith("### A CPU, 1 thread of 2 cores\n\navx2, amx_bf16; Linux, Python 3.11, torch 2.13; 2026-11-28;")
    assert "| 1,280 tokens, float32 | ≥ 1.50× | **1.20×** | missed by 20% | ours 1.00 (0.90; 0.10) | – | difference 2e-06 | abc |" in text
    assert "| 3,456 tokens, float32 | ≥ 1.40× | **1.50×** | met | ours 1.00 (0.90; 0.10) | 61% | – | abc |" in text


def test_a_row_of_few_repeats_says_so():
    assert bench_table.times({"ours": Spread(1.0, 0.9, 0.1, 3)}) == "ours 1.00 (0.90; 0.10); 3 repeats"


def test_what_should_be_small_is_missed_by_what_is_larger():
    assert at_most(2.0).missed_by(3.0) == 0.5 and at_most(2.0).missed_by(1.0) == 0
    assert Target(2.0).missed_by(1.0) == 0.5 and Target(2.0).missed_by(3.0) == 0


def test_targets_beside_diffusers_are_a_cpus_own():
    other = replace(AMX, flags=("avx2", "avx512_bf16"))
    assert target_of(STEP, AMX).value == 1.5 and target_of(STEP, other).value == 2.6


def test_the_longest_beginning_of_a_case_decides_its_target():
    memory = replace(STEP, item="c2", case="9x64x64, bfloat16, memory")
    assert target_of(memory, AMX) == at_most(1.0) and target_of(replace(memory, case="9x64x64, bfloat16"), AMX) == at_most(20.0)


def test_every_item_has_targets():
    assert {*STEPS, *(item for item, _ in ANYWHERE)} - {"b2"} == set(bench.ITEMS)


def test_rows_are_kept_as_they_are(tmp_path):
    rows.write(tmp_path / "new" / "a.jsonl", [Found(STEP, AMX)])
    assert rows.read(tmp_path / "new" / "a.jsonl") == [Found(STEP, AMX)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command with an item that is quick, and how often that was measured."""
    measured = []

    def quick(repeats: int, device: torch.device):
        measured.append(repeats)
        yield replace(STEP, value=float(len(measured)))

    monkeypatch.setattr(bench, "item", lambda name, folder: quick)
    monkeypatch.setattr(bench, "this_machine", lambda device: replace(AMX, device=device))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)

    def command(*arguments: str) -> list[Found]:
        monkeypatch.setattr(sys, "argv", ["bench.py", *arguments, "--json", str(tmp_path / "rows.jsonl")])
        bench.main()
        return rows.read(tmp_path / "rows.jsonl")

    command.measured = measured
    return command


def test_what_is_in_the_file_is_not_measured_again(run, capsys):
    assert run("a1", "--repeats", "3") == run("a1") and run.measured == [3]
    assert "a1 is in " in capsys.readouterr().err


def test_what_other_code_measured_is_measured_again(run, monkeypatch):
    run("a1")
    monkeypatch.setattr(bench, "this_machine", lambda device: replace(AMX, commit="def"))
    (found,) = run("a1")
    assert found.row.value == 2 and found.machine.commit == "def"


def test_what_code_without_a_commit_measured_is_measured_again(run, monkeypatch):
    monkeypatch.setattr(bench, "this_machine", lambda device: replace(AMX, commit="abc+"))
    run("a1")
    (found,) = run("a1")
    assert found.row.value == 2


def test_rows_of_two_devices_are_not_in_one_file(run, capsys):
    run("a1")
    with pytest.raises(SystemExit):
        run("a1", "--device", "cuda")
    assert "has rows of cpu; give another file for those of cuda" in capsys.readouterr().err


def test_rows_of_other_items_stay(run, tmp_path):
    rows.write(tmp_path / "rows.jsonl", [Found(replace(STEP, item="e"), AMX)])
    assert [found.row.item for found in run("a1")] == ["e", "a1"]


def test_the_13b_needs_a_folder(run, capsys):
    with pytest.raises(SystemExit):
        run("c2")
    assert "c2 needs --folder, where 26 GB are free" in capsys.readouterr().err


@pytest.mark.parametrize("name", bench.ITEMS)
def test_every_item_is_there(name, tmp_path):
    assert callable(bench.item(name, tmp_path))


def test_this_machine_says_what_ran_where():
    machine = rows.this_machine()
    assert machine.versions["torch"] == torch.__version__ and machine.cpu and machine.cores >= 1


def test_turns_are_taken_and_their_spread_told():
    order: list[str] = []
    seconds = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, torch.device("cpu"), 3)
    assert order == ["a", "b"] * 3 and seconds["a"].repeats == 3
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 10.0]) == Spread(3.0, 1.0, 2.0, 5) and Spread.of([1.0]).iqr == 0


def test_a_fit_finds_what_made_the_times():
    sizes = np.array([300, 1000, 2000, 4000])
    assert scaling.fit(sizes, 0.1 + 2e-4 * sizes + 3e-8 * sizes**2) == pytest.approx((0.1, 2e-4, 3e-8))
    assert scaling.fit(sizes, 2e-4 * sizes) == pytest.approx((0, 2e-4, 0), abs=1e-9)


SMALL = replace(dit_step.MID, hidden_size=128, num_heads=1, num_double_blocks=1, num_single_blocks=1)


def test_a_step_of_ours_is_that_of_diffusers(monkeypatch):
    """At a size that takes no time, as before each measurement."""
    monkeypatch.setattr(dit_step, "MID", SMALL)
    monkeypatch.setattr(dit_step, "GRIDS", ((1, 8, 8),))
    monkeypatch.setattr(dit_step, "fresh_peak", lambda *given, device: 1.0)
    monkeypatch.setattr(dit_step, "floor", lambda tokens, dtype: 1.0)
    (row,) = dit_step.a1(1, torch.device("cpu"))
    assert row.case == "16 tokens, float32" and row.detail["error"] < 1e-5 and set(row.seconds) == {"ours", "theirs"}


def test_a_video_of_ours_is_that_of_diffusers(monkeypatch):
    monkeypatch.setattr(end_to_end, "MID", SMALL)
    monkeypatch.setattr(end_to_end, "VAE", replace(end_to_end.VAE, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4))
    monkeypatch.setattr(end_to_end, "SAMPLING", replace(end_to_end.SAMPLING, height=32, width=32, num_frames=5, num_steps=3))
    latents, video = end_to_end.c1(1, torch.device("cpu"))
    assert latents.value == 100 and set(video.seconds) == {"ours", "theirs"}
