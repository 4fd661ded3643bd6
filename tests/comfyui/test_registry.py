"""What the Comfy registry asks of a node pack (docs.comfy.org/registry: specifications, standards)."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from PIL import Image

import hunyuan_video

PACK = Path(__file__).parents[2] / "comfyui"
PROJECT = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_name_is_one_that_the_registry_takes():
    name = PROJECT["project"]["name"]
    assert len(name) < 100
    assert re.fullmatch(r"[a-z](?:[-_.]?[a-z0-9])*", name)
    assert "comfyui" not in name.lower()


def test_the_version_is_semantic_and_the_packages_own():
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["project"]["version"])
    assert PROJECT["project"]["version"] == hunyuan_video.__version__


def test_licence_repository_and_publisher_are_there():
    assert PROJECT["project"]["license"] == {"text": "Apache-2.0"}
    assert PROJECT["project"]["urls"]["Repository"].startswith("https://github.com/")
    assert re.fullmatch(r"[a-z0-9-]+", PROJECT["tool"]["comfy"]["PublisherId"])
    assert PROJECT["tool"]["comfy"]["DisplayName"]
    assert SpecifierSet(PROJECT["tool"]["comfy"]["requires-comfyui"])


def test_classifiers_are_those_that_the_registry_knows():
    systems = {"Operating System :: OS Independent"}
    accelerators = {"Environment :: GPU :: NVIDIA CUDA"}
    assert {*PROJECT["project"]["classifiers"]} == systems | accelerators


def test_the_pack_asks_for_this_package():
    (requirement,) = map(Requirement, PROJECT["project"]["dependencies"])
    assert requirement.name == "hunyuan-video"
    assert requirement.specifier.contains(hunyuan_video.__version__)


def test_the_icon_is_small_enough_and_where_its_address_says():
    assert PROJECT["tool"]["comfy"]["Icon"].endswith("/comfyui/icon.png")
    with Image.open(PACK / "icon.png") as icon:
        assert icon.width == icon.height <= 400


def test_nothing_is_evaluated_hidden_or_installed_while_it_runs():
    rules = "S102,S307,E702"  # exec, eval, several statements a line: what `comfy node validate` looks for
    command = [sys.executable, "-m", "ruff", "check", str(PACK), "--isolated", "--quiet", "--select", rules]
    found = subprocess.run(command, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")
    source = "".join(path.read_text(encoding="utf-8") for path in PACK.rglob("*.py"))
    assert not re.search(r"\b(subprocess|os\.system|pip|base64|marshal|urlopen|requests\.get)\b", source)
