"""Makes videos with a progress bar: the loop behind `hunyuan-video generate`, `replay`, `decode` and `sample_video.py`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hunyuan_video import files, video, weights
from hunyuan_video.config import Output, Runtime, Sampling
from hunyuan_video.pipeline import HunyuanVideo, Step

log = logging.getLogger(__name__)


def make_video(
    pipe: HunyuanVideo,
    prompt: str,
    sampling: Sampling,
    output: Output,
    *,
    save_state: Path | None = None,
    resume: tuple[int, Any] | None = None,
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
    except KeyboardInterrupt:
        _say_what_was_kept(last, save_state)
        raise
    assert last is not None
    return write(last, output)


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


@dataclass(frozen=True)
class SavedState:
    """An interrupted video: what was asked for, and the latents after `step` steps."""

    settings: dict[str, Any]
    sampling: Sampling
    runtime: Runtime
    output: Output
    step: int
    latents: Any

    @classmethod
    def read(cls, path: Path) -> SavedState:
        """What `save_state` wrote.

        Raises:
            ValueError: the file is something else, or damaged.
        """
        latents, metadata = video.load_latents(path)
        if "step" not in metadata:
            raise ValueError(f"{path} holds no state of an interrupted run; finished latents are for `hunyuan-video decode`.")
        settings, output = metadata["settings"], metadata["output"]
        return cls(
            settings,
            Sampling(**settings["sampling"]),
            Runtime(**settings["runtime"]),
            Output(**(output | {"out": Path(output["out"])})),
            metadata["step"],
            latents,
        )


def resume(path: Path, root: Path | None) -> Path:
    """Finish the video whose state is in `path`, which goes on being updated."""
    state = SavedState.read(path)
    pipe = HunyuanVideo.load(same_weights(state.settings, root, path), state.runtime)
    return make_video(pipe, state.settings["prompt"], state.sampling, state.output, save_state=path, resume=(state.step, state.latents))


def same_weights(settings: dict[str, Any], root: Path | None, path: Path) -> weights.Weights:
    """The weights that made `path`; raises a ValueError if those at `root` are others."""
    found = weights.find_or_embedded(root)
    fingerprint = found.fingerprint()
    if settings["model"] != fingerprint:
        raise ValueError(
            f"{path} was made with other weights (model {settings['model']}) than those in {found.root} (model {fingerprint}); "
            "give theirs with --weights."
        )
    return found


def replay(path: Path, root: Path | None, output: Output) -> tuple[Path, bool]:
    """Make the video of a file's metadata again; returns the new file and whether its frames are identical to the first ones."""
    settings = video.read_metadata(path)
    pipe = HunyuanVideo.load(same_weights(settings, root, path), Runtime(**settings["runtime"]))
    sampling = Sampling(**settings["sampling"])
    *_, last = with_progress(pipe.steps(settings["prompt"], sampling), sampling.num_steps)
    return write(last, output), last.settings["frames_sha256"] == settings.get("frames_sha256")


def decode(path: Path, root: Path | None, runtime: Runtime, output: Output) -> Path:
    """Make a video of saved latents."""
    latents, settings = video.load_latents(path)
    settings = settings.get("settings", settings)
    if output.format == "latents":
        raise ValueError(f"{path} holds latents already; choose a video format.")
    frames = HunyuanVideo.load(same_weights(settings, root, path), runtime).decode(latents)
    return write(Step("decode", 1, 1, settings, latents, frames), output)


def _plain(output: Output) -> dict[str, Any]:
    return asdict(output) | {"out": str(output.out)}


def _say_what_was_kept(last: Step | None, save_state: Path | None) -> None:
    done = f"after step {last.step} of {last.total}" if last is not None and last.stage == "denoise" else "before the first step was done"
    if save_state is not None and last is not None and last.stage == "denoise":
        log.warning("Stopped %s. Kept: %s; continue with `hunyuan-video generate --resume %s`.", done, save_state, save_state)
    else:
        log.warning("Stopped %s. Nothing of this video was kept (--save-state FILE keeps the state).", done)
