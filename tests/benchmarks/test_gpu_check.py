"""benchmarks/gpu.sh, rehearsed on a CPU: every part works, and nothing that happens to one of them stops the others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import gpu_table
import pytest
from gpu_table import KILLED, PAGE, PARTS, Row, ending, put, read, section

ROOT = Path(__file__).parent.parent.parent
# Stands in for python: the tests are well, attention hangs, even if it is asked to end, the blocks fail, and the others are well.
STAND_IN = r"""#!/usr/bin/env bash
case "$2" in
    gpu.attention) trap '' TERM; while true; do sleep 0.1; done ;;
    gpu.blocks) printf 'first\n"broken" \\ \xff\n' >&2; exit 3 ;;
    gpu.*) echo '{"table": "ran"}' >>"$OUT/${2#gpu.}.jsonl" ;;
esac
"""


def gpu_check(folder: Path, *arguments: str, **environment: str) -> dict[str, list[Row]]:
    inherited = os.environ | {"OUT": str(folder), "PYTHON": sys.executable} | environment
    subprocess.run(["bash", str(ROOT / "benchmarks" / "gpu.sh"), *arguments], env=inherited, check=True, capture_output=True)
    return read(folder)


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsed")
    gpu_check(folder, "--rehearse")
    return folder


@pytest.fixture(scope="session")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[Row]], float]:
    """Rows, and the seconds it took, of a run of 12 seconds in which one part hangs and one fails."""
    python = tmp_path_factory.mktemp("bin") / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    start = time.monotonic()
    found = gpu_check(tmp_path_factory.mktemp("troubled"), PYTHON=str(python), GPU_SECONDS="12")
    return found, time.monotonic() - start


def end(rows: list[Row]) -> Row:
    (row,) = [row for row in rows if row["table"] == "end"]
    return row


@pytest.mark.slow  # all of benchmarks/gpu.sh, without a GPU
@pytest.mark.parametrize("part", PARTS)
def test_every_part_measures_and_ends_well(rehearsed: Path, part: str):
    rows = read(rehearsed)[part]
    assert rows[0]["table"] == "machine" and end(rows)["status"] == 0
    assert {row["table"] for row in rows} >= {table.name for table in PARTS[part][1]}


@pytest.mark.slow  # all of benchmarks/gpu.sh, without a GPU
@pytest.mark.parametrize("part", PARTS)
def test_no_case_fails(rehearsed: Path, part: str):
    assert [row for row in read(rehearsed)[part] if "failed" in row] == []


@pytest.mark.slow  # all of benchmarks/gpu.sh, without a GPU
def test_what_only_a_gpu_has_says_why_it_is_missing(rehearsed: Path):
    rows = [row for row in read(rehearsed)["attention"] if row["table"] == "attention"]
    assert {row["kernel"] for row in rows if "unavailable" not in row} == {"default"}


@pytest.mark.slow  # all of benchmarks/gpu.sh, without a GPU
def test_few_small_files_with_plain_names_come_back(rehearsed: Path):
    files = list(rehearsed.iterdir())
    assert len(files) == 9 and all(re.fullmatch(r"[\w.-]+", file.name) and file.stat().st_size < 2**24 for file in files)


def test_a_part_that_hangs_is_ended_and_the_next_ones_run(troubled):
    found, _ = troubled
    assert end(found["attention"])["status"] in KILLED
    assert [part for part, rows in found.items() if {"table": "ran"} in rows] == ["tests", "kernels", "fp8", "vae", "offload", "training"]


def test_a_part_that_fails_says_how_and_the_next_ones_run(troubled):
    found, _ = troubled
    assert end(found["blocks"])["status"] == 3 and end(found["blocks"])["said"].endswith('"broken" \\  \n')


def test_all_ends_in_time_whatever_happens(troubled):
    _, seconds = troubled
    assert seconds < 14  # what cannot be killed in 12 is left behind a second later


@pytest.mark.slow  # all of benchmarks/gpu.sh, without a GPU
def test_the_tables_hold_every_part(rehearsed: Path):
    text = section(read(rehearsed))
    assert text.startswith("**A rehearsal") and all(f"### {title}\n" in text for title, _ in PARTS.values())
    assert text.count("\n| 5x32x48 | ") > 10 and "needs a CUDA device" in text


def test_parts_that_are_missing_or_did_not_end_well_are_said(troubled):
    found, _ = troubled
    assert ending([]) == "**This part has not run.**"
    assert re.search(r"was ended after its \d s", ending(found["attention"])) and "status 3" in ending(found["blocks"])
    assert "did not come to its end" in ending([{"table": "ran"}])


def test_half_a_line_of_a_killed_part_is_no_row(tmp_path: Path):
    (tmp_path / "vae.jsonl").write_text('{"table": "a"}\n{"table": "b", "ms')
    assert read(tmp_path) == {"vae": [{"table": "a"}]}


def test_the_section_is_written_between_its_marks_and_nowhere_else():
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(gpu_table.START)[0], page.rpartition(gpu_table.END)[2]
    assert put(page, "new\n") == f"{before}{gpu_table.START}\nnew\n{gpu_table.END}{after}"


@pytest.mark.slow  # all of benchmarks/gpu.sh, without a GPU
def test_a_rehearsal_is_not_written_into_the_page(rehearsed: Path, monkeypatch, capsys):
    before = PAGE.read_bytes()
    monkeypatch.setattr(sys, "argv", ["gpu_table.py", str(rehearsed)])
    gpu_table.main()
    assert PAGE.read_bytes() == before and "A rehearsal" in capsys.readouterr().out
