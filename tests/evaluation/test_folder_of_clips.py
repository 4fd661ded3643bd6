"""Which clip of a folder is of which prompt."""

from __future__ import annotations

import pytest

from hunyuan_video.evaluation import folder
from hunyuan_video.evaluation.study import Prompt
from hunyuan_video.files import safe_name

PROMPTS = tuple(Prompt(f"{number:04}", text) for number, text in enumerate(("A cat: red, big.", "a dog", "A very " + "long " * 60 + "way")))


def matched(tmp_path, names: list[str]) -> list[str]:
    for name in names:
        (tmp_path / f"{name}.mp4").touch()
    return [path.stem for _, path in sorted(folder.match(tmp_path, PROMPTS).items())]


@pytest.mark.parametrize("names", [["0000", "0001", "0002"], ["0", "1", "2"], ["0", "1", "2", "7"]])
def test_numbers_are_the_prompts(names, tmp_path):
    assert matched(tmp_path, names) == names[:3]


def test_names_are_the_prompts_as_file_systems_allow_them(tmp_path):
    names = ["A cat_ red, big", "a dog", "A very " + "long " * 40]
    assert matched(tmp_path, names) == names


def test_names_of_our_own_files_are_known(tmp_path):
    names = [safe_name(prompt.prompt, 7, ["4steps"]) for prompt in PROMPTS]
    assert matched(tmp_path, names) == names


def test_of_vbenchs_five_the_first_is_taken(tmp_path):
    names = [f"{text}-{take}" for text in ("A cat red big", "a dog", "A very " + "long " * 40) for take in (3, 0, 1)]
    assert [name[-2:] for name in matched(tmp_path, names)] == ["-0", "-0", "-0"]


def test_a_prompt_that_ends_in_a_number_is_no_take_of_another(tmp_path):
    prompts = (Prompt("0000", "apollo"), Prompt("0001", "apollo-11"))
    for name in ("apollo", "apollo-11"):
        (tmp_path / f"{name}.mp4").touch()
    assert [path.stem for path in folder.match(tmp_path, prompts).values()] == ["apollo", "apollo-11"]


@pytest.mark.parametrize("names", [["long-0"], ["long-0", "LONG-0"], ["long"]])
def test_names_that_may_be_of_two_prompts_are_of_none(tmp_path, names):
    prompts = tuple(Prompt(f"{number:04}", "so " * 40 + end) for number, end in enumerate(("left", "right")))
    for name in names:
        (tmp_path / f"{name.replace('long', 'so ' * 30)}.mp4").touch()
    with pytest.raises(ValueError, match="2 of 2 prompts have no clip"):
        folder.match(tmp_path, prompts)


def test_two_first_takes_are_two_clips(tmp_path):
    with pytest.raises(ValueError, match=r"1 of 3 prompts have more than one clip in .*, such as 0001 \(a dog\)"):
        matched(tmp_path, ["A cat red big-0", "a dog-0", "A dog-0", "A very " + "long " * 40 + "-0"])


def test_missing_clips_are_counted_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"2 of 3 prompts have no clip in .*, such as 0000 \(A cat red big\); call each clip by"):
        matched(tmp_path, ["a dog"])


def test_two_clips_of_a_prompt_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"1 of 3 prompts have more than one clip in .*, such as 0001 \(a dog\)"):
        matched(tmp_path, ["A cat red big", "a dog", "A dog", "A very " + "long " * 40])


def test_a_folder_without_clips_or_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \.mp4 files"):
        folder.match(tmp_path, PROMPTS)
    with pytest.raises(NotADirectoryError, match="is no folder of clips"):
        folder.match(tmp_path / "none", PROMPTS)


def test_other_clips_are_another_digest(tmp_path):
    (tmp_path / "one.mp4").write_bytes(b"1")
    before = folder.digest({"0000": tmp_path / "one.mp4"})
    (tmp_path / "one.mp4").write_bytes(b"2")
    assert folder.digest({"0000": tmp_path / "one.mp4"}) != before
