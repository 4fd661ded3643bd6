"""The command line as a user meets it: it works, it refuses with one sentence, and it loses nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import random_lora
from forked import python
from media_files import read_video
from PIL import Image
from safetensors.torch import load_file, save_file

from hunyuan_video import HunyuanVideo, Sampling, checkpoint, cli, video
from hunyuan_video.checkpoint import convert as conversion
from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.checkpoint.lora import save_lora
from hunyuan_video.commands.bench import Bench
from hunyuan_video.commands.demo import Demo
from hunyuan_video.commands.evaluate import Embedded
from hunyuan_video.commands.serving import Serve, Worker
from hunyuan_video.config import Runtime
from hunyuan_video.weights import find_or_embedded, locate

SMALL = ["--height", "32", "--width", "48", "--num-frames", "5", "--num-steps", "2"]
NAME = "A_cat_seed{}_2steps_32x48_5frames"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_BASE", raising=False)


@pytest.fixture
def generate(official_tree):
    def run(*arguments: str) -> int:
        return cli.main(["generate", *arguments, *SMALL, "--weights", str(official_tree)])

    return run


def only(pattern: str) -> Path:
    (path,) = Path("results").glob(pattern)
    return path


def test_a_prompt_becomes_a_video_file_whose_path_is_printed(generate, capsys):
    assert generate("A cat.", "--seed", "3") == 0
    path = only("*.mp4")
    assert capsys.readouterr().out.strip() == str(path) == f"results/{NAME.format(3)}.mp4"
    frames, fps = read_video(path)
    assert frames.shape == (5, 32, 48, 3) and fps == 24


@pytest.mark.parametrize(
    ("form", "pattern"), [("webm", "*.webm"), ("gif", "*.gif"), ("png", f"{NAME.format(0)}/00004.png"), ("latents", "*.safetensors")]
)
def test_every_format_is_written_and_can_be_replayed(generate, official_tree, capsys, form, pattern):
    assert generate("A cat.", "--seed", "0", "--format", form) == 0
    path = only(pattern)
    target = str(path.parent if form == "png" else path)
    if form == "latents":
        assert cli.main(["decode", target, "--weights", str(official_tree)]) == 0
        target = str(only("*.mp4"))
    assert cli.main(["replay", target, "--weights", str(official_tree)]) == 0
    assert "The frames are identical." in capsys.readouterr().out


def test_several_videos_count_their_seeds_up_and_say_which_they_are(generate, caplog):
    caplog.set_level("INFO", "hunyuan_video")
    assert generate("A cat.", "--seed", "5", "--num-videos", "3") == 0
    assert [text for text in caplog.messages if text.startswith("Video")] == ["Video 1 of 3", "Video 2 of 3", "Video 3 of 3"]
    assert {path.name for path in Path("results").iterdir()} == {f"{NAME.format(seed)}.mp4" for seed in (5, 6, 7)}


def test_a_sign_of_life_comes_before_what_takes_long(generate, official_tree, caplog, monkeypatch):
    caplog.set_level("INFO", "hunyuan_video")
    monkeypatch.setattr(HunyuanVideo, "load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(pytest.fail.Exception):
        generate("A cat.")
    assert caplog.messages == [f"Loading {official_tree} …"]


@pytest.mark.parametrize("command", [["replay", "a.mp4"], ["decode", "a.safetensors"], ["generate", "--resume", "a.safetensors"]])
def test_a_sign_of_life_comes_before_a_file_is_read(command, caplog):
    caplog.set_level("INFO", "hunyuan_video")
    assert cli.main(command) == 2
    assert caplog.messages == [f"Reading {command[-1]} …"]


def test_a_file_of_prompts_makes_one_video_each(generate):
    Path("prompts.txt").write_text("A cat.\n\nA dog 狗.\n", encoding="utf-8")
    assert generate("--prompts-file", "prompts.txt", "--seed", "0") == 0
    assert len(list(Path("results").iterdir())) == 2


def test_what_differs_from_the_weights_settings_stands_in_the_name(lora_file, made_small):
    Path("ckpts").symlink_to(made_small)

    def name(*flags: str) -> str:
        before = set(Path("results").glob("*"))
        assert cli.main(["generate", "A cat walks on the grass.", "--seed", "7", "--num-steps", "1", *flags, "--format", "latents"]) == 0
        (path,) = set(Path("results").glob("*")) - before
        return path.stem.removeprefix("A_cat_walks_on_the_grass_seed7_1steps")

    assert name() == name("--height", "64", "--guidance", "2").removesuffix("-2") == ""  # as the weights were made for
    assert name("--height", "48", "--width", "96", "--shift", "3") == "_48x96_shift3"
    assert name("--cfg-scale", "1.5", "--guidance", "4") == "_guidance4_cfg1.5"
    assert name("--num-frames", "9", "--noise", "official") == "_9frames_official-noise"
    one, other = (name("--cfg-scale", "2", "--negative-prompt", text) for text in ("blurry", "dark"))
    assert one.startswith("_cfg2_negative-") and one != other and not other.endswith("-2")
    whole, part = (name("--lora", f"{lora_file}:{strength}") for strength in ("0.5", "0.5,single_blocks=0"))
    assert re.fullmatch("_lora-style-[0-9a-f]{4}-0.5", whole) and part.startswith(f"{whole}-") and part != f"{whole}-2"
    other = Path("other") / lora_file.name  # as all trainings call theirs
    other.parent.mkdir()
    save_file({name: tensor * 2 for name, tensor in load_file(lora_file).items()}, other)
    another = name("--lora", f"{other}:0.5")
    assert re.fullmatch("_lora-style-[0-9a-f]{4}-0.5", another) and another != whole
    assert name("--fps", "12") == "_12fps"
    Image.new("RGB", (60, 40), "red").save("red.png")
    assert name("--image", "red.png").startswith("_image-")


def test_nothing_is_overwritten(generate):
    for _ in range(2):
        assert generate("A cat.", "--seed", "0") == 0
    assert {path.name for path in Path("results").iterdir()} == {f"{NAME.format(0)}.mp4", f"{NAME.format(0)}-2.mp4"}


def test_no_metadata_means_none(generate):
    assert generate("A cat.", "--no-metadata") == 0
    with pytest.raises(ValueError, match="no metadata"):
        video.read_metadata(only("*.mp4"))


def test_metadata_holds_every_setting(generate):
    assert generate("A cat.", "--seed", "4", "--cfg-scale", "2", "--guidance", "5") == 0
    settings = video.read_metadata(only("*.mp4"))
    assert settings["prompt"] == "A cat."
    assert settings["negative_prompt"].startswith("Aerial view")
    assert settings["sampling"] | {"seed": 4, "cfg_scale": 2.0, "guidance": 5.0, "height": 32} == settings["sampling"]
    assert {"model", "hunyuan_video", "torch", "runtime", "device"} <= settings.keys()


def test_every_command_finds_weights_at_model_base(generate, official_tree, monkeypatch, capsys):
    assert generate("A cat.", "--seed", "4") == 0
    monkeypatch.setenv("MODEL_BASE", str(official_tree))
    assert cli.main(["replay", str(only("*.mp4"))]) == 0
    assert cli.main(["info"]) == 0
    assert "missing" not in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_to_is_refused_before_replaying(generate, official_tree, monkeypatch, capsys):
    assert generate("A cat.", "--seed", "4") == 0
    monkeypatch.setattr(HunyuanVideo, "load", lambda *_: pytest.fail("weights were read"))
    assert cli.main(["replay", str(only("*.mp4")), "--weights", str(official_tree), "--out", "/proc/nope"]) == 2
    assert "Cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings", [{"prompt": "x", "hunyuan_video": "9.0"}, {"prompt": "x", "model": "y", "sampling": {"magic": 1}, "runtime": {}}]
)
def test_settings_of_another_version_are_refused_with_a_sentence(settings, capsys):
    video.save_video(np.zeros((1, 16, 16, 3), np.uint8), "a.mp4", metadata=settings | {"frames_sha256": ""})
    assert "settings that this version cannot use" in refused(capsys, "replay", "a.mp4")


def test_a_latents_file_is_not_replayed_but_decoded(generate, official_tree, capsys):
    assert generate("A cat.", "--format", "latents", "--seed", "0") == 0
    assert "hunyuan-video decode" in refused(capsys, "replay", str(only("*.safetensors")))


def test_replay_with_other_weights_is_refused(generate, capsys):
    assert generate("A cat.", "--seed", "4") == 0
    assert cli.main(["replay", str(only("*.mp4"))]) == 2
    assert "was made with other weights" in capsys.readouterr().err


def test_the_embedded_model_is_used_and_named_where_there_are_no_others(caplog, capsys):
    caplog.set_level("INFO", "hunyuan_video")
    assert cli.main(["generate", "A cat walks on the grass.", "--num-steps", "1", "--seed", "0"]) == 0
    assert "using the embedded miniature" in caplog.text and "hunyuan-video download" in caplog.text
    assert read_video(only("*.mp4"))[0].shape == (33, 128, 128, 3)


EMBEDDED = ["generate", "A cat walks on the grass.", *SMALL, "--seed", "0"]


@pytest.fixture
def lora_file() -> Path:
    """For the embedded model."""
    path = Path("style.safetensors")
    model = checkpoint.load_transformer(find_or_embedded(None).transformer, torch.float32, torch.device("cpu"))
    save_lora(random_lora(model), path, "diffusers")
    return path


def test_a_lora_changes_the_video_and_is_replayed(lora_file, capsys):
    assert cli.main(EMBEDDED) == 0
    assert cli.main([*EMBEDDED, "--lora", str(lora_file), "--lora", f"{lora_file}:-0.5"]) == 0
    plain, styled = (video.read_metadata(only(f"*_5frame{ending}.mp4")) for ending in ("s", "s_lora-style-*"))
    assert styled["frames_sha256"] != plain["frames_sha256"]
    known = [(adapter["name"], adapter["strengths"]["everywhere"]) for adapter in styled["adapters"]]
    assert known == [(lora_file.name, 1.0), (lora_file.name, -0.5)]
    moved = lora_file.rename("renamed.safetensors")  # for what counts is its content
    assert cli.main(["replay", str(only("*_lora-style-*.mp4")), "--lora", str(moved)]) == 0
    assert "The frames are identical." in capsys.readouterr().out


def test_a_video_made_with_a_folder_is_replayed_with_the_file_and_the_other_way_round(lora_file, capsys):
    folder = Path("run")
    folder.mkdir()
    lora_file = lora_file.rename(folder / "pytorch_lora_weights.safetensors")
    assert cli.main([*EMBEDDED, "--lora", str(folder)]) == 0
    for again in (folder, lora_file):
        assert cli.main(["replay", str(only("*_lora-run-*.mp4")), "--lora", str(again), "--out", f"again{again.suffix}"]) == 0
        assert "The frames are identical." in capsys.readouterr().out


def test_replaying_says_which_lora_is_wanted_and_refuses_another_one(lora_file, capsys):
    assert cli.main([*EMBEDDED, "--lora", str(lora_file)]) == 0
    path = str(only("*.mp4"))
    assert "was made with a LoRA called 'style.safetensors' (SHA-256 " in refused(capsys, "replay", path)
    assert "acted with other strengths" in refused(capsys, "replay", path, "--lora", f"{lora_file}:0.5")
    lora_file.write_bytes(lora_file.read_bytes()[:-1] + b"x")
    assert "was made with a LoRA called 'style.safetensors'" in refused(capsys, "replay", path, "--lora", str(lora_file))


def test_a_lora_that_had_no_part_in_a_video_is_refused(lora_file, capsys):
    assert cli.main(EMBEDDED) == 0
    assert "style.safetensors is no LoRA that" in refused(capsys, "replay", str(only("*.mp4")), "--lora", str(lora_file))


def test_latents_made_with_a_lora_are_decoded_without_and_replayed_with_it(lora_file, capsys):
    assert cli.main([*EMBEDDED, "--lora", str(lora_file), "--format", "latents"]) == 0
    assert cli.main(["decode", str(only("*.safetensors"))]) == 0
    assert cli.main(["replay", str(only("*.mp4")), "--lora", str(lora_file)]) == 0
    assert "The frames are identical." in capsys.readouterr().out


def test_a_video_that_begins_with_a_picture_is_replayed_with_that_one_alone(capsys):
    for name, colour in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (60, 40), colour).save(name)
    assert cli.main([*EMBEDDED, "--image", "red.png"]) == 0
    path = str(only("*.mp4"))
    assert "begins with a picture; give the one" in refused(capsys, "replay", path)
    assert "begins with another picture" in refused(capsys, "replay", path, "--image", "blue.png")
    Image.open("red.png").save("copy.bmp")
    assert cli.main(["replay", path, "--image", "copy.bmp"]) == 0
    assert "The frames are identical." in capsys.readouterr().out


@pytest.mark.parametrize("field", ["transformer", "adapters", "image_sha256"])
def test_no_path_that_a_file_names_is_opened(generate, official_tree, field):
    """Such as /dev/zero, whose content never ends."""
    assert generate("A cat.", "--seed", "0") == 0
    made = video.read_metadata(only("*.mp4"))
    hostile = [{"name": "/dev/zero", "sha256": "/dev/zero", "strengths": {"everywhere": 1.0, "blocks": []}}]
    made[field] = hostile if field == "adapters" else "/dev/zero"
    video.save_video(np.zeros((1, 16, 16, 3), np.uint8), "a.mp4", metadata=made)
    opened, watching = [], [True]  # a hook stays for ever
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if watching and event == "open" else None)
    cli.main(["replay", "a.mp4", "--weights", str(official_tree)])
    watching.clear()
    assert "a.mp4" in opened and "/dev/zero" not in opened


def test_another_transformer_is_recorded_and_replayed_from_wherever_it_is(generate, official_tree, tmp_path, capsys):
    (other,) = convert(locate(official_tree).transformer, tmp_path / "mine.gguf", "gguf")
    assert generate("A cat.", "--seed", "0", "--transformer", str(other)) == 0
    path = only("*.mp4")
    assert video.read_metadata(path)["transformer"] == "mine.gguf"
    assert cli.main(["replay", str(path), "--weights", str(official_tree)]) == 2
    error = capsys.readouterr().err
    assert "with a transformer called 'mine.gguf'" in error and "--transformer" in error
    moved = other.rename(tmp_path / "moved.gguf")
    assert cli.main(["replay", str(path), "--weights", str(official_tree), "--transformer", str(moved)]) == 0
    assert "The frames are identical." in capsys.readouterr().out


@pytest.mark.parametrize("where", ["ckpts", "named"])
def test_a_root_without_a_transformer_does_with_a_given_one_and_keeps_its_own_settings(official_tree, tmp_path, capsys, where):
    other = tmp_path / "mine.pt"
    root = shutil.copytree(official_tree, tmp_path / where)
    locate(root).transformer.rename(other)
    (root / "generation_config.json").write_text('{"height": 48, "width": 32, "num_frames": 5, "num_steps": 2}')
    flags = ["--transformer", str(other), *(["--weights", str(root)] if where == "named" else [])]
    assert cli.main(["generate", "A cat.", "--save-state", "state.safetensors", *flags]) == 0
    assert read_video(only("*.mp4"))[0].shape == (5, 48, 32, 3)
    assert cli.main(["generate", "--resume", "state.safetensors", *flags]) == 0
    assert cli.main(["replay", str(only("*-2.mp4")), *flags]) == 0
    assert "The frames are identical." in capsys.readouterr().out
    assert cli.main(["plan", *SMALL, *flags]) == 0


def test_a_transformer_that_the_other_parts_are_not_made_for_is_refused(official_tree, capsys):
    transformer = str(locate(official_tree).transformer)
    for command in (["generate", "A cat."], ["plan"]):
        assert cli.main([*command, *SMALL, "--transformer", transformer]) == 2
        assert "needs 16 features in a text state, but" in capsys.readouterr().err


@pytest.mark.parametrize(("part", "ids"), [("text_encoder", 260), ("text_encoder_2", 258)])
def test_a_tokenizer_that_gives_ids_which_its_text_encoder_does_not_know_is_refused_before_weights_are_read(
    official_tree, tmp_path, monkeypatch, capsys, part, ids
):
    """More room than ids is usual: the official language model has 128320 embeddings for a tokenizer that counts to 128258."""
    for module in ("transformer", "text_encoder", "vae"):
        monkeypatch.setattr(checkpoint, f"load_{module}", lambda *_, **__: pytest.fail("weights were read"))
    root = shutil.copytree(official_tree, tmp_path / "ckpts")
    config = root / part / "config.json"
    own = json.loads(config.read_text())
    for room in (ids + 62, ids, ids - 1):
        config.write_text(json.dumps({**own, "vocab_size": room, "text_config": own.get("text_config", {}) | {"vocab_size": room}}))
        found = locate(root)
        if room >= ids:
            assert checkpoint.fitting_sizes(found).text_dim == 16
    for command in (["generate", "A cat."], ["plan"]):
        assert cli.main([*command, *SMALL, "--weights", str(root)]) == 2
        error = capsys.readouterr().err
        assert f"gives ids up to {ids - 1}, but the text encoder in {root / part} knows those below {ids - 1}" in error


@pytest.mark.parametrize("content", [5, [1], "text"])
def test_latents_whose_settings_are_none_are_refused_with_a_sentence(content, capsys):
    save_file({"latents": torch.zeros(1, 4, 2, 4, 6)}, "a.safetensors", {video.MARK: json.dumps({video.MARK: content})})
    for command in (["decode", "a.safetensors"], ["generate", "--resume", "a.safetensors"]):
        assert cli.main(command) == 2
        assert "a.safetensors cannot be read (its settings are a" in capsys.readouterr().err


def test_a_video_of_a_training_says_that_its_weights_were_not_kept(generate, official_tree, capsys):
    assert generate("A cat.", "--seed", "0") == 0
    video.save_video(np.zeros((1, 16, 16, 3), np.uint8), "a.mp4", metadata=video.read_metadata(only("*.mp4")) | {"model": ""})
    assert "was made during a training, with weights that were not kept" in refused(capsys, "replay", "a.mp4")


def test_which_weights_of_a_file_were_loaded_is_recorded_and_replayed(generate, official_tree, tmp_path, capsys):
    state = torch.load(locate(official_tree).transformer, weights_only=True)["module"]
    both = tmp_path / "both.pt"
    torch.save({"module": state, "ema": {name: tensor * 0.5 for name, tensor in state.items()}}, both)
    for key in ("module", "ema"):
        assert generate("A cat.", "--seed", "0", "--transformer", str(both), "--load-key", key, "--name-suffix", key) == 0
    module, ema = (video.read_metadata(only(f"*_{key}.mp4")) for key in ("module", "ema"))
    assert (module["load_key"], ema["load_key"]) == ("module", "ema") and module["frames_sha256"] != ema["frames_sha256"]
    assert cli.main(["replay", str(only("*_ema.mp4")), "--weights", str(official_tree), "--transformer", str(both)]) == 0
    assert "The frames are identical." in capsys.readouterr().out


def test_a_run_is_resumed_into_the_callers_folder_and_not_where_its_file_says(generate, official_tree, capsys):
    assert generate("A cat.", "--seed", "0", "--save-state", "state.safetensors", "--format", "gif", "--name-suffix", "x") == 0
    latents, state = video.load_latents("state.safetensors")
    assert "out" not in state["output"] and state["output"]["format"] == "gif"
    weights = ["--weights", str(official_tree)]
    assert cli.main(["generate", "--resume", "state.safetensors", *weights, "--out", "mine"]) == 0
    assert [path.name for path in Path("mine").iterdir()] == [f"{NAME.format(0)}_x.gif"]
    video.save_latents(latents, "hostile.safetensors", state | {"output": state["output"] | {"out": "/tmp/elsewhere"}})
    assert "settings that this version cannot use" in refused(capsys, "generate", "--resume", "hostile.safetensors", *weights)


def started(*command: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.mark.parametrize("number", [number for number in STOPS if number != signal.SIGINT])
def test_being_told_to_end_is_like_ctrl_c(official_tree, tmp_path, number):
    settings = ["A cat.", "--weights", str(official_tree), *SMALL, "--num-steps", "300", "--save-state", "state.safetensors"]
    process = python("-m", "hunyuan_video", "generate", *settings, says=tmp_path / "said")
    process.wait_until(Path("state.safetensors").exists)
    process.send_signal(number)
    assert process.ended(60) == 128 + number and process.out.read_text() == ""
    error = process.error.read_text()
    assert "Kept: state.safetensors, the state after" in error and "Traceback" not in error and not list(Path("results").iterdir())


INFO = ("-m", "hunyuan_video", "info")
SAMPLE = (str(Path(__file__).parents[1] / "sample_video.py"), "--prompt", "A cat.", "--model-base")


@pytest.mark.parametrize(
    ("number", "module", "command"),
    [(signal.SIGINT, "tyro", INFO), (signal.SIGINT, "torch._C", INFO), (signal.SIGTERM, "torch._C", INFO), (signal.SIGINT, "tyro", SAMPLE)],
)
def test_whoever_stops_a_command_while_it_imports_gets_no_traceback(official_tree, number, module, command):
    with started("-X", "importtime", *command, *([str(official_tree)] if command == SAMPLE else [])) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rpartition("|")[2].strip().startswith(module):
                break
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in rest


def test_a_signal_where_nothing_can_be_raised_stops_all_the_same():
    code = """
import signal, time, weakref
from hunyuan_video.signals import enter

class Thing:
    pass

def work():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
    time.sleep(60)

enter(work)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stderr) == (128 + signal.SIGTERM, "")


def test_a_signal_while_code_is_made_of_a_string_gives_the_code_of_a_stop():
    code = "import signal; from hunyuan_video.signals import enter; enter(lambda: exec('signal.raise_signal(signal.SIGINT)') or 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 130


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe with a name")
def test_a_pipe_that_nobody_reads_any_more_ends_no_batch(official_tree, tmp_path):
    os.mkfifo(tmp_path / "said.out")
    flags = ["--weights", str(official_tree), *SMALL, "--seed", "0", "--num-videos", "3"]
    process = python("-m", "hunyuan_video", "generate", "A cat.", *flags, says=tmp_path / "said")
    with process.out.open() as pipe:
        assert pipe.readline() == f"results/{NAME.format(0)}.mp4\n"
    assert process.ended(60) == 0 and "Traceback" not in process.error.read_text()
    assert len(list(Path("results").iterdir())) == 3


def test_ctrl_c_leaves_no_partial_file_says_what_was_kept_and_resume_is_exact(official_tree, tmp_path):
    settings = [
        "A cat.",
        "--weights",
        str(official_tree),
        "--seed",
        "0",
        "--height",
        "32",
        "--width",
        "48",
        "--num-frames",
        "5",
        "--num-steps",
        "100",
    ]
    command = ("-m", "hunyuan_video", "generate", *settings, "--save-state", "state.safetensors")
    process = python(*command, says=tmp_path / "said")
    process.wait_until(Path("state.safetensors").exists)
    process.send_signal(signal.SIGINT)
    assert process.ended(60) == 130 and process.out.read_text() == ""
    error = process.error.read_text()
    assert "Traceback" not in error
    assert "Kept: state.safetensors, the state after" in error and "--resume state.safetensors" in error
    assert list(Path("results").iterdir()) == []
    assert cli.main(["decode", "state.safetensors", "--weights", str(official_tree)]) == 2  # unfinished latents are no video
    assert cli.main(["generate", *settings, "--save-state", "state.safetensors"]) == 2  # and are not overwritten by another run

    assert cli.main(["generate", "--resume", "state.safetensors", "--weights", str(official_tree)]) == 0
    resumed = video.read_metadata(only("*.mp4"))
    kernel = resumed["runtime"]["attention"]  # which the other process measured
    assert cli.main(["generate", *settings, "--attention", kernel]) == 0
    assert video.read_metadata(only("*-2.mp4"))["frames_sha256"] == resumed["frames_sha256"]


@pytest.mark.parametrize(
    ("place", "name", "error"),
    [
        ("hunyuan_video.pipeline", "decode_pieces", torch.OutOfMemoryError("CUDA out of memory.")),
        ("hunyuan_video.pipeline", "decode_pieces", ValueError("The video to convert holds NaN")),
        ("hunyuan_video.pipeline", "decode_pieces", KeyboardInterrupt()),
        ("hunyuan_video.video", "save_recording", OSError(28, "No space left on device")),
    ],
)
def test_what_fails_after_the_last_step_keeps_the_latents_and_says_how_to_decode_them(
    generate, official_tree, monkeypatch, caplog, capsys, place, name, error
):
    def fails(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{name}", fails)
        assert generate("A cat.", "--seed", "0") != 0
    path = only("*")
    assert path.name == f"{NAME.format(0)}.safetensors" and f"`hunyuan-video decode {path}`" in caplog.text
    assert cli.main(["decode", str(path), "--weights", str(official_tree)]) == 0
    assert cli.main(["replay", str(only("*.mp4")), "--weights", str(official_tree)]) == 0
    assert "The frames are identical." in capsys.readouterr().out


def test_latents_that_cannot_be_kept_either_hide_nothing(generate, monkeypatch, caplog, capsys):
    def full(path: Path, _write: object) -> None:
        raise OSError(f"Cannot write {path}: no space left on device")

    monkeypatch.setattr("hunyuan_video.video.put_beside", full)
    assert generate("A cat.", "--seed", "0") == 2
    assert f"{NAME.format(0)}.mp4: no space left" in capsys.readouterr().err and "could not be kept, either (Cannot" in caplog.text


def refused(capsys, *arguments: str) -> str:
    started = time.monotonic()
    assert cli.main(list(arguments)) == 2
    assert time.monotonic() - started < 1
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and "Traceback" not in error
    return error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["generate"], "The prompt is empty"),
        (["generate", " "], "The prompt is empty"),
        (["generate", "x" * 20_000], "The prompt has 20000 characters; the limit is 10000"),
        (["generate", "A \ud83d cat."], "The prompt holds half a character (a lone surrogate)"),
        (["generate", "A cat.", "--height", "20000"], "height is 20000; it must be 8192 or less"),
        (["generate", "A cat.", "--height", "100"], "height is 100; it must be a positive multiple of 16"),
        (["generate", "A cat.", "--num-frames", "128"], "num_frames is 128"),
        (["generate", "A cat.", "--num-videos", "0"], "num_videos is 0"),
        (["generate", "A cat.", "--prompts-file", "x.txt"], "give one of them"),
        (["generate", "--prompts-file", "x.txt"], "x.txt: no such file or directory; check the name"),
        (["generate", "A cat.", "--weights", "nowhere"], "looked for nowhere"),
        (["generate", "A cat.", "--save-state", "s.safetensors", "--num-videos", "2"], "keeps the state of one video"),
        (["generate", "A cat.", "--save-state", "s.mp4"], "ends in none of .safetensors"),
        (["generate", "A cat.", "--save-state", "s.safetensors", "--pipefusion-patches", "4"], "it needs the last step's keys"),
        (["generate", "A cat.", "--save-state", "s.safetensors", "--step-cache", "taylor"], "it needs what earlier steps computed"),
        (["generate", "A cat.", "--save-state", "s.safetensors", "--solver", "unipc"], "it needs what earlier steps computed"),
        (["generate", "A cat.", "--solver", "heun", "--step-cache", "drift"], "evaluates the model twice at a noise level"),
        (["generate", "A cat.", "--cache-threshold", "0.1"], "cache_threshold is 0.1, but step_cache is off"),
        (["generate", "A cat.", "--out", "/proc/nope"], "Cannot write"),
        (["generate", "A cat.", "--resume", "x.safetensors"], "give nothing else"),
        (["generate", "A cat.", "--gpus", "0"], "--gpus is 0; it must be 1 or more"),
        (["generate", "A cat.", "--gpus", "100"], "--gpus is 100, but this machine has"),
        (["generate", "A cat.", "--timeout", "0"], "timeout is 0; it must be between 1 and"),
        (["generate", "--num-steps", "9", "--resume", "x.safetensors"], "give nothing else"),
        (["generate", "A cat.", "--num-videos", "2", "--seed", str(2**63 - 1)], "seed is 9223372036854775808"),
        (["replay", "nowhere.mp4"], "nowhere.mp4 does not exist"),
        (["generate", "A cat.", "--format", "gif", "--crf", "3"], "gif has no such setting"),
        (["generate", "A cat.", "--device", "tpu"], "device is 'tpu'"),
        (["generate", "A cat.", "--image", "nowhere.png"], "nowhere.png"),
        (["generate", "A cat.", "--image", __file__], "test_cli.py cannot be read"),
        (
            ["generate", "A cat.", "--schedule", "linear-quadratic", "--num-steps", "9", "--linear-steps", "9"],
            "linear_steps is 9; it must be",
        ),
        (["generate", "A cat.", "--lora", "nowhere.safetensors:0.5"], "nowhere.safetensors, which is no file or folder"),
        (["generate", "A cat.", "--lora", "a.safetensors:nan"], "lora is 'a.safetensors:nan', but the strength is nan"),
        (["frobnicate"], "There is no command 'frobnicate'"),
        (["train", "frobnicate"], "There is no command 'train frobnicate'"),
    ],
)
def test_bad_requests_get_one_sentence_within_a_second_before_weights_are_read(capsys, monkeypatch, arguments, sentence):
    monkeypatch.setattr(HunyuanVideo, "load", lambda *_: pytest.fail("weights were read"))
    assert sentence in refused(capsys, *arguments)


def test_a_folder_without_a_lora_is_called_that_before_weights_are_read(capsys, monkeypatch):
    monkeypatch.setattr(HunyuanVideo, "load", lambda *_: pytest.fail("weights were read"))
    Path("run").mkdir()
    for command in (["generate", "A cat."], ["plan"], ["replay", "a.mp4"]):
        assert "hunyuan-video: run holds no LoRA (such as" in refused(capsys, *command, "--lora", "run")


@pytest.mark.parametrize("folder", [False, True])
def test_a_name_that_another_process_takes_during_a_conversion_is_left_to_it(official_tree, tmp_path, monkeypatch, capsys, folder):
    out = tmp_path / ("mine" if folder else "mine.gguf")
    owner, name = (conversion, "_write_diffusers") if folder else (conversion.gguf_file, "write")
    write = getattr(owner, name)

    def slow(*arguments) -> None:
        write(*arguments)
        out.mkdir() if folder else out.write_bytes(b"theirs")

    monkeypatch.setattr(owner, name, slow)
    source = official_tree if folder else locate(official_tree).transformer
    assert cli.main(["convert", str(source), str(out), "--to", "diffusers" if folder else "gguf"]) == 2
    assert "was made by another process meanwhile; nothing is overwritten" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [out] and (not any(out.iterdir()) if folder else out.read_bytes() == b"theirs")


def test_of_the_pair_in_8_bits_none_is_left_alone_when_the_other_name_is_taken(official_tree, tmp_path, monkeypatch):
    for taken in ("mine.pt", "mine_map.pt"):
        write = conversion.write_pickle

        def slow(*arguments, taken: str = taken, write: Callable[..., None] = write) -> None:
            write(*arguments)
            (tmp_path / taken).write_bytes(b"theirs")

        with monkeypatch.context() as patch:
            patch.setattr(conversion, "write_pickle", slow)
            assert cli.main(["convert", str(locate(official_tree).transformer), str(tmp_path / "mine.pt"), "--to", "fp8"]) == 2
        assert [path.name for path in tmp_path.iterdir()] == [taken]
        (tmp_path / taken).unlink()


def test_info_of_a_damaged_folder_says_what_else_there_is(official_tree, tmp_path, capsys):
    shutil.copytree(official_tree, tmp_path / "damaged")
    (tmp_path / "damaged" / "generation_config.json").write_text("{")
    assert cli.main(["info", "--weights", str(tmp_path / "damaged")]) == 0
    said = capsys.readouterr().out
    assert "generation_config.json is damaged" in said and "Versions" in said


def test_info_knows_no_settings_of_weights_that_are_not_there(capsys):
    assert cli.main(["info", "--weights", "nowhere"]) == 0
    assert "was made for" not in capsys.readouterr().out


def test_a_state_file_that_another_run_takes_meanwhile_is_left_to_it(generate, official_tree, monkeypatch, caplog):
    """Asked at the start whether the name is free, and taken by another run while this one loads."""
    load = HunyuanVideo.load

    def slow(*arguments) -> HunyuanVideo:
        Path("state.safetensors").write_bytes(b"theirs")
        return load(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(HunyuanVideo, "load", slow)
        patch.setattr("hunyuan_video.pipeline.decode_pieces", lambda *_: pytest.fail("broken"))
        with pytest.raises(pytest.fail.Exception):
            generate("A cat.", "--seed", "0", "--save-state", "state.safetensors")
    assert Path("state.safetensors").read_bytes() == b"theirs"
    assert video.load_latents("state-2.safetensors")[1]["step"] == 2 and not Path("state-3.safetensors").exists()
    assert cli.main(["generate", "--resume", "state-2.safetensors", "--weights", str(official_tree)]) == 0


@pytest.mark.parametrize(("name", "content"), [("empty.txt", b""), ("binary.txt", b"\xff\xfe\x00\x01")])
def test_a_prompts_file_without_prompts_is_refused(capsys, name, content):
    Path(name).write_bytes(content)
    assert name in refused(capsys, "generate", "--prompts-file", name)


def test_a_file_that_is_no_state_cannot_be_resumed(generate, official_tree, capsys):
    assert generate("A cat.", "--format", "latents", "--seed", "0") == 0
    assert cli.main(["generate", "--resume", str(only("*.safetensors")), "--weights", str(official_tree)]) == 2
    assert "no state of an interrupted run" in capsys.readouterr().err


def test_model_base_names_the_root_of_the_weights(official_tree, monkeypatch, capsys):
    monkeypatch.setenv("MODEL_BASE", str(official_tree))
    assert cli.main(["generate", "A cat.", *SMALL]) == 0
    assert read_video(only("*.mp4"))[0].shape == (5, 32, 48, 3)


@pytest.mark.parametrize("arguments", [["train"], ["train", "--help"]])
def test_the_steps_of_training_are_listed(arguments, capsys):
    assert cli.main(arguments) == 0
    assert "text,vae,cache,transformer" in capsys.readouterr().out


def test_help_works_even_where_model_base_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("MODEL_BASE", "/nowhere")
    with pytest.raises(SystemExit) as ended:
        cli.main(["generate", "--help"])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
    ],
)
def test_running_out_of_memory_is_a_sentence(error, capsys):
    def work() -> None:
        raise error

    assert cli.run_guarded(work) == 1
    assert "--offload auto" in capsys.readouterr().err


def test_help_lists_every_command_and_imports_no_torch():
    code = "import sys; from hunyuan_video import cli; cli.main(['--help']); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0 and all(name in result.stdout for name in ("generate", "replay", "decode", "info", "evaluate", "train"))


def test_info_names_versions_devices_kernels_and_weights(official_tree, capsys):
    assert cli.main(["info", "--weights", str(official_tree)]) == 0
    out = capsys.readouterr().out
    assert "torch" in out and "cpu" in out and "sdpa on" in out and "float32" in out and str(official_tree) in out and "missing" not in out


def test_info_says_what_is_missing_and_how_to_get_it(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert "missing" in out and "embedded" in out and "hunyuan-video download" in out


def test_frames_of_a_png_folder_are_the_frames_of_the_pipeline(generate, official_tree):
    assert generate("A cat.", "--seed", "0", "--format", "png") == 0
    expected = HunyuanVideo.load(official_tree)("A cat.", Sampling(height=32, width=48, num_frames=5, num_steps=2, seed=0)).frames
    assert np.array_equal(read_video(Path("results") / NAME.format(0))[0], expected)


def test_a_missing_optional_package_names_the_extra_to_install(tmp_path):
    (tmp_path / "tensorboard.py").write_text("raise ModuleNotFoundError(\"No module named 'tensorboard'\", name='tensorboard')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "hunyuan_video.cli", "train", "vae", "--out", "run"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 2 and "pip install 'hunyuan-video[train]'" in result.stderr


def test_the_groups_of_commands_are_those_that_there_are():
    from hunyuan_video.apps import train

    groups = {group: tuple(names) for group, names in train.GROUPS.items()}
    others = {group: names for group, names in cli.GROUPS.items() if group != "evaluate"}
    assert groups | {"data": ("curate", *groups["data"])} == others  # curation has an app of its own
    assert {f"evaluate {name}" for name in cli.GROUPS["evaluate"]} == {name for name in cli.COMMANDS if " " in name}


WITH_A_RUNTIME = {
    "generate": (cli.Generate, ["a cat"]),
    "decode": (cli.Decode, ["a.latents.safetensors"]),
    "plan": (cli.Plan, []),
    "evaluate embedded": (Embedded, []),
    "bench": (Bench, ["quality"]),
    "demo": (Demo, []),
    "serve": (Serve, []),
    "worker": (Worker, []),
}


@pytest.mark.parametrize("command", WITH_A_RUNTIME)
def test_a_speed_on_the_command_line_means_all_that_it_says(command, monkeypatch):
    kind, more = WITH_A_RUNTIME[command]
    seen: list[Runtime] = []
    monkeypatch.setattr(kind, "run", lambda self: seen.append(self.runtime))
    words = [*command.split(), *more]
    assert cli.main([*words, "--speed", "fast", "--progressive", "off"]) == cli.main(words) == 0
    assert seen == [Runtime(speed="fast", progressive="off"), Runtime()]
