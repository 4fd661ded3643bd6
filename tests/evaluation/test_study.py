"""A study's folder: what is in it, and what is refused."""

from __future__ import annotations

import json

import pytest

from hunyuan_video.evaluation.study import Prompt, Source, Study, System

SOURCE = Source("own.txt", "ab" * 32, rewritten=False, benchmark="own")
PROMPTS = (Prompt("0000", "A red\nkite.", ("colour:red",)), Prompt("0001", "海\u2028", (), ("scene",)))
FAST = System("fast", "weights", {"steps": 4})


@pytest.fixture
def study(tmp_path):
    return Study.create(tmp_path / "study", SOURCE, PROMPTS, seed=7)


def test_a_study_is_read_as_it_was_made(study):
    assert Study.read(study.folder) == study
    assert Study.read(study.folder).prompts == PROMPTS


def test_the_file_is_the_agreed_one(study):
    made = study.with_systems([FAST])
    stored = json.loads((made.folder / "study.json").read_text())
    assert stored["version"] == 1 and stored["seed"] == 7
    assert stored["prompts"] == {"source": "own.txt", "sha256": "ab" * 32, "rewritten": False, "benchmark": "own"}
    assert stored["systems"] == [{"name": "fast", "kind": "weights", "steps": 4}]


def test_another_study_in_the_folder_is_refused(study):
    with pytest.raises(ValueError, match="with seed 7, and not of 2 prompts"):
        Study.create(study.folder, SOURCE, PROMPTS, seed=8)


def test_systems_that_another_process_added_meanwhile_are_kept(study):
    study.with_systems([FAST])
    assert [system.name for system in study.with_systems([System("slow", "weights")]).systems] == ["fast", "slow"]


def test_a_system_that_is_made_otherwise_now_is_refused(study):
    study.with_systems([FAST])
    with pytest.raises(ValueError, match="steps is 4 there and 8 here"):
        study.with_systems([System("fast", "weights", {"steps": 8})])


def test_what_is_missing_is_what_has_no_file(study):
    clip = study.clip("fast", "0001")
    clip.parent.mkdir(parents=True)
    clip.touch()
    assert study.missing("fast") == PROMPTS[:1]


def test_a_prompt_has_one_seed_in_all_systems(study):
    assert [study.seed_of(prompt.id) for prompt in PROMPTS] == [7, 8]


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(ValueError, match="letters, digits"):
        System(name, "weights")


@pytest.mark.parametrize("id", ["../a", "/etc/a", "", "a b"])
def test_a_prompt_whose_id_is_no_file_of_the_study_is_refused(study, id):
    file = study.folder / "prompts.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace(json.dumps(study.prompts[0].id), json.dumps(id)), encoding="utf-8")
    with pytest.raises(ValueError, match="A prompt's id is"):
        Study.read(study.folder)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no study; `hunyuan-video evaluate run"):
        Study.read(tmp_path)


def test_a_damaged_study_is_refused_in_one_sentence(study):
    (study.folder / "prompts.jsonl").unlink()
    with pytest.raises(ValueError, match="holds no study that can be read"):
        Study.read(study.folder)
