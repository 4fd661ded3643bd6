"""`hunyuan-video rewrite` and `generate --rewrite`: what is printed, what is recorded, and what a replay says of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_llm import failing, serving

from hunyuan_video import cli
from hunyuan_video.files import user_cache
from hunyuan_video.video import read_metadata

SMALL = ["--height", "32", "--width", "48", "--num-frames", "5", "--num-steps", "1", "--seed", "7"]
SMALL += ["--attention", "sdpa", "--block-ops", "pytorch"]  # with an empty cache, which are the fastest would be measured
GOOD = "A cat walks on grass. Realistic, soft light."


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of its own, and no key but a test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HUNYUAN_VIDEO_REWRITE_KEY", raising=False)
    return tmp_path / "cache"


def test_a_prompt_is_rewritten_and_printed_alone(capsys):
    assert cli.main(["rewrite", "一只猫在草地上走"]) == 0
    assert capsys.readouterr().out == "A cat walks on grass. Realistic, Natural lighting, Peaceful\n"


def test_a_notice_goes_to_the_log(capsys, caplog):
    assert cli.main(["rewrite", "一只饕餮", "--mode", "master"]) == 0
    assert "Not translated, and kept as they are: 饕餮" in caplog.text and "Not translated" not in capsys.readouterr().out


def test_a_server_is_asked_with_the_key_of_the_environment(capsys, caplog, monkeypatch):
    monkeypatch.setenv("HUNYUAN_VIDEO_REWRITE_KEY", "sk-secret")
    with serving(GOOD, failing(500)) as llm:
        for _ in range(2):  # the second time from the cache
            assert cli.main(["rewrite", "一只猫", "--rewrite-url", llm.url, "--rewrite-model", "qwen"]) == 0
            assert capsys.readouterr().out == f"{GOOD}\n"
    assert llm.headers[0]["Authorization"] == "Bearer sk-secret" and len(llm.requests) == 1 and "secret" not in caplog.text


def test_a_server_that_fails_leaves_the_prompt_with_a_notice(capsys, caplog):
    with serving(failing(500)) as llm:
        assert cli.main(["rewrite", "一只猫", "--rewrite-url", llm.url, "--rewrite-model", "qwen"]) == 0
    assert capsys.readouterr().out == "一只猫\n" and "The prompt stays as it is" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rewrite", " "], "The prompt is empty"),
        (["rewrite", "a", "--mode", "best"], "--mode is 'best'; it must be master or normal."),
        (["rewrite", "a", "--rewrite-url", "http://localhost/v1"], "rewrite_url is given without rewrite_model"),
        (["rewrite", "a", "--rewrite-model", "nowhere"], "rewrite_model is nowhere, which is no folder"),
        (["generate", "a", "--rewrite", "normal", "--rewrite-url", "x", "--rewrite-model", "y"], "rewrite_url is 'x'; it must be an http"),
        (["generate", "a", "--rewrite-model", "y"], "add --rewrite normal"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(arguments, sentence, capsys):
    assert cli.main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_video_records_what_was_typed_and_a_replay_says_so(official_tree, tmp_path, capsys, caplog):
    where = ["--weights", str(official_tree), "--out", str(tmp_path)]
    assert cli.main(["generate", "一只猫", "--rewrite", "normal", *SMALL, *where]) == 0
    path = capsys.readouterr().out.split()[-1]
    made = read_metadata(path)
    assert made["prompt"] == "A cat. Realistic, Natural lighting, Peaceful"
    assert made["rewriting"] == {"original": "一只猫", "mode": "normal", "backend": "offline"}
    assert "Rewritten (normal, offline): A cat." in caplog.text
    caplog.clear()
    assert cli.main(["replay", path, *where]) == 0
    assert "identical" in capsys.readouterr().out
    assert "rewritten (normal, by 'offline') from '一只猫'" in caplog.text


def test_a_prompt_is_rewritten_once_for_all_its_seeds_and_a_resumed_run_not_at_all(official_tree, tmp_path, capsys):
    where = ["--weights", str(official_tree), "--out", str(tmp_path / "out")]
    asked = ["--rewrite", "master", "--rewrite-model", "qwen"]
    with serving(GOOD) as llm:
        asked += ["--rewrite-url", llm.url]
        assert cli.main(["generate", "一只猫", *asked, *SMALL, *where, "--num-videos", "2"]) == 0
        assert len(llm.requests) == 1
        state = tmp_path / "state.safetensors"
        assert cli.main(["generate", "一只狗", *asked, *SMALL, *where, "--save-state", str(state)]) == 0
        assert cli.main(["generate", "--resume", str(state), *where]) == 0
        assert len(llm.requests) == 2
    made = [read_metadata(path) for path in capsys.readouterr().out.split()]
    assert [video["rewriting"]["original"] for video in made] == ["一只猫", "一只猫", "一只狗", "一只狗"]
    assert made[3]["rewriting"] == {"original": "一只狗", "mode": "master", "backend": "remote qwen"}


def test_without_rewrite_nothing_is_rewritten_or_recorded(official_tree, tmp_path, capsys):
    assert cli.main(["generate", "一只猫", *SMALL, "--weights", str(official_tree), "--out", str(tmp_path)]) == 0
    made = read_metadata(capsys.readouterr().out.split()[-1])
    assert made["prompt"] == "一只猫" and made["rewriting"] is None


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"HOME": "/home/me"}, "/home/me/.cache/hunyuan-video"),
        ("linux", {"XDG_CACHE_HOME": "/cache"}, "/cache/hunyuan-video"),
        ("darwin", {"HOME": "/Users/me"}, "/Users/me/Library/Caches/hunyuan-video"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/hunyuan-video"),
    ],
)
def test_the_cache_is_where_each_system_has_it(platform, variables, expected, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("sys.platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert user_cache() == Path(expected)


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert user_cache() is None
