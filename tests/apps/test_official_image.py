"""The official command line for image to video: its README's commands mean what they say, and what cannot be honoured is a sentence."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hunyuan_video import HunyuanVideo, weights
from hunyuan_video.apps import official, official_image
from hunyuan_video.checkpoint import load_transformer
from hunyuan_video.config import Runtime
from hunyuan_video.request import Strengths
from hunyuan_video.video import read_metadata

ROOT = Path(__file__).parents[2]
PROMPT = "An Asian man with short hair in black tactical uniform and white clothes waves a firework stick."
STABLE = (
    f'--model HYVideo-T/2 --prompt "{PROMPT}" --i2v-mode --i2v-image-path ./assets/demo/i2v/imgs/0.jpg --i2v-resolution 720p '
    "--i2v-stability --infer-steps 50 --video-length 129 --flow-reverse --flow-shift 7.0 --seed 0 --embedded-cfg-scale 6.0 "
    "--use-cpu-offload --save-path ./results"
)
DYNAMIC = STABLE.replace("--i2v-stability ", "").replace("7.0", "17.0")
LORA = STABLE.replace("7.0", "5.0") + (
    " --use-lora --lora-scale 1.0 --lora-path ./ckpts/hunyuan-video-i2v-720p/lora/embrace_kohaya_weights.safetensors"
)
PARALLEL = STABLE.replace(" --use-cpu-offload", "") + " --ulysses-degree 8 --ring-degree 1"


@pytest.fixture(scope="module")
def clone(image_tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What somebody has who followed the official README: weights, a picture and a LoRA where it says they are."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copytree(image_tree(), root / "ckpts")
    lora = root / "ckpts" / weights.I2V / "lora" / "embrace_kohaya_weights.safetensors"
    lora.parent.mkdir()
    lora.touch()
    picture = root / "assets" / "demo" / "i2v" / "imgs" / "0.jpg"
    picture.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (72, 128, 3), dtype=np.uint8)).save(picture)
    return root


@pytest.fixture
def here(clone, monkeypatch) -> Path:
    monkeypatch.chdir(clone)
    monkeypatch.delenv("MODEL_BASE", raising=False)
    return clone


def translate(command: str) -> official.Command:
    return official_image.translate(official_image.build_parser().parse_args(shlex.split(command)))


def test_every_official_flag_has_its_official_default():
    parsed = vars(official_image.build_parser().parse_args([]))
    assert parsed == vars(official.build_parser().parse_args([])) | {
        "text_encoder": "llm-i2v",
        "tokenizer": "llm-i2v",
        "prompt_template": "dit-llm-encode-i2v",
        "prompt_template_video": "dit-llm-encode-video-i2v",
        "flow_shift": 17.0,
        "embedded_cfg_scale": None,
        "i2v_mode": False,
        "i2v_image_path": "./assets/demo/i2v/imgs/0.png",
        "i2v_resolution": "720p",
        "i2v_condition_type": "token_replace",
        "i2v_stability": False,
        "i2v_dit_weight": "ckpts/hunyuan-video-i2v-720p/transformers/mp_rank_00_model_states.pt",
        "use_lora": False,
        "lora_path": "",
        "lora_scale": 1.0,
        "lora_rank": 64,
        "gradient_checkpoint": False,
        "gradient_checkpoint_layers": -1,
    }


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("command", "stability", "shift"), [(STABLE, "stable", 7.0), (DYNAMIC, "dynamic", 17.0), (LORA, "stable", 5.0)])
def test_the_commands_of_the_official_readme_mean_what_they_say(command, stability, shift):
    meant = translate(command)
    sampling = meant.requests[0].sampling
    assert (sampling.height, sampling.width, sampling.num_frames, sampling.num_steps) == (704, 1248, 129, 50)
    assert (sampling.stability, sampling.shift, sampling.guidance, sampling.seed) == (stability, shift, 6.0, 0)
    assert meant.runtime.offload == "models" and meant.output.out == Path("results") and meant.found.sees
    adapters = [(adapter.path.name, adapter.strengths) for adapter in meant.requests[0].adapters]
    assert adapters == ([("embrace_kohaya_weights.safetensors", Strengths(1.0))] if command == LORA else [])


ADAPTED = re.compile(r"(\.|^)(linear|fc1|fc2|(img|txt)_attn_(qkv|proj)|linear1|linear2)$")  # by Tencent's trainer: also outside of blocks


def of_tencents_trainer(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A LoRA of all layers that it adapts, in its names; it sets alpha to the rank."""
    draw, tensors = torch.Generator().manual_seed(0), dict[str, torch.Tensor]()
    for name, weight in state.items():
        if weight.ndim == 2 and ADAPTED.search(layer := name.removesuffix(".weight")):
            flat, rank = f"Hunyuan_video_I2V_lora_{layer.replace('.', '_')}", 2
            tensors[f"{flat}.lora_down.weight"] = torch.randn(rank, weight.shape[1], generator=draw).bfloat16()
            tensors[f"{flat}.lora_up.weight"] = torch.randn(weight.shape[0], rank, generator=draw).bfloat16()
            tensors[f"{flat}.alpha"] = torch.tensor(float(rank))
    return tensors


def test_a_lora_of_tencents_trainer_acts_with_its_strength_as_one_merged_by_hand(here):
    """As its own loader does: weight + scale * up @ down, the alpha unread."""
    state = load_transformer(weights.find(here / "ckpts").transformer, torch.float32, torch.device("cpu")).state_dict()
    tensors = of_tencents_trainer(state)
    save_file(tensors, here / "hair_growth_kohya_weights.safetensors")
    command = STABLE + " --use-lora --lora-scale 0.5 --lora-path hair_growth_kohya_weights.safetensors"
    meant = translate(command)
    pipe = HunyuanVideo.load(meant.found, Runtime(dtype="float32"), adapters=meant.requests[0].adapters)
    adapted = 0
    for name, found in pipe.transformer.state_dict().items():
        flat, expected = f"Hunyuan_video_I2V_lora_{name.removesuffix('.weight').replace('.', '_')}", state[name]
        if name.endswith(".weight") and f"{flat}.alpha" in tensors:
            up, down = (tensors[f"{flat}.lora_{which}.weight"].float() for which in ("up", "down"))
            expected, adapted = expected + 0.5 * up @ down, adapted + 1
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert 3 * adapted == len(tensors) and "Hunyuan_video_I2V_lora_final_layer_linear.alpha" in tensors


@pytest.mark.usefixtures("here")
def test_the_parallel_command_shares_the_video_whatever_its_size(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("ALLOW_RESIZE_FOR_SP", "1")
    meant = translate(PARALLEL.replace("720p", "540p"))
    assert (meant.runtime.ulysses_degree, meant.runtime.ring_degree) == (8, 1)
    assert (meant.requests[0].sampling.height, meant.requests[0].sampling.width) == (544, 928)  # which 8 do not divide


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--i2v-mode", ""), "--i2v-mode is left out"),
        (("0.jpg", "1.jpg"), r"1\.jpg does not exist"),
        (("--i2v-mode", "--i2v-mode --i2v-condition-type latent_concat"), "was trained for token_replace; give that"),
        (("--embedded-cfg-scale 6.0", ""), "--embedded-cfg-scale is left out, but .* need"),
        (("--i2v-mode", "--i2v-mode --use-lora"), "--use-lora and --lora-path FILE go together"),
        (("--i2v-mode", "--i2v-mode --lora-path x.safetensors"), "--use-lora and --lora-path FILE go together"),
        (("--i2v-mode", "--i2v-mode --use-lora --lora-path x.safetensors"), "x.safetensors, which is no file"),
        (("--i2v-mode", "--i2v-mode --dit-weight x.pt"), "--dit-weight names a transformer for text"),
        (("--i2v-mode", "--i2v-mode --text-encoder llm"), "--text-encoder is llm; the released weights need llm-i2v"),
        (("--use-cpu-offload", "--ulysses-degree 2"), r"start it by `torchrun --nproc_per_node=2 sample_image2video\.py"),
        (("--video-length 129", "--video-length 128"), "--video-length is 128"),
        (("--video-length 129", "--video-length 1"), "num_frames is 1; a video that begins with it needs 5"),
        (("--flow-shift 7.0", "--flow-shift 0"), r"--flow-shift is 0\.0"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_a_sentence(change, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        translate(STABLE.replace(*change))


def test_weights_for_text_alone_say_what_to_fetch(here, official_tree):
    with pytest.raises(ValueError, match=r"trained for text alone.*download --i2v"):
        translate(f"{STABLE} --model-base {official_tree}")


@pytest.mark.slow  # minutes: the smallest official size
def test_the_official_command_makes_a_video_on_one_process_and_the_same_on_two(here):
    made = []
    for folder, torchrun, degrees in (
        ("one", [], []),
        ("two", ["-m", "torch.distributed.run", "--nproc_per_node=2"], ["--ulysses-degree", "2"]),
    ):
        command = STABLE.replace("720p", "360p").replace("50", "2").replace("129", "5").replace("./results", f"./{folder}")
        words = shlex.split(command.replace(" --use-cpu-offload", ""))
        result = subprocess.run(
            [sys.executable, *torchrun, str(ROOT / "sample_image2video.py"), *words, *degrees],
            cwd=here,
            env={**os.environ, "ALLOW_RESIZE_FOR_SP": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=580,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        (video,) = (here / folder).glob("*.mp4")
        made.append(read_metadata(video))
    assert made[0]["sampling"] == made[1]["sampling"] and made[0]["image_sha256"] == made[1]["image_sha256"]
    assert (made[0]["sampling"]["height"], made[0]["sampling"]["stability"]) == (352, "stable")
