"""The doors a newcomer goes through: what the documents say works, and the built package is complete."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import random_lora
from PIL import Image

from hunyuan_video import checkpoint, cli, memory, weights
from hunyuan_video.checkpoint.lora import save_lora
from hunyuan_video.video import save_video

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README_zh.md", *sorted((ROOT / "docs").glob("*.md"))]


def shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_first_video_takes_less_than_40_seconds_of_compute_and_2_gb(tmp_path):
    code = (
        "import time; from pathlib import Path; from hunyuan_video import cli; "
        "assert cli.main(['generate', 'A cat walks on the grass, realistic style.']) == 0; "
        # Not getrusage, whose peak a process inherits from the one that started it.
        "print(time.process_time(), Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    seconds, kibibytes = map(float, result.stdout.splitlines()[-1].split())
    assert seconds < 40 and kibibytes * 1024 < 2e9


def sections(page: Path) -> list[dict[str, object]]:
    """Of each section of a page what is the same in every language."""
    return [outline(section) for section in re.split(r"^#+ ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]]


def outline(section: str) -> dict[str, object]:
    fence = r"^```(\w+)\n(.*?)^```"
    blocks, prose = re.findall(fence, section, flags=re.DOTALL | re.MULTILINE), re.sub(fence, "", section, flags=re.DOTALL | re.MULTILINE)
    return {
        "blocks": [(kind, [re.split("  +", line.strip())[0] for line in block.splitlines()]) for kind, block in blocks],  # no comments
        "links": re.findall(r"(!?)\[[^\]]*\]\((?!README)([^)]+)\)", prose),
        "names": sorted(re.findall(r"`[^`]+`", prose)),
        "rows": len(re.findall(r"^\|", prose, flags=re.MULTILINE)),
        "points": len(re.findall(r"^\* ", prose, flags=re.MULTILINE)),
        "paragraphs": len(re.findall(r"\n\n(?=[^\n])", prose)),
    }


def test_both_readmes_say_the_same_section_by_section():
    english, chinese = sections(ROOT / "README.md"), sections(ROOT / "README_zh.md")
    assert len(english) >= 9
    assert chinese == english
    assert shell_lines(ROOT / "README.md") == shell_lines(ROOT / "README_zh.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_a_page_names_exists(page):
    named = set(re.findall(r"`hunyuan-video ([a-z]+)", page.read_text(encoding="utf-8")))
    assert named <= {*cli.COMMANDS, *cli.GROUPS}


def test_the_python_example_of_the_readme_runs(tmp_path, made_small, monkeypatch):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("ckpts").symlink_to(made_small)
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "cat.mp4").exists()


def python_of(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL))


SERVED = ("serving-api.md",)  # tests/serving/test_docs.py runs it, against a server
RUN = [page for page in PAGES if python_of(page) and page.parent.name == "docs" and page.name not in SERVED]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_python_of_every_page_runs(page, tmp_path, made_small, monkeypatch):
    """From top to bottom, beside the files that it names."""
    monkeypatch.chdir(tmp_path)
    Path("ckpts").symlink_to(made_small)
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**12)  # as if everything fitted
    model = checkpoint.load_transformer(weights.locate(weights.EMBEDDED).transformer, torch.float32, torch.device("cpu"))
    for name in ("style", "motion"):
        save_lora(random_lora(model), f"{name}.safetensors", "kohya")
    save_video(
        np.zeros((1, 16, 16, 3), np.uint8), "results/a_cat_walks_on_the_grass_seed42.mp4", metadata={"prompt": "", "sampling": {"seed": 42}}
    )
    exec(compile(python_of(page), page.name, "exec"), {})


def test_the_readme_says_what_has_never_run_and_shows_a_picture_that_moves():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\*\*Not proven yet:\*\* .*GPU.*official weights", text, flags=re.DOTALL)
    shown = re.findall(r"!\[[^\]]*\]\((\S+)\)", text)
    frames = []
    for path in shown:
        with Image.open(ROOT / path) as picture:
            frames.append(getattr(picture, "n_frames", 1))
    assert max(frames) > 10


@pytest.mark.slow
def test_the_package_is_typed_for_its_users(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from hunyuan_video import HunyuanVideo, Limits, Sampling\n"
        "pipe = HunyuanVideo.load(sampling=Sampling(seed=7))\n"
        "reveal_type(pipe('A cat.').provenance.sampling.num_steps)\nreveal_type(Limits().max_steps)\n"
        "Sampling(seed='7')\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(tmp_path / "mine.py")]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8").stdout
    assert said.count('is "int"') == 2 and "1 error" in said, said


def test_the_embedded_model_is_complete_and_small():
    files = [path for path in weights.EMBEDDED.rglob("*") if path.is_file()]
    assert weights.locate(weights.EMBEDDED).missing() == []
    assert sum(path.stat().st_size for path in files) <= 50e6 and max(path.stat().st_size for path in files) <= 25e6
    assert {path.suffix for path in files} <= {".safetensors", ".json"}


def repository(clean: Path) -> list[str]:
    """A copy of the files that are the repository's, and not what its commands have left there; in a source distribution, of all."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
        files = [name for name in listed if name and not name.startswith(".") and (ROOT / name).is_file()]
    else:
        files = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()]
        files = [name for name in files if not re.search(r"(^|/)(\.|__pycache__|PKG-INFO|setup\.cfg|.*\.egg-info)", name)]
    for name in files:
        (clean / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clean / name)
    return files


def test_the_source_distribution_is_the_repository_and_makes_the_whole_wheel(tmp_path):
    clean = tmp_path / "clean"  # in the repository, setuptools would also pack what an earlier build left in build/lib
    files = set(repository(clean))
    assert {"MANIFEST.in", "constraints.txt", "mkdocs.yml", "sample_video.py", "test.sh", "tests/test_doors.py", "docs/site.py"} <= files

    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=clean, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert files <= {name.partition("/")[2] for name in archive.getnames()}

    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(sdist)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    embedded = {
        f"hunyuan_video/tiny/{path.relative_to(weights.EMBEDDED).as_posix()}" for path in weights.EMBEDDED.rglob("*") if path.is_file()
    }
    native = {f"hunyuan_video/kernels/native/{name}" for name in ("flash.h", "cpu.cpp", "amx.cpp")}
    others = {"hunyuan_video/miniature/sprites.png", "hunyuan_video/py.typed", "hunyuan_video/cli.py"}
    assert embedded | native | others <= set(names)
    assert any(name.endswith("licenses/NOTICE") for name in names) and any(name.endswith("licenses/LICENSE") for name in names)
