"""The tables of docs/faster.md are those of the rows that are kept."""

from __future__ import annotations

from pathlib import Path

import inexact

from hunyuan_video.evaluation import quality

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "benchmarks/results/quality/rows.jsonl"


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `--")]


def test_each_line_of_the_page_is_that_of_the_rows_and_none_is_left_out():
    page = (ROOT / "docs/faster.md").read_text(encoding="utf-8")
    measured = lines(quality.table(quality.read(KEPT)))
    assert [line for line in lines(page) if line.count("|") == measured[0].count("|")] == [*measured[3:6], *measured[:3], *measured[6:]]


def test_each_setting_that_is_measured_is_kept_for_as_many_clips():
    rows = quality.read(KEPT)
    wanted = {f"--num-steps {number}" for number in inexact.FEWER_STEPS} | {inexact.name_of(runtime) for runtime in inexact.settings()}
    assert {row.settings for row in rows} == wanted and len(rows) == 30 * len(wanted)
