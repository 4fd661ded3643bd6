"""Systems as a user writes them."""

from __future__ import annotations

import pytest

from hunyuan_video.evaluation.systems import Asked, read_all


def test_a_word_is_a_system():
    assert read_all(
        ["embedded", "fast=weights:,num_steps=4,speed=fast", "other=folder:clips/a b", "api=endpoint:http://h:1/v1,model=m"]
    ) == (
        Asked("embedded", "weights", "embedded"),
        Asked("fast", "weights", "", {"num_steps": "4", "speed": "fast"}),
        Asked("other", "folder", "clips/a b"),
        Asked("api", "endpoint", "http://h:1/v1", {"model": "m"}),
    )


def test_a_file_has_a_table_of_each(tmp_path):
    path = tmp_path / "systems.toml"
    path.write_text('[exact]\nweights = "ckpts"\nfp8 = true\ncfg_scale = 1.5\n[old]\nfolder = "clips"\n', encoding="utf-8")
    assert read_all([str(path)]) == (
        Asked("exact", "weights", "ckpts", {"fp8": "true", "cfg_scale": "1.5"}),
        Asked("old", "folder", "clips"),
    )


def test_options_are_flags():
    options = {"num_steps": "4", "fp8": "true", "tiling": "false"}
    assert Asked("a", "weights", "", options).flags == ["--num-steps", "4", "--fp8", "--no-tiling"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["fast"], "'fast' is no system; write NAME=weights:PATH"),
        (["a=model:x"], "is no system"),
        (["a=weights:x,fast"], "'fast' in .* is no KEY=VALUE"),
        (["a=weights:x", "a=folder:y"], "Two systems are called a"),
    ],
)
def test_what_is_no_system_is_refused(words, why):
    with pytest.raises(ValueError, match=why):
        read_all(words)


@pytest.mark.parametrize(("text", "why"), [("a = 1", "outside a table"), ("[a]\nmodel = 1", "must have one of"), ("[a", "no TOML file")])
def test_a_file_of_something_else_is_refused(text, why, tmp_path):
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=why):
        read_all([str(tmp_path / "a.toml")])
