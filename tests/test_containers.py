"""What containers are made from, as far as it can be proven without Docker: docs/containers.md says what that leaves open."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from builder import Builder
from dockerfiles import context_of, stages
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from hunyuan_video import cli
from hunyuan_video.apps.parse import parse

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STAGES = stages(DOCKER / "Dockerfile")


def values(stage: str, name: str) -> list[str]:
    return [instruction.value for instruction in STAGES[stage] if instruction.name == name]


# --- The image ---


def test_hadolint_finds_nothing():
    tool = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([tool, "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True, encoding="utf-8")
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_image_runs_as_a_user_without_rights():
    assert [int(part) > 0 for part in values("runtime", "USER")[-1].split(":")] == [True, True]


def test_the_image_says_which_version_it_is():
    assert f'version="{PROJECT["version"]}"' in " ".join(values("runtime", "LABEL"))


def test_loading_from_a_slow_disk_is_no_fault():
    """45 GB at 50 MB/s."""
    (check,) = values("runtime", "HEALTHCHECK")
    assert int(re.search(r"--start-period=(\d+)m ", check)[1]) * 60 >= 45e9 / 50e6


def test_every_flavour_is_the_torch_that_the_tests_ran_with():
    pinned = pins(ROOT / "constraints.txt")["torch"]
    files = sorted(DOCKER.glob("lock/torch-*.txt"))
    assert [file.stem for file in files] == ["torch-cpu", "torch-cu126", "torch-cu130"]
    for file in files:
        version = Version(pins(file)["torch"])
        assert version.base_version == pinned and version.local in (None, file.stem.removeprefix("torch-"))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source distribution has no list of what is tracked")
def test_only_what_the_image_needs_gets_into_the_build(tmp_path):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    private = [
        ".git/config", ".venv/bin/python", "ckpts/vae/pytorch_model.pt", "results/a.mp4", "docker/.env", "docker/secrets/api_keys",
        "src/hunyuan_video/__pycache__/cli.cpython-311.pyc", "src/hunyuan_video.egg-info/PKG-INFO",
    ]  # fmt: skip
    for path in [*tracked, *private]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    wanted = ("src/", "docker/lock/", "docker/entrypoint.sh", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
    assert context_of(tmp_path) == {path for path in tracked if path.startswith(wanted)}


@pytest.mark.skipif(os.name != "posix", reason="a script for sh")
def test_a_password_in_a_file_reaches_what_speaks_to_the_database(tmp_path):
    (tmp_path / "hunyuan-video").write_text('#!/bin/sh\necho "$PGPASSWORD" "$@"\n', encoding="ascii")
    (tmp_path / "hunyuan-video").chmod(0o755)
    (tmp_path / "password").write_text("p a$s\n", encoding="ascii")
    environment = {"PATH": f"{tmp_path}:{os.defpath}", "PGPASSWORD_FILE": str(tmp_path / "password")}
    done = subprocess.run([DOCKER / "entrypoint.sh", "serve", "--port", "1"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "p a$s serve --port 1\n"


# --- What is installed ---


def pins(file: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s\\]+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


LOCKED = pins(DOCKER / "lock/common.txt") | pins(DOCKER / "lock/torch-cu130.txt")


def test_what_is_locked_is_what_the_project_allows():
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *extras["serve"], *extras["postgres"], *extras["s3"], *extras["demo"]]
    for requirement in map(Requirement, asked):
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(LOCKED[canonicalize_name(requirement.name)]), requirement


def test_what_is_locked_is_what_the_tests_ran_with():
    tested = pins(ROOT / "constraints.txt")
    assert len(LOCKED.keys() & tested.keys()) > 50
    assert {name: LOCKED[name] for name in LOCKED.keys() & tested.keys()} == {name: tested[name] for name in LOCKED.keys() & tested.keys()}


@pytest.mark.parametrize("name", ["common", "torch-cu130"])
def test_every_locked_file_has_a_hash(name):
    blocks = re.split(r"^(?=[^\s#])", (DOCKER / f"lock/{name}.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(blocks) > 15
    assert [block for block in blocks if not re.fullmatch(r"\S+==\S+( \\\n +--hash=sha256:[0-9a-f]{64})+\n", block)] == []


def test_conda_makes_an_environment_of_a_python_that_we_run_on():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, packages = environment["dependencies"]
    assert environment["name"] == "HunyuanVideo" and pip == "pip"
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    constraint, ours = packages["pip"]
    assert (ROOT / constraint.removeprefix("--constraint ")).is_file()
    assert set(Requirement(ours.replace(".", PROJECT["name"], 1)).extras) <= PROJECT["optional-dependencies"].keys()


# --- The services ---


def filled(value: Any, settings: dict[str, str]) -> Any:
    """A part of compose.yml with ${NAME:-default}, ${NAME-default} and ${NAME:?why} in it replaced."""
    if isinstance(value, dict):
        return {name: filled(part, settings) for name, part in value.items()}
    if isinstance(value, list):
        return [filled(part, settings) for part in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)(:?[-?])([^}]*)\}", lambda found: settings.get(found[1], found[3] if "-" in found[2] else ""), value)
    return value


def settings_of(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE))


COMPOSE = (DOCKER / "compose.yml").read_text(encoding="utf-8")
TOLD: dict[str, Any] = filled(yaml.safe_load(COMPOSE), {})
SERVICES: dict[str, dict[str, Any]] = TOLD["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("hunyuan-video:")]
each = pytest.mark.parametrize("name", SERVICES)


@each
def test_a_service_has_no_rights_that_it_does_not_need(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "userns_mode", "volumes_from"} == set()
    assert "docker.sock" not in str(service)


@each
def test_a_service_is_not_root(name):
    if name in OURS:
        assert "user" not in SERVICES[name]  # the image's
    else:
        assert int(SERVICES[name]["user"].partition(":")[0]) > 0


@each
def test_a_service_is_watched_or_says_why_not(name):
    service = SERVICES[name]
    assert ("test" in service["healthcheck"]) != (service["healthcheck"].get("disable") is True and len(service["x-no-healthcheck"]) > 40)


@each
def test_a_service_has_its_secrets_from_files(name):
    for variable, value in SERVICES[name]["environment"].items():
        if re.search("PASSWORD|KEY|SECRET|TOKEN", variable):
            assert value.removeprefix("/run/secrets/") in SERVICES[name]["secrets"]


def test_secrets_lie_where_git_does_not_look():
    for secret in TOLD["secrets"].values():
        assert secret["file"].startswith("secrets/")
    assert {"/docker/secrets/", "/docker/.env"} <= set((ROOT / ".gitignore").read_text(encoding="utf-8").splitlines())


def test_only_the_api_and_the_demo_can_be_reached_and_only_from_this_machine():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000"], "demo": ["127.0.0.1:8081:8081"]}
    assert {name for name, service in SERVICES.items() if service["networks"] != ["inside"]} == {"api", "demo"}
    assert TOLD["networks"]["inside"] == {"internal": True}


def test_nothing_that_ours_write_is_lost_with_a_container():
    for name in OURS:
        assert SERVICES[name]["read_only"] and SERVICES[name]["tmpfs"] == ["/tmp"]
        assert {mount["target"]: mount.get("read_only", False) for mount in SERVICES[name]["volumes"]} == {"/weights": True, "/data": False}


def test_every_setting_of_the_example_is_one_and_none_is_missing():
    known = set(re.findall(r"\$\{(\w+)", COMPOSE)) | {"COMPOSE_PROFILES"}
    assert settings_of(DOCKER / "example.env").keys() == known


def test_every_service_starts_with_the_example_and_exactly_one_kind_of_worker():
    settings = settings_of(DOCKER / "example.env")
    profile = settings["COMPOSE_PROFILES"]
    started = {name for name, service in SERVICES.items() if profile in service.get("profiles", [profile])}
    assert started == {"api", "demo", "database", "worker"}


@pytest.mark.parametrize("name", OURS)
def test_a_service_says_what_our_own_parser_understands(name):
    command, *arguments = SERVICES[name]["command"]
    parse(cli.COMMANDS[command], arguments, f"hunyuan-video {command}")


def test_the_image_says_by_itself_what_our_own_parser_understands():
    command, *arguments = re.findall(r'"([^"]*)"', values("runtime", "CMD")[-1])
    parse(cli.COMMANDS[command], arguments, f"hunyuan-video {command}")


# --- Built ---


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Builder, str]]:
    """A container of the CPU's image: a quarter of an hour, and 10 GB of disk until the tests are over."""
    if not (shutil.which("buildah") and shutil.which("debootstrap") and os.geteuid() == 0):
        pytest.skip("needs buildah, debootstrap and root")
    folder = tmp_path_factory.mktemp("images")
    builder = Builder(folder)
    yield builder, builder.container(builder.build(ROOT, PYTHON=builder.python(), FLAVOUR="cpu"))
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_image_is_built_from_a_bare_debian_and_makes_a_video(built, tmp_path):
    """As its user, into a folder of the machine."""
    builder, container = built
    os.chown(tmp_path, 10001, 10001)
    first = ("tini", "--", "entrypoint", "generate", "A cat walks on the grass", "--num-steps", "2")
    builder.inside(container, *first, options=("--env=MODEL_BASE=", f"--volume={tmp_path}:/data"))
    assert [(path.suffix, path.stat().st_uid) for path in (tmp_path / "results").iterdir()] == [(".mp4", 10001)]


@pytest.mark.slow
def test_the_user_of_the_image_can_write_to_nothing_else(built):
    builder, container = built
    skipped = " -o ".join(f"-path {path}" for path in ("/proc", "/sys", "/dev"))
    search = f"find / -xdev \\( {skipped} \\) -prune -o -type d -writable -print -prune 2>/dev/null"
    found = set(builder.inside(container, "sh", "-c", f"{search}; true").split())
    assert found == {"/data", "/tmp", "/var/tmp", "/run/lock"}


@pytest.mark.slow
def test_the_image_has_no_compiler(built):
    builder, container = built
    assert builder.inside(container, "sh", "-c", "command -v cc gcc g++ make ld || true") == ""


@pytest.mark.slow
def test_a_stop_reaches_what_the_image_runs(built):
    """128 and SIGTERM's number, long before a thousand steps; what does not hear it is killed, which is another code."""
    builder, container = built
    work = 'tini -- entrypoint generate "A cat walks on the grass" --num-steps 1000'
    said = builder.inside(
        container, "sh", "-c", f"timeout --preserve-status --kill-after=60 15 {work}; echo $?", options=("--env=MODEL_BASE=",)
    )
    assert said.splitlines()[-1] == "143"
