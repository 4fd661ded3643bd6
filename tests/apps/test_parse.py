"""What a user mistypes gets one sentence: what came, what is right, what to do."""

from __future__ import annotations

import pytest

from hunyuan_video import cli
from hunyuan_video.apps import official


@pytest.mark.parametrize("columns", ["40", "200"])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["generate", "x", "--seed", "1e3"], "--seed is '1e3'; it must be a whole number or none."),
        (["generate", "x", "--num-frames", "x"], "--num-frames is 'x'; it must be a whole number."),
        (["generate", "x", "--shift", "x"], "--shift is 'x'; it must be a number."),
        (["generate", "x", "--format", "avi"], "--format is 'avi'; it must be mp4, webm, gif, png or latents."),
        (["generate", "x", "--num-frames"], "--num-frames lacks its value."),
        (["generate", "x", "--sed", "3"], "There is no option --sed; perhaps --seed was meant."),
        (["generate", "x", "--xyzzy"], "There is no option --xyzzy; `hunyuan-video generate --help` lists them."),
        (["generate", "a", "cat"], "'cat' is one word too many; put quotation marks around what belongs together."),
        (["generate", "-a cat"], "There is no option -a cat; a text that begins with a dash goes behind --, or after a space."),
        (["replay"], "`hunyuan-video replay` needs file; `hunyuan-video replay --help` says what that is."),
        (
            ["train", "lora", "--rank", "4"],
            "`hunyuan-video train lora` needs --out, --cache; `hunyuan-video train lora --help` says what that is.",
        ),
    ],
)
def test_a_wrong_command_line_is_a_sentence_at_any_width(arguments, sentence, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"hunyuan-video: {sentence}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--video-size", "a"], "--video-size is 'a'; it must be a whole number."),
        (["--sed", "1"], "There is no option --sed; perhaps --seed was meant."),
        (["--precision", "fp8"], "--precision is 'fp8'; it must be fp32, fp16 or bf16."),
        (["--infer-steps"], "--infer-steps lacks its value."),
    ],
)
def test_a_wrong_official_command_line_is_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=rf"^{sentence}$"):
        official.build_parser().parse_args(["--prompt", "x", *arguments])


def test_help_ends_well(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["generate", "--help"])
    assert not end.value.code and "--num-frames" in capsys.readouterr().out


def test_the_version_is_said(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hunyuan-video ")
