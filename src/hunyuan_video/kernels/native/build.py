"""Compiles one C++ file into a library, which is kept in the user's cache and used by all later processes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hunyuan_video.files import replacing, user_cache

SOURCES = Path(__file__).parent
# For any CPU: what a path needs beside these is its own affair. The same memory is read as words, float32 and bfloat16.
FLAGS = ("-std=c++17", "-O3", "-fno-strict-aliasing", "-fPIC", "-shared")
SECONDS = 120  # compiling takes three


class NotBuiltError(RuntimeError):
    """Says why there is no library, and what would help."""


def compiler() -> str | None:
    """The path of the C++ compiler: $CXX, as everywhere in this trade, or else the first that there is."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")))), None)


@cache
def digest() -> str:
    """Of all sources, by which a library is known."""
    files = sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")])
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def library(name: str, flags: Sequence[str] = ()) -> Path:
    """The library of `name`.cpp, which is compiled unless a process has done so before. Several processes may do so at once.

    Raises:
        NotBuiltError: there is no compiler, it fails, or there is no place for the library.
    """
    cache_folder, found = user_cache(), compiler()
    if cache_folder is None:
        raise NotBuiltError("there is no folder for compiled kernels; give this user a home, or set XDG_CACHE_HOME.")
    folder = cache_folder / "native"
    if found is None:  # perhaps there was one when this image or machine was set up
        if built := sorted(folder.glob(f"{name}-{digest()}-*.so")):
            return built[0]
        raise NotBuiltError(
            "native kernels are compiled at their first use, and there is no C++ compiler; install g++ or clang++, or set CXX."
        )
    built_by = hashlib.sha256(" ".join([_version(found), *FLAGS, *flags]).encode()).hexdigest()[:8]
    target = folder / f"{name}-{digest()}-{built_by}.so"
    if not target.exists():
        _compile(name, [found, *FLAGS, *flags], target)
    return target


def opened(name: str, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """As `library`, loaded; one that a disk has damaged is compiled anew."""
    path = library(name, flags)
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink(missing_ok=True)
    try:
        return ctypes.CDLL(str(library(name, flags)))
    except OSError as error:
        raise NotBuiltError(f"the compiled {name}.cpp cannot be loaded ({error}).") from error


def _compile(name: str, command: list[str], target: Path) -> None:
    source = SOURCES / f"{name}.cpp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as (temporary, _):
            subprocess.run([*command, str(source), "-o", str(temporary)], check=True, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.CalledProcessError as error:
        said = next((line for line in error.stderr.splitlines() if "error" in line), error.stderr.strip()[:200])
        raise NotBuiltError(f"{command[0]} cannot compile {source.name} ({said}); a newer g++ or clang++ may, by CXX.") from error
    except subprocess.TimeoutExpired as error:
        raise NotBuiltError(f"{command[0]} has not compiled {source.name} in {SECONDS} seconds; set CXX to another compiler.") from error
    except OSError as error:
        raise NotBuiltError(f"the compiled {source.name} cannot be kept ({error}).") from error


@cache
def _version(found: str) -> str:
    try:
        said = subprocess.run([found, "--version"], check=True, capture_output=True, text=True, timeout=SECONDS).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise NotBuiltError(f"{found} does not run ({error}); set CXX to a C++ compiler.") from error
    return f"{found} {said}"
