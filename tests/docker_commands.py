"""A `docker` command line, understood as far as the documents use it. None is carried out: that takes an engine."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import yaml
from dockerfiles import instructions

ROOT = Path(__file__).parent.parent
SERVICES = yaml.safe_load((ROOT / "docker/compose.yml").read_text(encoding="utf-8"))["services"]
FLAVOURS = [path.stem.removeprefix("torch-") for path in (ROOT / "docker/lock").glob("torch-*.txt")]


def check(arguments: list[str], ours: Callable[[list[str]], None]) -> None:
    """Raises for a word that is none. `ours` is given what a container of our image is to run."""
    given = _parser().parse_args(arguments)
    if given.command == "build":
        defaults = dict(step.value.partition("=")[::2] for step in instructions(ROOT / "docker/Dockerfile") if step.name == "ARG")
        told = dict(word.split("=", 1) for word in given.build_arg)
        assert (ROOT / given.file).is_file() and told.keys() <= defaults.keys() and told.get("FLAVOUR") in FLAVOURS
    elif given.command == "run":
        assert re.fullmatch(r"hunyuan-video:(.*)", given.image)[1] in FLAVOURS
        assert {volume.split(":")[1] for volume in given.volume} <= {"/weights", "/data"}
        if given.entrypoint is None and given.words:
            ours(given.words)
    elif given.command == "compose":
        named = [given.service] if given.action == "exec" else given.services
        assert set(named) <= SERVICES.keys()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("docker", exit_on_error=False, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)

    build = commands.add_parser("build", allow_abbrev=False)
    build.add_argument("--file", required=True)
    build.add_argument("--build-arg", action="append", default=[])
    build.add_argument("--tag", required=True)
    build.add_argument("context", choices=["."])

    run = commands.add_parser("run", allow_abbrev=False)
    for flag in ("--rm", "--detach", "--interactive", "--read-only"):
        run.add_argument(flag, action="store_true")
    for word in ("name", "gpus", "user", "publish", "env", "tmpfs", "cap-drop", "security-opt", "stop-timeout", "entrypoint"):
        run.add_argument(f"--{word}")
    run.add_argument("--volume", action="append", default=[])
    run.add_argument("image")
    run.add_argument("words", nargs=argparse.REMAINDER)

    inspect = commands.add_parser("inspect", allow_abbrev=False)
    inspect.add_argument("--format", required=True)
    inspect.add_argument("name")

    actions = commands.add_parser("compose", allow_abbrev=False).add_subparsers(dest="action", required=True)
    for name, flags in {"up": ("--detach", "--build", "--wait"), "ps": (), "logs": ()}.items():
        action = actions.add_parser(name, allow_abbrev=False)
        for flag in flags:
            action.add_argument(flag, action="store_true")
        action.add_argument("services", nargs="*")
    execute = actions.add_parser("exec", allow_abbrev=False)
    execute.add_argument("--no-TTY", action="store_true")
    execute.add_argument("service")
    execute.add_argument("words", nargs=argparse.REMAINDER)
    return parser
