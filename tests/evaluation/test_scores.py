"""Lines of scores, and the tables of them."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from hunyuan_video.apps import score
from hunyuan_video.evaluation import scores
from hunyuan_video.evaluation.scores import Line, by_system, by_tag
from hunyuan_video.evaluation.study import Prompt, Source, Study, System

PROMPTS = (
    Prompt("0000", "a red cat", ("colour:red", "about:animal")),
    Prompt("0001", "a red car", ("colour:red",)),
    Prompt("0002", "a dog", ("about:animal",), ("scene",)),
)
STUDY = Study(Path("nowhere"), Source("a.txt", "00", True, "vbench"), 0, PROMPTS, (System("a", "folder"),))


def seen(id: str, *faults: str, speed: float = 1.0, **asked: bool) -> Line:
    numbers = dict.fromkeys(scores.MEANS, 0.5) | {"speed": speed}
    return Line(
        "a", id, "seen", "0", "c", numbers | {"faults": list(faults), "asked": {f"colour:{key}": is_so for key, is_so in asked.items()}}
    )


def test_lines_come_back_as_they_were_written_but_for_half_a_line(tmp_path):
    path = tmp_path / "scores.jsonl"
    lines = [seen("0000", red=True), seen("0001", "frozen")]
    scores.write(path, lines[:1])
    scores.append(path, lines[1])
    with path.open("a") as file:
        file.write('{"system": "a", "id"')
    assert scores.read(path) == lines
    assert scores.read(tmp_path / "none") == []


def test_something_else_is_refused(tmp_path):
    (tmp_path / "a").write_text('{"x": 1}\n')
    with pytest.raises(ValueError, match="holds no scores of this version"):
        scores.read(tmp_path / "a")


def test_a_row_says_what_is_sound_and_has_what_was_asked_for():
    (row,) = by_system(STUDY, [seen("0000", red=True), seen("0001", red=False, speed=3.0), seen("0002")], {"a": {"VBench scene": 0.4}}).rows
    assert row["clips"] == row["sound"] == 3 and row["as asked"] == "1 of 2" and row["faults"] == "none"
    assert row["speed"] == pytest.approx(5 / 3) and row["VBench scene"] == 0.4


def test_of_a_system_that_makes_no_videos_nothing_good_is_said():
    near = Line("a", "0000", "near b", "0", "c", {"PSNR": 40.0, "SSIM": 0.99})
    (row,) = by_system(STUDY, [seen("0000", "black", red=False), seen("0001", red=False), seen("0002"), near], {}).rows
    assert row["faults"] == "1 black" and not {"speed", "PSNR to b"} & row.keys()


def test_other_measures_stand_beside_and_identical_clips_have_no_psnr():
    near = [Line("a", id, "near b", "0", "c", {"PSNR": psnr, "SSIM": 1.0}) for id, psnr in (("0000", 30.0), ("0001", None))]
    (row,) = by_system(STUDY, [seen("0000"), seen("0001"), *near], {}).rows
    assert row["PSNR to b"] == 30 and row["SSIM to b"] == 1


def test_results_split_by_what_is_asked_for():
    rows = {row["asked for"]: row for row in by_tag(STUDY, [seen("0000", red=True), seen("0001", red=False), seen("0002", "frozen")]).rows}
    assert rows["colour:red"] == {"asked for": "colour:red", "prompts": 2, "a": "1 of 2 have it"}
    assert rows["about:animal"]["a"] == "1 of 2 sound" and rows["scene"]["a"] == "0 of 1 sound"


def test_a_table_says_which_prompts_these_are():
    text = str(by_system(STUDY, [seen("0000")], {}))
    assert text.startswith("By system, 3 prompts of a.txt (vbench, rewritten):\n\n| system | clips |") and "| a | 1 | 1 |" in text


def test_vbenchs_own_results_are_read(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"scene": [0.25, [{"video_path": "a.mp4", "video_results": 0.25}]]}))
    assert scores.of_vbench(path) == {"VBench scene": 0.25}
    path.write_text("{}")
    with pytest.raises(ValueError, match="holds no results of VBench"):
        scores.of_vbench(path)


def test_without_its_package_brisque_is_left_out_and_the_log_says_so(monkeypatch, caplog):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(score, "version", missing)
    assert [measure.set for measure in score._measures(STUDY, (), None)] == [scores.SEEN]
    assert "pip install 'hunyuan-video[brisque]'" in caplog.text
