"""Every command in a shell block of the documents is run, or, where that takes gigabytes, minutes or a GPU, parsed by what would run it."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import docker_commands
import numpy as np
import pytest
import torch
import yaml
from adapters import random_lora
from PIL import Image

from hunyuan_video import checkpoint, cli, weights
from hunyuan_video.apps import curate, official, official_image, train
from hunyuan_video.apps.parse import parse
from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.checkpoint.lora import save_lora
from hunyuan_video.commands import official_page
from hunyuan_video.files import safe_name
from hunyuan_video.video import save_video

ROOT = Path(__file__).parent.parent
# README_zh.md has README.md's commands, by a test in test_doors.py.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "recipes/tiny/README.md", *sorted((ROOT / "docs").glob("*.md"))]

# What is only parsed, by how it begins, and why.
PARSED = {
    "python -m venv": "what follows downloads gigabytes; .ci/run does both",
    "pip install": "downloads gigabytes; .ci/run does it in clean environments",
    "./test.sh": "runs this test",
    "pytest": "runs this test",
    "python sample_video.py": "720p with the official weights",
    "python sample_image2video.py": "720p with the official weights; tests/apps/test_official_image.py has what they mean",
    "python recipes/tiny/make_image_root.py": "tests/test_image_to_video.py runs it",
    "hunyuan-video verify ckpts/hunyuan-video-i2v-720p": "needs the official weights; tests/test_image_to_video.py verifies tiny ones",
    "hunyuan-video generate A man waves a firework stick.": "needs the official weights to be worth it",
    "hunyuan-video download": "45 GB",
    "hunyuan-video generate A cat walks on the grass, realistic style. --height 544": "needs the official weights to be worth it",
    "hunyuan-video generate A cat walks on the grass, realistic style. --gpus 8": "eight GPUs",
    "hunyuan-video generate A cat walks on the grass, realistic style. --weights FastHunyuan": "needs these weights",
    "hunyuan-video generate A cat walks on the grass, realistic style. --transformer accvideo": "as above",
    "hunyuan-video generate A cat walks on the grass, realistic style. --lora fasthunyuan": "as above",
    "hunyuan-video train lora --data my-clips --cache runs/mine/cache --out runs/mine --rank 8 --alpha 32 --num-steps 300": "minutes; "
    "the slow test below runs it",
    "hunyuan-video train lora --start": "minutes; tests/training/test_begins_with_a_picture.py trains so",
    "hunyuan-video rewrite 三只猫 --rewrite-url": "needs a server; tests/apps/test_rewrite.py has one",
    "hunyuan-video generate 三只猫 --rewrite master": "needs a language model; tests/rewriting/test_local.py has one",
    "hunyuan-video plan --gpus": "a minute of counting; tests/test_plan.py plans for several GPUs",
    "hunyuan-video data curate": "minutes; tests/apps/test_curate.py runs it",
    "hunyuan-video data prepare curated": "of what that makes, as there",
    "hunyuan-video train lora --data curated": "likewise",
    "hunyuan-video train vae": "days on a GPU",
    "python recipes/tiny/basis.py": "before one of these; tests/miniature/test_version2.py runs it",
    "python recipes/tiny/wider.py": "likewise",
    "hunyuan-video evaluate run prompts.txt --out study --systems exact=weights: quick=": "docs/evaluation.md has the same, and is run",
    "hunyuan-video evaluate rate": "serves until it is stopped; tests/rating visits it",
    "hunyuan-video evaluate report": "needs votes; tests/commands/test_rating.py has some",
    "hunyuan-video evaluate embedded": "trains a judge, and makes hundreds of videos; tests/miniature has its parts",
    "torchrun": "eight GPUs",
    "hunyuan-video serve": "serves until it is stopped, as tests/apps/test_serving.py does it",
    "hunyuan-video demo": "serves until it is stopped; tests/demo visits it",
    "python gradio_server.py": "as above",
    "hunyuan-video worker": "works until it is stopped, as above",
    "python benchmarks/": "minutes, or 26 GB on the disk",
    "curl": "needs a server; tests/serving/test_docs.py has one",
    "benchmarks/gpu.sh": "eight minutes of a GPU; tests/benchmarks rehearses it",
    "python benchmarks/gpu_table.py": "writes into docs/",
    "python benchmarks/bench_table.py": "as above; tests/benchmarks holds the page to what it would write",
    "hunyuan-video bench quality": "minutes, and trains a judge; tests/commands/test_bench.py runs it",
    "docker": "needs a container engine; tests/test_containers.py does what it can without",
    "conda": "downloads gigabytes",
    "openssl rand": "a password for a container",
    "mkdir": "a folder for containers",
    "cp docker/": "settings of containers",
    "ln": "into a ComfyUI; tests/comfyui has an executor of its nodes",
}


def script_of(page: Path) -> str:
    return "".join(re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE))


SCRIPTS = {page: script for page in PAGES if (script := script_of(page))}

# Programs that the documents start, by where they lie, and what they are called here.
STARTED = {
    **{f"bin/{name}": name for name in ("hunyuan-video", "python", "pip", "torchrun", "docker", "conda", "openssl", "mkdir", "cp", "ln")},
    **{f".venv/bin/{name}": name for name in ("hunyuan-video", "pip", "pytest")},
    **{f".venv-3.13/bin/{name}": name for name in ("pip", "pytest")},
    **{f"bin/{name}": "python" for name in ("python3", "python3.13")},
    "bin/curl": "curl",
    "test.sh": "./test.sh",
    "benchmarks/gpu.sh": "benchmarks/gpu.sh",
}
END = "\x1e"  # of a command
STUB = """#!/bin/sh
printf '%s\\0' {name} "$@" '{end}' >> {log}
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, list[list[str]]]:
    """The commands of each page."""
    return {page: commands(script, tmp_path_factory.mktemp("shell") / "files") for page, script in SCRIPTS.items()}


def commands(script: str, folder: Path) -> list[list[str]]:
    """What a shell would start, each with its arguments; of all that it knows, nothing is started."""
    (folder / "docker" / "secrets").mkdir(parents=True)  # into which a page writes
    log = folder / "log"
    for place, name in STARTED.items():
        stub = folder / place
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text(STUB.format(name=name, end=END, log=shlex.quote(str(log))), encoding="utf-8")
        stub.chmod(0o755)
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("the documents' commands are bash's")
    environment = {"PATH": str(folder / "bin"), "HOME": "."}  # its files are made where commands are run
    subprocess.run([bash, "-euo", "pipefail", "-c", script], cwd=folder, env=environment, check=True)
    return [command.split("\0")[:-1] for command in log.read_text(encoding="utf-8").split(f"{END}\0")[:-1]]


def why_parsed(command: list[str]) -> str | None:
    """The longest beginning in PARSED, if there is one."""
    return max((start for start in PARSED if " ".join(command).startswith(start)), key=len, default=None)


# --- Parsing without running ---


class ParsedError(Exception):
    """Arguments were understood."""


def parse_script(path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments of a Python script, by its own parser."""
    understand = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *given: object) -> None:
        understand(parser, *given)  # pyright: ignore
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", [str(path), *arguments])
        with pytest.raises(ParsedError):
            runpy.run_path(str(path), run_name="__main__")


def parse_ours(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for command in cli.COMMANDS.values():
            patch.setattr(command, "run", lambda self: None)
        for command in (cli.Generate, cli.Worker):
            patch.setattr(command, "launch", lambda self, arguments: None)
        for app in (train, curate):
            patch.setattr(app, "parse", lambda *given: (parse(*given), lambda: None)[1])
        assert cli.main(arguments) == 0


def parse_python(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments[:2] == ["-m", "venv"]:
        assert len(arguments) == 3
    elif arguments[0] in ("sample_video.py", "sample_video_parallel.py"):
        monkeypatch.setenv("MODEL_BASE", str(weights.EMBEDDED))
        official.translate(official.build_parser().parse_args(arguments[1:]))
    elif arguments[0] == "sample_image2video.py":
        official_image.build_parser().parse_args(arguments[1:])
    elif arguments[0] == "gradio_server.py":
        official_page.translate(official_page.parser().parse_args(arguments[1:]))
    else:
        parse_script(ROOT / arguments[0], arguments[1:], monkeypatch)


def parse_pip(arguments: list[str], _monkeypatch: pytest.MonkeyPatch) -> None:
    from pip._internal.commands import create_command

    options, projects = create_command("install").parse_args(arguments[1:])
    assert all((ROOT / file).is_file() for file in options.constraints)
    extras = "(train|wandb|gguf|docs|test|serve|demo|postgres|s3|ray|evaluate|curate|curate-unsafe|brisque)"
    assert [re.fullmatch(rf"\.(\[{extras}(,{extras})*\])?", project) is not None for project in projects] == [True]


def parse_torchrun(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(arguments)
    if not given.module:
        with monkeypatch.context() as patch:
            patch.setenv("WORLD_SIZE", given.nproc_per_node)
            return parse_python([given.training_script, *given.training_script_args], patch)
    assert given.training_script in ("hunyuan_video", "hunyuan_video.cli")
    parse_ours(given.training_script_args, monkeypatch)


def parse_curl(arguments: list[str], _monkeypatch: pytest.MonkeyPatch) -> None:
    assert [argument for argument in arguments if argument.startswith("http://127.0.0.1:8000/")] != []


def parse_conda(arguments: list[str], _monkeypatch: pytest.MonkeyPatch) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["name"]
    assert arguments in (["env", "create", "--file", "environment.yml"], ["activate", environment])


def parse_copy(arguments: list[str], _monkeypatch: pytest.MonkeyPatch) -> None:
    source, _target = arguments
    assert (ROOT / source).is_file()


def parse_as(pattern: str) -> Callable[[list[str], pytest.MonkeyPatch], None]:
    def check(arguments: list[str], _monkeypatch: pytest.MonkeyPatch) -> None:
        assert re.fullmatch(pattern, " ".join(arguments))

    return check


def parse_shell(name: str) -> Callable[[list[str], pytest.MonkeyPatch], None]:
    def check(arguments: list[str], _monkeypatch: pytest.MonkeyPatch) -> None:
        assert os.access(ROOT / name, os.X_OK) and arguments == []
        subprocess.run(["bash", "-n", ROOT / name], check=True)

    return check


PARSERS: dict[str, Callable[[list[str], pytest.MonkeyPatch], None]] = {
    "hunyuan-video": parse_ours,
    "python": parse_python,
    "pip": parse_pip,
    "torchrun": parse_torchrun,
    "curl": parse_curl,
    "docker": lambda arguments, monkeypatch: docker_commands.check(arguments, lambda ours: parse_ours(ours, monkeypatch)),
    "conda": parse_conda,
    "cp": parse_copy,
    "mkdir": parse_as(r"-p( -m 700)? [a-z/]+"),
    "ln": parse_as(r"-s .+/comfyui .+/ComfyUI/custom_nodes/hunyuan-video-nodes"),
    "openssl": parse_as(r"rand -hex \d+"),
    "./test.sh": parse_shell("test.sh"),
    "benchmarks/gpu.sh": parse_shell("benchmarks/gpu.sh"),
}


# --- Running ---


def clip(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (33, 8, 8, 3), np.uint8)
    save_video(noise.repeat(16, axis=1).repeat(16, axis=2), path, metadata=None)


def clips(folder: Path) -> None:
    folder.mkdir()
    clip(folder / "clip.mp4")
    (folder / "clip.txt").write_text("Squares change their colours", encoding="utf-8")


def numbered_clips(folder: Path) -> None:
    folder.mkdir()
    for number in range(2):
        clip(folder / f"{number}.mp4")


def adapter(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    model = checkpoint.load_transformer(weights.locate(weights.EMBEDDED).transformer, torch.float32, torch.device("cpu"))
    save_lora(random_lora(model), path, "kohya")


def video(path: Path, root: Path) -> None:
    assert cli.main(["generate", "A cat walks on the grass", "--seed", "42", "--weights", str(root), "--out", str(path.parent)]) == 0
    (made,) = path.parent.iterdir()
    made.rename(path)


def hub_cache(folder: Path, root: Path) -> None:
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("1234", encoding="utf-8")
    (folder / "snapshots").mkdir()
    convert(root, folder / "snapshots" / "1234", "diffusers")


def image_root(path: Path, root: Path) -> None:
    """As the recipe writes it, as small as `root`."""
    runpy.run_path(str(ROOT / "recipes/tiny/make_image_root.py"))["write_root"](path)
    shutil.copyfile(root / "generation_config.json", path / "generation_config.json")


# What a page's commands find, by its path.
PLACES: dict[str, Callable[[Path, Path], None]] = {
    "picture.png": lambda path, _: Image.new("RGB", (64, 64), "green").save(path),
    "mini-i2v": lambda path, root: image_root(path, root),
    "ckpts": lambda path, root: shutil.copytree(root, path, dirs_exist_ok=True) and None,
    "FILE_OR_FOLDER": lambda path, root: path.symlink_to(root),
    "clip.mp4": lambda path, _: clip(path),
    "my-clips": lambda path, _: clips(path),
    "prompts.txt": lambda path, _: (
        path.write_text("A red car drives left in the snow.\nThe camera zooms in, a dog in the forest.\n") and None
    ),
    "their-clips": lambda path, _: numbered_clips(path),
    "videos": lambda path, _: clips(path),
    "style.safetensors": lambda path, _: adapter(path),
    "motion.safetensors": lambda path, _: adapter(path),
    "runs/mine/lora_kohya.safetensors": lambda path, _: adapter(path),
    "results/a_cat_walks_on_the_grass_seed42.mp4": video,
    ".cache/huggingface/hub/models--hunyuanvideo-community--HunyuanVideo": hub_cache,
}


@pytest.mark.parametrize("page", SCRIPTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_is_run_or_parsed(page, found, tmp_path, made_small, monkeypatch, capfd, pytestconfig):
    """From top to bottom, beside the files that they name. $MODEL_BASE makes what is made small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL_BASE", str(made_small))
    for place, make in PLACES.items():
        if re.search(rf"[ /:]{re.escape(place)}[ :\n]", SCRIPTS[page]):
            make(tmp_path / place, made_small)
    for name, *arguments in found[page]:
        if why_parsed([name, *arguments]) is None:
            assert name == "hunyuan-video", f"{name} is not run: say in PARSED why"
            capfd.readouterr()
            assert run(arguments) == 0, (arguments, capfd.readouterr().err)
            if arguments[0] in ("generate", "continue", "replay", "convert") and "--help" not in arguments:
                assert Path(capfd.readouterr().out.splitlines()[0]).exists()
        elif name == "pytest":
            assert pytestconfig._parser.parse_known_and_unknown_args(arguments)[1] == []
        else:
            PARSERS[name](arguments, monkeypatch)


def run(arguments: list[str]) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as end:  # as argparse ends after a help
        return int(end.code or 0)


def test_what_is_only_parsed_is_still_there(found):
    assert {why_parsed(command) for commands in found.values() for command in commands} - {None} == set(PARSED)


@pytest.mark.parametrize(
    "line",
    [
        "hunyuan-video generate a --seeds 7",
        "python benchmarks/bench.py a1 --repeat",
        "torchrun -m hunyuan_video.cli train lora --out a --start b",
        "docker build --file docker/Dockerfile --build-arg FLAVOR=cpu --tag hunyuan-video:cpu .",
        "docker run --rm hunyuan-video:cpu generate a --seeds 7",
        "docker compose logs workers",
    ],
)
def test_a_command_that_is_wrong_is_found(line, monkeypatch, capsys):
    name, *arguments = line.split()
    with pytest.raises((AssertionError, SystemExit)):
        PARSERS[name](arguments, monkeypatch)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README_zh.md"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_says_what_it_is(page):
    """So that none with commands in it is passed over."""
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(.*)$", text, flags=re.MULTILINE)
    assert len(fences) == text.count("```") and "~~~" not in text  # none is indented
    assert set(fences[::2]) <= {"sh", "python", "toml", "text"} and set(fences[1::2]) <= {""}


def flags_of(name: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    capsys.readouterr()
    assert run([*name.split(), "--help"]) == 0
    return set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out))


def test_every_flag_of_a_command_in_running_text_exists(capsys):
    known: dict[str, set[str]] = {}
    for page in PAGES:
        for words in re.findall(r"`hunyuan-video ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
            name = re.match(r"(?:train|data|evaluate) [a-z]+|[a-z]+", words)[0]
            given = set(re.findall(r"--[a-z0-9-]+", words)) - {"--help"}
            if given:
                known[name] = known.get(name) or flags_of(name, capsys)
                assert given <= known[name], f"{page.name}: {words}"
    assert len(known) >= 4


@pytest.mark.slow
def test_a_lora_is_trained_and_used_by_the_commands_of_the_readme(found, tmp_path, monkeypatch, capsys):
    ours = [command[1:] for command in found[ROOT / "README.md"] if "runs/mine" in " ".join(command)]
    assert [arguments[0] for arguments in ours] == ["train", "train", "generate"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_BASE", raising=False)
    clips(tmp_path / "my-clips")
    for arguments in ours:
        assert run(arguments) == 0, (arguments, capsys.readouterr().err)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_video_that_a_page_names_is_one_that_it_makes(page: Path):
    """By a prompt and a seed that stand there, in the same letters."""
    text = page.read_text(encoding="utf-8")
    made = {safe_name(prompt, int(seed)) for prompt, seed in re.findall(r'generate "([^"]+)"[^\n]*?--seed (\d+)', text)}
    assert set(re.findall(r"results/(\w+_seed\d+)\.mp4", text)) <= made
