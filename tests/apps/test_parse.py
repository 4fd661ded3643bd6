"""What a user mistypes gets one sentence: what came, what is right, what to do."""

from __future__ import annotations

import re
import sys
from dataclasses import fields

import pytest

from hunyuan_video import cli
from hunyuan_video.apps import official
from hunyuan_video.apps.parse import deferred, parse
from hunyuan_video.config import Output, Runtime, Sampling


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["generate", "x", "--seed", "1e3"], "--seed is '1e3'; it must be a whole number."),
        (["generate", "x", "--num-frames", "x"], "--num-frames is 'x'; it must be a whole number."),
        (["generate", "x", "--shift", "x"], "--shift is 'x'; it must be a number."),
        (["generate", "x", "--format", "avi"], "--format is 'avi'; it must be gif, latents, mp4, png or webm."),
        (["generate", "x", "--schedule", "x"], "--schedule is 'x'; it must be linear-quadratic or shift."),
        (["generate", "x", "--num-frames"], "--num-frames lacks its value."),
        (["generate", "x", "--sed", "3"], "There is no option --sed; perhaps --seed was meant."),
        (["generate", "x", "--xyzzy"], "There is no option --xyzzy; `hunyuan-video generate --help` lists them."),
        (["generate", "a", "cat"], "'cat' is one word too many; give one thing, with quotation marks around words that belong together."),
        (["generate", "--", "-a cat", "--seed", "7"], "--seed stands behind --, where everything is text; put options before that."),
        (["generate", "x", "--num-frames", "9" * 23], f"num_frames is {'9' * 23}; it must be 10001 or less."),
        (["generate", "-a cat"], "There is no option -a cat; a text that begins with a dash goes behind --, or after a space."),
        (["replay"], "`hunyuan-video replay` needs file; `hunyuan-video replay --help` says what that is."),
        (
            ["rewrite"],
            "`hunyuan-video rewrite` needs what to show, in English or Chinese; `hunyuan-video rewrite --help` says what that is.",
        ),
        (["convert", "x"], "`hunyuan-video convert` needs where to, --to; `hunyuan-video convert --help` says what that is."),
        (
            ["train", "lora", "--rank", "4"],
            "`hunyuan-video train lora` needs --out, --cache; `hunyuan-video train lora --help` says what that is.",
        ),
    ],
)
def test_a_wrong_command_line_is_a_sentence_however_narrow_the_terminal(arguments, sentence, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"hunyuan-video: {sentence}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--video-size", "a"], "--video-size is 'a'; it must be a whole number."),
        (["--sed", "1"], "There is no option --sed; perhaps --seed was meant."),
        (["--precision", "fp8"], "--precision is 'fp8'; it must be bf16, fp16 or fp32."),
        (["--infer-steps"], "--infer-steps lacks its value."),
    ],
)
def test_a_wrong_official_command_line_is_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=rf"^{sentence}$"):
        official.build_parser().parse_args(["--prompt", "x", *arguments])


def help_of(capsys, *command: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--help"])
    assert not end.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    sorted({*(tuple(name.split()) for name in cli.COMMANDS), *((group, name) for group in cli.GROUPS for name in cli.GROUPS[group])}),
)
def test_help_fits_the_terminal_and_says_each_default_once(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    text = help_of(capsys, *command)
    assert max(map(len, text.splitlines())) <= 100
    assert "None" not in text
    entries = " ".join(text.split()).split(" --")
    assert all(entry.count("(default:") <= 1 for entry in entries)


def test_help_shows_every_setting_in_its_group(capsys):
    shown = help_of(capsys, "generate").split("\n\n")
    (video,), (place,) = ([part for part in shown if part.startswith(title)] for title in ("One video to make:", "Where videos go"))
    assert "--height INT" in video and "--seed INT" in video and "--out PATH" in place
    flags = {f"--{field.name.replace('_', '-')}" for kind in (Sampling, Runtime, Output) for field in fields(kind)}
    assert [flag for flag in flags if flag not in "".join(shown)] == []


def test_help_says_that_a_video_is_by_default_as_the_weights_were_made_for(capsys):
    text = " ".join(help_of(capsys, "generate").split())
    (video,) = re.findall(r"One video to make: (.*) Where videos go", text)
    of_no_weights = ("seed ", "strength ", "loop,", "no-loop ")
    entries = [entry for entry in video.split(" --") if not entry.startswith(of_no_weights)]
    assert [entry for entry in entries if "(default: the weights' own" not in entry] == []


def test_the_version_is_said(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hunyuan-video ")


def test_what_a_command_prints_while_it_works_is_not_swallowed(capsys):
    def work(number: int) -> None:
        """Work."""
        print(f"out {number}")
        print(f"err {number}", file=sys.stderr)

    parse(deferred(work), ["--number", "3"], "work")()
    assert capsys.readouterr() == ("out 3\n", "err 3\n")
