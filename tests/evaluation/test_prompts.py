"""Prompts of a study: text files, CSV with several lines in a cell, and lists that are known by their content."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hunyuan_video.evaluation import prompts

DATA = Path(__file__).parent.parent / "data" / "vbench"


def penguin(path: Path) -> Path:
    """As the benchmark writes its file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["", "prompt"], ["0", "A quail.\nIt pecks."], ["1", 'A man says "hm", twice.'], ["2", "A quail.\nIt pecks."]]
        )
    return path


def test_a_csv_keeps_lines_and_commas_of_a_prompt_and_equal_rows(tmp_path):
    _, found = prompts.read(penguin(tmp_path / "penguin.csv"))
    assert [(prompt.id, prompt.prompt) for prompt in found] == [
        ("0000", "A quail.\nIt pecks."),
        ("0001", 'A man says "hm", twice.'),
        ("0002", "A quail.\nIt pecks."),
    ]


def test_the_penguin_benchmark_is_known_by_its_content(tmp_path, monkeypatch):
    path = penguin(tmp_path / "mine.csv")
    assert prompts.read(path)[0].benchmark == "own"
    monkeypatch.setattr(prompts, "PENGUIN", prompts.read(path)[0].sha256[:16])
    assert prompts.read(path)[0].benchmark == "penguin"


@pytest.mark.parametrize(("name", "rewritten"), [("all_dimension.txt", False), ("hunyuan_all_dimension.txt", True)])
def test_vbench_is_known_and_whether_it_is_rewritten(name, rewritten):
    source, found = prompts.read(DATA / name)
    assert (source.benchmark, source.rewritten, len(found)) == ("vbench", rewritten, 946)


def test_each_line_of_vbench_has_its_dimensions():
    _, found = prompts.read(DATA / "all_dimension.txt")
    said = {prompt.prompt: prompt.dimensions for prompt in found}
    assert said["In a still frame, a stop sign"] == ("temporal_flickering",)
    assert said["a blue car"] == ("color",)
    assert said["A person is laughing"] == ("human_action",)
    assert said["arch"] == ("scene", "background_consistency")
    assert said["a bird and a cat"] == ("multiple_objects",)
    assert said["a horse on the right of a sheep, front view"] == ("spatial_relationship",)
    assert said["Gwen Stacy reading a book, oil painting"] == ("appearance_style",)
    assert said["The bund Shanghai, tilt down"] == ("temporal_style",)
    assert said["skis"] == ("object_class",)
    assert {prompt.dimensions for prompt in found if len(prompt.dimensions) == 3} == {dims for _, dims in prompts.BLOCKS if len(dims) == 3}


def test_every_coloured_thing_of_vbench_is_tagged_with_its_colour():
    _, found = prompts.read(DATA / "all_dimension.txt")
    asked = [prompt for prompt in found if prompt.dimensions == ("color",)]
    assert [prompt.prompt for prompt in asked if not any(tag == f"colour:{prompt.prompt.split()[1]}" for tag in prompt.tags)] == []


def test_a_csv_with_half_a_field_is_refused(tmp_path):
    (tmp_path / "p.csv").write_text('prompt\n"a cat', encoding="utf-8")
    with pytest.raises(ValueError, match=r"p\.csv is no CSV that can be read .*; a quotation mark"):
        prompts.read(tmp_path / "p.csv")


def test_a_text_file_is_the_users_and_so_is_what_it_says_of_it(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("A cat.\n\nA dog.\n", encoding="utf-8")
    source, found = prompts.read(path, rewritten=True)
    assert (source.source, source.rewritten, source.benchmark) == ("mine.txt", True, "own")
    assert [prompt.prompt for prompt in found] == ["A cat.", "A dog."]


@pytest.mark.parametrize("content", ["number,text\n0,A cat.\n", "prompt\n", "prompt\nA cat.\n  \n"])
def test_a_csv_without_prompts_or_with_an_empty_one_is_refused(content, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"no column called `prompt`|Prompt 2 of .* is empty"):
        prompts.read(path)
