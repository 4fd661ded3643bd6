"""What is asked of ComfyUI, all in one place: its schema, folders, progress, cancelling and memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import folder_paths  # pyright: ignore[reportMissingImports] (ComfyUI is no package: it is there while it runs)
from comfy import model_management  # pyright: ignore[reportMissingImports]
from comfy.utils import ProgressBar  # pyright: ignore[reportMissingImports]
from comfy_api.latest import ComfyExtension, InputImpl, Types, io  # pyright: ignore[reportMissingImports]
from PIL import Image
from torch import Tensor

__all__ = ["ComfyExtension", "ProgressBar", "add_weights_folder", "io"]

CATEGORY = "HunyuanVideo"
WEIGHTS = "hunyuan_video"  # ComfyUI's models folder has one of this name, with a folder for each whole model
_TRANSFORMERS = (".safetensors", ".gguf", ".pt")
PREVIEW_SIDE = 512  # pixels


def add_weights_folder() -> None:
    folder_paths.add_model_folder_path(WEIGHTS, str(Path(folder_paths.models_dir) / WEIGHTS))


def weights_folders() -> dict[str, Path]:
    """The whole models that are there, by name."""
    places = [Path(place) for place in folder_paths.get_folder_paths(WEIGHTS)]
    return {folder.name: folder for place in places if place.is_dir() for folder in sorted(place.iterdir()) if folder.is_dir()}


def transformers() -> dict[str, Path]:
    """The files among ComfyUI's diffusion models that may be a transformer, by the name that ComfyUI shows; also in folders that are linked
    there, as it does."""
    places = [Path(place) for place in folder_paths.get_folder_paths("diffusion_models")]
    files = sorted(
        (place, Path(folder, name)) for place in places for folder, _, names in os.walk(place, followlinks=True) for name in names
    )
    return {str(file.relative_to(place)): file for place, file in files if file.suffix.lower() in _TRANSFORMERS}


def loras() -> dict[str, Path]:
    """ComfyUI's LoRA files, by the name that it shows."""
    return {name: Path(folder_paths.get_full_path_or_raise("loras", name)) for name in folder_paths.get_filename_list("loras")}


def place_for_output(prefix: str, width: int, height: int, suffix: str) -> tuple[Path, str]:
    """A new file's path in ComfyUI's output folder, and which folder in that it is in. A prefix may name folders, as everywhere there."""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory(), width, height)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / f"{name}_{counter:05}_{suffix}", subfolder


def video(images: Tensor, rate: float) -> Any:
    """ComfyUI's VIDEO of an IMAGE."""
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(rate)))


def preview(image: Image.Image) -> tuple[str, Image.Image, int]:
    """What ComfyUI shows in a node while it works."""
    return "JPEG", image, PREVIEW_SIDE


def raise_if_cancelled() -> None:
    """Raises ComfyUI's own exception when the user has pressed cancel."""
    model_management.throw_exception_if_processing_interrupted()


def make_room() -> None:
    """Have ComfyUI's own models leave the GPU."""
    model_management.unload_all_models()
    model_management.soft_empty_cache()


def when_memory_is_freed(do: Callable[[], None]) -> None:
    """Have `do` done whenever ComfyUI unloads all models: by its button, its API, or after it ran out of memory. There is no hook for that,
    so its function is replaced by one that does both."""
    unload = model_management.unload_all_models

    def unload_all_models(*args: Any, **kwargs: Any) -> Any:
        do()
        return unload(*args, **kwargs)

    model_management.unload_all_models = unload_all_models
