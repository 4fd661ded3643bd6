"""What this installation is and has."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from hunyuan_video import __version__, weights
from hunyuan_video.kernels import choice, table

PACKAGES = ("torch", "transformers", "safetensors", "av")


def report(root: Path | None) -> str:
    """Versions, devices, attention kernels and weights, as text for a person."""
    lines = ["Versions", f"  python {platform.python_version()} on {platform.platform()}"]
    lines += [f"  hunyuan-video {__version__}", *(f"  {package} {_version(package)}" for package in PACKAGES)]

    lines += ["", "Devices", f"  cpu ({torch.get_num_threads()} threads)"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(f"  cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        lines.append("  mps")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lines += ["", "Attention"]
    lines += [
        f"  {name} on {device}: {_usable(name, device)}" for name, kernel in table.KERNELS.items() if kernel.device in (None, device.type)
    ]

    lines += ["", "Weights"]
    found = weights.locate(root or weights.DEFAULT_ROOT)
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        path = getattr(found, name)
        lines.append(f"  {name:<15} {'found  ' if path.exists() else 'missing'}  {path}")
    if found.missing():
        lines += [f"  embedded        found    {weights.EMBEDDED}", f"  {weights.HOW_TO_GET}"]
    if found.missing():
        if root is not None:
            return "\n".join(lines)
        found = weights.locate(weights.EMBEDDED)
    return "\n".join([*lines, "", f"Settings that {found.root} was made for", *_settings(found)])


def _settings(found: weights.Weights) -> list[str]:
    try:
        usual = {name: value for name, value in asdict(found.sampling()).items() if name != "seed" and value is not None}
    except ValueError as error:
        return [f"  {error}"]
    return [f"  {name:<15} {value}" for name, value in usual.items()]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _usable(name: str, device: torch.device) -> str:
    """Tries it, in every dtype: what a library claims and what runs differ."""
    if reason := choice.why_not(name, device):
        return f"not usable, {reason.removeprefix('but ')}"
    kernel, works = table.load(name), []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        q = torch.zeros(1, 16, 1, 64, device=device, dtype=dtype)
        try:
            kernel(q, q, q, None)
        except (RuntimeError, ValueError):
            continue
        works.append(str(dtype).removeprefix("torch."))
    return ", ".join(works) or "not usable"
