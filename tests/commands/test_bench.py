"""What `hunyuan-video bench quality` compares with what."""

from __future__ import annotations

import pytest

from hunyuan_video import cli
from hunyuan_video.commands.bench import Bench
from hunyuan_video.config import SPEEDS, Runtime


@pytest.fixture
def presets(monkeypatch) -> None:
    whole = SPEEDS["exact"][1]
    for speed, threshold in (("exact", None), ("balanced", None), ("fast", 0.1), ("draft", 0.2)):
        cached = {"step_cache": "off" if threshold is None else "taylor", "cache_threshold": threshold}
        monkeypatch.setitem(SPEEDS, speed, (cached, whole))


def test_each_preset_that_is_not_exact_is_compared(presets):
    exact, others = Bench("quality", runtime=Runtime(dtype="float32")).compared()
    assert exact == Runtime(dtype="float32")
    assert others == {f"--speed {speed}": Runtime(speed=speed, dtype="float32") for speed in ("fast", "draft")}


@pytest.mark.parametrize(
    ("runtime", "flags"),
    [
        ({"speed": "fast"}, "--speed fast"),
        ({"pipefusion_patches": 4, "warmup_steps": 2}, "--pipefusion-patches 4 --warmup-steps 2"),
        ({"speed": "fast", "fp8": True}, "--speed fast --fp8"),
    ],
)
def test_settings_that_are_given_are_compared_alone_and_called_by_their_flags(presets, runtime, flags):
    given = Runtime(**runtime, vae_dtype="bfloat16")
    assert Bench("quality", runtime=given).compared() == (Runtime(vae_dtype="bfloat16"), {flags: given})


def test_where_all_is_exact_there_is_nothing_to_compare(monkeypatch):
    for speed in SPEEDS:
        monkeypatch.setitem(SPEEDS, speed, SPEEDS["exact"])
    with pytest.raises(ValueError, match="Every preset is exact here; give a setting that is not"):
        Bench("quality").compared()


@pytest.mark.parametrize("count", ["num-prompts", "num-seeds"])
def test_no_video_is_refused(count, capsys):
    assert cli.main(["bench", "quality", f"--{count}", "0"]) == 2
    assert f"{count.replace('-', '_')} is 0; it must be 1 or more" in capsys.readouterr().err


def test_other_weights_need_prompts_of_their_own(official_tree, capsys):
    assert cli.main(["bench", "quality", "--weights", str(official_tree), "--pipefusion-patches", "2"]) == 2
    assert "mean nothing to these weights; give --prompts-file" in capsys.readouterr().err


def test_it_goes_on_where_it_stopped_and_prints_the_table(official_tree, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("A cat.\n")
    size = ["--height", "32", "--width", "32", "--num-frames", "5", "--num-steps", "2"]
    command = ["bench", "quality", "--weights", str(official_tree), "--prompts-file", str(tmp_path / "prompts.txt"), *size]
    command += ["--out", str(tmp_path / "out"), "--pipefusion-patches", "2", "--num-seeds"]
    assert cli.main([*command, "1"]) == 0
    assert "seed 0" in capsys.readouterr().out
    assert cli.main([*command, "2"]) == 0
    said = capsys.readouterr().out
    assert "seed 0" not in said and "seed 1" in said and "| `--pipefusion-patches 2` | 2 |" in said
    assert (tmp_path / "out" / "quality.md").read_text(encoding="utf-8") in said
