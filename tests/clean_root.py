"""A Dockerfile's instructions, and its stages carried out without an engine: each in a Debian of its own that has nothing but Python."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from docker.utils.build import exclude_paths

# What is mounted and started goes with what has done it. The network is the machine's.
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Instruction:
    name: str
    value: str


def instructions(dockerfile: Path) -> list[Instruction]:
    """In order, without comments, each on one line."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [Instruction(*line.split(None, 1)) for line in lines if line.strip()]


def stages(dockerfile: Path) -> dict[str, list[Instruction]]:
    found: dict[str, list[Instruction]] = {}
    for instruction in instructions(dockerfile):
        if instruction.name == "FROM":
            found[instruction.value.split(" AS ")[1]] = []
        elif found:
            found[next(reversed(found))].append(instruction)
    return found


def context_of(source: Path) -> set[str]:
    """The files that an engine is given to build from, by .dockerignore."""
    patterns = [line for line in (source / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    files = {path for path in exclude_paths(str(source), patterns) if (source / path).is_file()}
    return files - {".dockerignore"}  # which an engine is always given


def debian(root: Path) -> None:
    """What the image `python:3.11-slim-bookworm` has that a Dockerfile uses."""
    packages = "--include=python3,python3-pip,ca-certificates"
    subprocess.run([*APART, "debootstrap", "--variant=minbase", packages, "bookworm", root], check=True)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    # What pip is told on this machine by PIP_…, such as where wheels are, it is told there, too.
    for name, value in os.environ.items():
        if name.startswith("PIP_") and os.path.isabs(value) and os.path.exists(value):
            to = root / value[1:]
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(value, to, dirs_exist_ok=True) if os.path.isdir(value) else shutil.copy(value, to)


@dataclass
class Stage:
    """A root under construction. `others` are the stages before it, `given` the arguments of the build."""

    root: Path
    source: Path
    others: dict[str, Stage] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The output of a command, with what the Dockerfile has set."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        told = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.lower().endswith("_proxy")}
        inside = shlex.join(["chroot", f"--userspec={self.user}", str(self.root), "env", "-C", self.folder, *command])
        mounts = f"mount -t proc proc {self.root}/proc && mount --rbind /dev {self.root}/dev"
        return subprocess.run(
            [*APART, "sh", "-c", f"{mounts} && exec {inside}"],
            env={"PATH": path, **told, **self.environment, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip

    def carry_out(self, instruction: Instruction) -> None:
        value = instruction.value
        match instruction.name:
            case "ARG":
                name, _, default = value.partition("=")
                self.environment[name] = self.given.get(name, default)
            case "ENV":
                self.environment |= dict(word.split("=", 1) for word in shlex.split(self._filled(value)))
            case "WORKDIR":
                self.folder = value
                self._inside(value).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = value
            case "RUN":
                done = self.run("sh", "-c", value)
                assert done.returncode == 0, f"RUN {value}\n{done.stdout}"
            case "COPY":
                self._copy(value.split())
            case "ENTRYPOINT":
                self.entrypoint = list(re.findall(r'"([^"]*)"', value))
            case "LABEL" | "VOLUME" | "EXPOSE" | "HEALTHCHECK" | "CMD":
                pass
            case unknown:
                raise NotImplementedError(unknown)

    def _copy(self, words: list[str]) -> None:
        other = words[0].removeprefix("--from=") if words[0].startswith("--") else None
        *sources, target = words[1:] if other else words
        for source in sources:
            to = self._inside(target) / Path(source).name if target.endswith("/") else self._inside(target)
            if other:
                shutil.copytree(self.others[other]._inside(source), to, symlinks=True)
                continue
            files = [path for path in context_of(self.source) if path == source or path.startswith(f"{source}/")]
            assert files, f"{source} is not in the context"
            for path in files:
                file = to / Path(path).relative_to(source)
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.source / path, file)

    def _inside(self, path: str) -> Path:
        return self.root / os.path.join(self.folder, path).lstrip("/")

    def _filled(self, value: str) -> str:
        return re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda found: self.environment.get(found[1] or found[2], os.defpath), value)
