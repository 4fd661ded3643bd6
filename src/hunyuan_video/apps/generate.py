"""Makes videos with a progress bar: the loop behind `hunyuan-video generate`, `replay`, `decode` and `sample_video.py`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from hunyuan_video import files, video, weights
from hunyuan_video.config import Output, Runtime, Sampling
from hunyuan_video.distributed.world import resolve_device
from hunyuan_video.pipeline import HunyuanVideo, Step

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a file was made, read from its metadata."""

    settings: dict[str, Any]
    prompt: str
    sampling: Sampling
    runtime: Runtime
    model: str

    @classmethod
    def of(cls, settings: dict[str, Any], path: Path) -> Recipe:
        """Raises a ValueError if the settings are not complete, or of a version that knew others."""
        try:
            prompt, model = settings["prompt"], settings["model"]
            return cls(settings, prompt, Sampling(**settings["sampling"]), Runtime(**settings["runtime"]), model)
        except (KeyError, TypeError) as error:
            writer = settings.get("hunyuan_video", "unknown")
            raise ValueError(f"{path} holds settings that this version cannot use ({error}); version {writer} wrote them.") from error

    def runtime_here(self, device: str | None = None) -> Runtime:
        """The runtime, on another `device` if one is given. A kernel chosen on a CPU is none for a GPU, nor the other way round."""
        runtime = self.runtime if device is None else replace(self.runtime, device=device)
        alike = (resolve_device(runtime.device).type == "cpu") == (self.settings.get("device") == "cpu")
        return runtime if alike else replace(runtime, attention="auto")

    def weights(self, root: Path | None, path: Path) -> weights.Weights:
        """The weights that made `path`; raises a ValueError if those at `root`, its LoRA files or the picture it began with are others."""
        image = self.sampling.image
        if image is not None and files.sha256(image) != self.settings["image_sha256"]:
            raise ValueError(f"{image} is not the picture that {path} began with; put that one there again.")
        adapters = [adapter.path for adapter in self.runtime.adapters]
        if [files.sha256(adapter) for adapter in adapters] != self.settings.get("lora_sha256", []):
            names = ", ".join(map(str, adapters))
            raise ValueError(f"{names}: not the LoRA that {path} was made with; put that one there again.")
        found = weights.find_or_embedded(root)
        fingerprint = found.fingerprint()
        if self.model != fingerprint:
            raise ValueError(
                f"{path} was made with other weights (model {self.model}) than those in {found.root} (model {fingerprint}); "
                "give theirs with --weights."
            )
        return found


@dataclass(frozen=True)
class SavedState:
    """An interrupted video: what was asked for, and the latents after `step` steps."""

    recipe: Recipe
    output: Output
    step: int
    latents: Tensor

    @classmethod
    def read(cls, path: Path) -> SavedState:
        """What `make_video` kept. Raises a ValueError if the file is something else, or damaged."""
        latents, metadata = video.load_latents(path)
        if not {"step", "settings", "output"} <= metadata.keys():
            raise ValueError(f"{path} holds no state of an interrupted run; finished latents are for `hunyuan-video decode`.")
        output = Output(**(metadata["output"] | {"out": Path(metadata["output"]["out"])}))
        return cls(Recipe.of(metadata["settings"], path), output, metadata["step"], latents)


def make_video(
    pipe: HunyuanVideo,
    prompt: str,
    sampling: Sampling,
    output: Output,
    *,
    save_state: Path | None = None,
    resume: tuple[int, Tensor] | None = None,
) -> Path:
    """Make one video and write it; returns its path. With `save_state`, the state after every step is in that file.

    Raises:
        KeyboardInterrupt: stopped by the user; no partial file is left, and the log says what was kept.
    """
    last: Step | None = None
    try:
        for last in with_progress(pipe.steps(prompt, sampling, resume), sampling.num_steps):
            if last.stage == "denoise" and save_state is not None:
                assert last.latents is not None
                video.save_latents(last.latents, save_state, {"step": last.step, "settings": last.settings, "output": _plain(output)})
            if output.format == "latents" and last.stage == "denoise" and last.step == last.total:
                break
        assert last is not None
        return write(last, output)
    except KeyboardInterrupt:
        if save_state is not None and save_state.exists():  # ask the disk: Ctrl-C can come between saving and knowing it
            again = f"`hunyuan-video generate --resume {save_state}` (and the same --weights, if you gave any)"
            log.warning("Stopped. Kept: %s, the state after the last whole step; continue with %s.", save_state, again)
        else:
            log.warning("Stopped. Nothing of this video was kept (--save-state FILE keeps the state after every step).")
        raise


def with_progress(steps: Iterator[Step], num_steps: int) -> Iterator[Step]:
    """The same steps, behind a progress bar with stage, step and remaining time (on a terminal only)."""
    with tqdm(total=num_steps, unit="step", desc="encoding text", leave=False, disable=None) as bar:
        for step in steps:
            if step.stage == "denoise":
                bar.update(step.step - bar.n)
            bar.set_description("decoding" if step.stage == "denoise" and step.step == step.total else "denoising")
            yield step


def write(step: Step, output: Output) -> Path:
    """Write a finished video (or its latents) under a name made from its prompt and seed; never overwrites."""
    settings = step.settings
    name = files.safe_name(settings["prompt"], settings["sampling"]["seed"]) + (f"_{output.name_suffix}" if output.name_suffix else "")
    path = files.unique_path(output.out, name, output.suffix)
    if output.format == "latents":
        assert step.latents is not None
        return video.save_latents(step.latents, path, settings)
    assert step.frames is not None
    return video.save_video(step.frames, path, fps=output.fps, crf=output.crf, metadata=settings if output.metadata else None)


def resume(path: Path, root: Path | None) -> Path:
    """Finish the video whose state is in `path`, which goes on being updated."""
    state = SavedState.read(path)
    check_writable(state.output)
    pipe = HunyuanVideo.load(state.recipe.weights(root, path), state.recipe.runtime_here(), state.recipe.sampling)
    return make_video(pipe, state.recipe.prompt, state.recipe.sampling, state.output, save_state=path, resume=(state.step, state.latents))


def replay(path: Path, root: Path | None, device: str | None, output: Output) -> tuple[Path, bool]:
    """Make the video of a file's metadata again; returns the new file and whether its frames are identical to the first ones."""
    recipe = Recipe.of(video.read_metadata(path), path)
    if "frames_sha256" not in recipe.settings:
        raise ValueError(f"{path} holds latents, not frames to compare with; `hunyuan-video decode` makes a video of it.")
    check_writable(output)
    pipe = HunyuanVideo.load(recipe.weights(root, path), recipe.runtime_here(device), recipe.sampling)
    *_, last = with_progress(pipe.steps(recipe.prompt, recipe.sampling), recipe.sampling.num_steps)
    return write(last, output), last.settings["frames_sha256"] == recipe.settings["frames_sha256"]


def decode(path: Path, root: Path | None, runtime: Runtime, output: Output) -> Path:
    """Make a video of finished latents. What is recorded is the runtime that decoded them."""
    latents, settings = video.load_latents(path)
    if "step" in settings:
        raise ValueError(f"{path} holds the state of an unfinished run; finish it with `hunyuan-video generate --resume {path}`.")
    if output.format == "latents":
        raise ValueError(f"{path} holds latents already; choose a video format.")
    if runtime.lora:
        raise ValueError(f"{path} holds latents that are made already; a LoRA acts while they are made: leave it out.")
    recipe = Recipe.of(settings, path)
    runtime = replace(runtime, lora=recipe.runtime.lora, attention=recipe.runtime.attention)  # for whoever replays the video
    check_writable(output)
    frames = HunyuanVideo.load(recipe.weights(root, path), runtime, recipe.sampling).decode(latents)
    digest = hashlib.sha256(frames.tobytes()).hexdigest()
    return write(Step("decode", 1, 1, settings | {"runtime": asdict(runtime), "frames_sha256": digest}, latents, frames), output)


def check_writable(output: Output) -> None:
    """Refuse a folder that cannot be written to, before any work."""
    files.check_writable(output.out / f"check{output.suffix}")


def _plain(output: Output) -> dict[str, Any]:
    return asdict(output) | {"out": str(output.out)}
