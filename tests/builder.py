"""Images built and used by buildah, which needs no daemon and no rights but root's, from a Debian that has nothing but Python."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

# What is mounted and started goes with what has done it.
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


class Builder:
    """`folder` is where its images lie."""

    def __init__(self, folder: Path):
        self._buildah = ["buildah", "--root", str(folder / "images"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
        self._folder = folder

    def python(self) -> str:
        """An image with what python:3.11-slim-bookworm has and a Dockerfile uses."""
        root = self._folder / "debian"
        packages = "--include=python3,python3-pip,ca-certificates"
        subprocess.run([*APART, "debootstrap", "--variant=minbase", packages, "bookworm", root], check=True, stdout=subprocess.DEVNULL)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        told = [f"{name[4:].lower().replace('_', '-')} = {value}" for name, value in os.environ.items() if name.startswith("PIP_")]
        (root / "etc/pip.conf").write_text("\n".join(["[global]", *told]), encoding="utf-8")  # what pip is told on this machine
        container = self._do("from", "scratch").strip()
        self._do("add", container, str(root), "/")
        self._do("commit", "--rm", container, "localhost/bare")
        return "localhost/bare"

    def build(self, source: Path, **arguments: str) -> str:
        """The image of the Dockerfile in `source`, whose health check only Docker's format has."""
        told = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        files = [f"--volume={path}:{path}:ro" for path in _files_of_pip()]
        where = ["--file", str(source / "docker/Dockerfile"), str(source)]
        self._do("build", "--isolation=chroot", "--format=docker", "--pull-never", "--tag=localhost/built", *told, *files, *where)
        return "localhost/built"

    def container(self, image: str) -> str:
        return self._do("from", "--pull-never", image).strip()

    def inside(self, container: str, *command: str, options: tuple[str, ...] = ()) -> str:
        """What a command prints, as the image's user and with its settings."""
        return self._do("run", "--isolation=chroot", *options, container, "--", *command)

    def _do(self, *words: str) -> str:
        done = subprocess.run([*self._buildah, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout


def _files_of_pip() -> Iterator[str]:
    """What PIP_… names, such as a folder of wheels."""
    for name, value in os.environ.items():
        if name.startswith("PIP_") and os.path.isabs(value) and os.path.exists(value):
            yield value
