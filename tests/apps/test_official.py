"""The official command line: all its flags, all its defaults, and a sentence where a flag cannot be honoured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import python

from hunyuan_video.apps import official
from hunyuan_video.checkpoint import identity
from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.config import FullSampling
from hunyuan_video.video import read_metadata
from hunyuan_video.weights import EMBEDDED, locate

ROOT = Path(__file__).parents[2]

# Every flag of the reference's parser with its default, from its documentation.
OFFICIAL_DEFAULTS = {
    "model": "HYVideo-T/2-cfgdistill",
    "latent_channels": 16,
    "precision": "bf16",
    "rope_theta": 256,
    "vae": "884-16c-hy",
    "vae_precision": "fp16",
    "vae_tiling": True,
    "text_encoder": "llm",
    "text_encoder_precision": "fp16",
    "text_states_dim": 4096,
    "text_len": 256,
    "tokenizer": "llm",
    "prompt_template": "dit-llm-encode",
    "prompt_template_video": "dit-llm-encode-video",
    "hidden_state_skip_layer": 2,
    "apply_final_norm": False,
    "text_encoder_2": "clipL",
    "text_encoder_precision_2": "fp16",
    "text_states_dim_2": 768,
    "tokenizer_2": "clipL",
    "text_len_2": 77,
    "denoise_type": "flow",
    "flow_shift": 7.0,
    "flow_reverse": False,
    "flow_solver": "euler",
    "use_linear_quadratic_schedule": False,
    "linear_schedule_end": 25,
    "dit_weight": "ckpts/hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.pt",
    "model_resolution": "540p",
    "load_key": "module",
    "use_cpu_offload": False,
    "batch_size": 1,
    "infer_steps": 50,
    "disable_autocast": False,
    "save_path": "./results",
    "save_path_suffix": "",
    "name_suffix": "",
    "num_videos": 1,
    "video_size": [720, 1280],
    "video_length": 129,
    "prompt": None,
    "seed_type": "auto",
    "seed": None,
    "neg_prompt": None,
    "cfg_scale": 1.0,
    "embedded_cfg_scale": 6.0,
    "use_fp8": False,
    "reproduce": False,
    "ulysses_degree": 1,
    "ring_degree": 1,
}


def translate(tree: Path, *arguments: str) -> official.Command:
    parser = official.build_parser()
    return official.translate(parser.parse_args(["--model-base", str(tree), "--prompt", "A cat.", *arguments]))


def test_every_official_flag_has_its_official_default():
    parsed = vars(official.build_parser().parse_args([]))
    assert parsed.pop("model_base") is None  # $MODEL_BASE or ckpts: the reference takes the VAE from the one and the rest from the other
    assert parsed.pop("timeout") == 120  # ours
    assert parsed == OFFICIAL_DEFAULTS


def test_the_command_of_the_official_readme_means_what_it_says(official_tree):
    request = translate(
        official_tree,
        "--video-size",
        "720",
        "1280",
        "--video-length",
        "129",
        "--infer-steps",
        "50",
        "--flow-reverse",
        "--use-cpu-offload",
        "--save-path",
        "./results",
    )
    sampling = request.requests[0].sampling
    assert (sampling.height, sampling.width, sampling.num_frames, sampling.num_steps) == (720, 1280, 129, 50)
    assert (sampling.shift, sampling.guidance, sampling.cfg_scale) == (7.0, 6.0, 1.0)
    assert request.runtime.offload == "models" and request.output.out == Path("results")


@pytest.mark.parametrize(("given", "size"), [(["512"], (512, 512)), (["540", "960"], (544, 960)), (["1", "17"], (16, 32))])
def test_sizes_are_rounded_up_and_one_number_means_both(official_tree, given, size):
    sampling = translate(official_tree, "--video-size", *given).requests[0].sampling
    assert (sampling.height, sampling.width) == size


@pytest.mark.parametrize(("size", "said"), [(["100", "100"], True), (["96", "112"], False)])
def test_a_size_that_is_rounded_up_is_said(official_tree, caplog, size, said):
    caplog.set_level("INFO", "hunyuan_video")
    translate(official_tree, "--video-size", *size)
    assert ("The video will be 112 high and 112 wide" in caplog.text) == said


def test_dead_flags_of_the_reference_work(official_tree):
    request = translate(
        official_tree,
        "--use-linear-quadratic-schedule",
        "--linear-schedule-end",
        "10",
        "--name-suffix",
        "x",
        "--save-path-suffix",
        "y",
        "--seed",
        "3",
        "--seed-type",
        "random",
        "--latent-channels",
        "16",
    )
    sampling = request.requests[0].sampling
    assert (sampling.schedule, sampling.linear_steps) == ("linear-quadratic", 10)
    assert sampling.seed != 3
    assert request.output.name_suffix == "x" and request.output.out == Path("results_y")


def test_flow_reverse_changes_nothing(official_tree):
    assert translate(official_tree, "--seed", "1").requests == translate(official_tree, "--flow-reverse", "--seed", "1").requests


def test_what_weights_say_of_their_use_changes_no_official_default(official_tree, tmp_path):
    root = shutil.copytree(official_tree, tmp_path / "mine")
    own = {"schedule": "linear-quadratic", "linear_steps": 4, "num_steps": 8, "noise": "official", "seed": None}
    (root / "generation_config.json").write_text(json.dumps(own), encoding="utf-8")
    command = translate(root, "--seed", "1")
    complete = command.requests[0].complete(command.found.sampling())
    assert complete == FullSampling(seed=1)


def test_precisions_are_passed_on_and_the_official_ones_mean_the_best_of_the_device(official_tree):
    assert translate(official_tree).runtime.dtype == "auto"
    runtime = translate(official_tree, "--precision", "fp32", "--vae-precision", "bf16").runtime
    assert (runtime.dtype, runtime.vae_dtype) == ("float32", "bfloat16")


def test_an_empty_negative_prompt_means_the_official_one(official_tree):
    assert translate(official_tree, "--neg-prompt", "").requests[0].negative_prompt is None


def test_the_undistilled_model_gets_no_embedded_guidance(official_tree):
    assert translate(official_tree, "--model", "HYVideo-T/2").requests[0].sampling.guidance is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--latent-channels", "4"], "--latent-channels is 4; the released weights need 16"),
        (["--rope-theta", "10000"], "--rope-theta is 10000"),
        (["--text-encoder", "clipL"], "--text-encoder is clipL"),
        (["--text-len", "300"], "--text-len is 300"),
        (["--apply-final-norm"], "--apply-final-norm is True"),
        (["--denoise-type", "ddpm"], "--denoise-type is ddpm"),
        (["--batch-size", "2"], "--num-videos"),
        (["--num-videos", "0"], "--num-videos is 0"),
        (["--num-videos", "2", "--seed", str(2**63 - 1)], f"--seed is {2**63}"),
        (["--seed-type", "file"], "--seed-type file"),
        (["--seed-type", "fixed"], "needs --seed"),
        (["--video-size", "1", "2", "3"], "has 3 numbers"),
        (["--video-size", "0"], "The height of --video-size is 0"),
        (["--video-length", "128"], "--video-length is 128"),
        (["--ulysses-degree", "2"], "start it by `torchrun --nproc_per_node=2 sample_video_parallel.py"),
        (["--text-encoder-precision-2", "fp32"], "differ"),
        (["--flow-shift", "0"], "--flow-shift is 0.0"),
        (["--prompt", " "], "--prompt is empty; describe"),
        (["--neg-prompt", "x" * 10_001], "--neg-prompt has 10001 characters"),
        (["--dit-weight", "/nowhere/model.pt"], "/nowhere/model.pt"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_a_sentence(official_tree, arguments, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        translate(official_tree, *arguments)


def test_the_root_comes_from_the_flag_then_the_environment(official_tree, tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_BASE", str(official_tree))
    arguments = official.build_parser().parse_args(["--prompt", "A cat."])
    assert official.translate(arguments).found.root == official_tree
    with pytest.raises(FileNotFoundError):
        translate(tmp_path)


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "sample_video.py", *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_without_weights_the_official_command_ends_at_once_with_one_sentence(tmp_path):
    started = time.monotonic()
    result = run(
        "--video-size",
        "720",
        "1280",
        "--video-length",
        "129",
        "--infer-steps",
        "50",
        "--prompt",
        "A cat.",
        "--flow-reverse",
        "--use-cpu-offload",
        "--save-path",
        "./results",
        cwd=tmp_path,
    )
    assert result.returncode == 2 and result.stdout == "" and len(result.stderr.strip().splitlines()) == 1
    assert "looked for ckpts/" in result.stderr and "hunyuan-video download" in result.stderr
    assert time.monotonic() - started < 5  # far less on an idle machine; importing torch alone takes longer on a busy one
    assert list(tmp_path.iterdir()) == []


def test_the_official_command_makes_videos(official_tree, tmp_path):
    result = run(
        "--model-base",
        str(official_tree),
        "--video-size",
        "32",
        "48",
        "--video-length",
        "5",
        "--infer-steps",
        "2",
        "--prompt",
        "A cat.",
        "--flow-reverse",
        "--num-videos",
        "2",
        "--seed",
        "0",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "results").glob("*.mp4"))) == 2


@pytest.mark.parametrize("ranks", [2, pytest.param(8, marks=pytest.mark.slow)])  # the README's 8: of 4 heads, so 4 x 2
def test_the_parallel_command_of_the_official_readme_makes_the_video_of_one_process(tmp_path, monkeypatch, ranks):
    one, many = tmp_path / "one", tmp_path / "many"
    command = [
        str(ROOT / "tests" / "with_latents.py"), "sample_video_parallel.py",
        "--video-size", "128", "72", "--video-length", "9", "--infer-steps", "8", "--prompt", "A cat walks on the grass, realistic style.",
        "--flow-reverse", "--seed", "42",
    ]  # fmt: skip
    for folder, torchrun, degrees in (
        (one, [], []),
        (many, ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}"], ["--ulysses_degree", str(ranks), "--ring_degree", "1"]),
    ):
        folder.mkdir()
        monkeypatch.chdir(folder)
        process = python(*torchrun, *command, *degrees, "--save-path", "./results", says=folder / "said", MODEL_BASE=str(EMBEDDED))
        assert process.ended(400) == 0, process.error.read_text()
        printed = process.out.read_text()
        assert re.fullmatch(r"results/A_cat_walks_on_the_grass_realistic_style_seed42\S*\.mp4\n", printed)  # once
        assert {path.name for path in (folder / "results").iterdir()} == {Path(printed.strip()).name, "latents.pt"}
    wanted, latents = (torch.load(folder / "results" / "latents.pt", weights_only=True) for folder in (one, many))
    torch.testing.assert_close(latents, wanted, atol=1e-5, rtol=0)


def test_the_fp8_command_of_the_official_readme_makes_a_video_from_8_bit_weights(official_tree, tmp_path, monkeypatch):
    weight = tmp_path / "weights" / "mp_rank_00_model_states_fp8.pt"
    weight.parent.mkdir()
    convert(official_tree, weight, "fp8")
    flags = "--video-size 48 32 --video-length 5 --infer-steps 2 --seed 42 --embedded-cfg-scale 6.0 --flow-shift 7.0 --flow-reverse"
    monkeypatch.chdir(tmp_path)
    process = python(
        str(ROOT / "sample_video.py"), "--model-base", str(official_tree), "--dit-weight", str(weight), *flags.split(), "--use-cpu-offload",
        "--use-fp8", "--prompt", "A cat walks on the grass, realistic style.", "--save-path", "./results", says=tmp_path / "said",
    )  # fmt: skip
    assert process.ended(120) == 0, process.error.read_text()
    (video,) = (tmp_path / "results").glob("*.mp4")
    settings = read_metadata(video)
    assert settings["runtime"]["fp8"] and settings["runtime"]["offload"] == "models" and settings["sampling"]["height"] == 48
    assert settings["model"] == identity.of_model(locate(official_tree, weight)) != identity.of_model(locate(official_tree))


def test_the_wrong_model_for_the_weights_is_named_with_the_right_one(official_tree):
    with pytest.raises(ValueError, match=r"--model is HYVideo-T/2, but .* has embedded guidance: give --model HYVideo-T/2-cfgdistill"):
        official.check_model(translate(official_tree, "--model", "HYVideo-T/2").found, "HYVideo-T/2")
    official.check_model(translate(official_tree).found, "HYVideo-T/2-cfgdistill")
