"""Faster ways to make a video beside the exact one: same prompts, same seeds, in turns, video by video.

Of each pair a `Row` is kept: what was computed, how long it took, how near the pixels are, whether it is a video at all, and how somebody
who knows what was asked for reads both. Same-seed pixels are not quality: another good video is as far away as a bad one.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from hunyuan_video import __version__, markdown
from hunyuan_video.config import FullSampling
from hunyuan_video.evaluation.clock import clock
from hunyuan_video.evaluation.computed import Computed, counting
from hunyuan_video.evaluation.metrics import BROKEN, Frames, psnr, soundness, ssim
from hunyuan_video.files import replacing
from hunyuan_video.pipeline import HunyuanVideo

Reading = dict[str, bool]  # by what was asked for (subject, motion …): whether it is seen


@dataclass(frozen=True)
class Case:
    """One video to make in each way."""

    prompt: str
    sampling: FullSampling
    read: Callable[[Frames], Reading] | None = None
    """what is seen of what the prompt asks for, where there is somebody to say so"""


@dataclass(frozen=True)
class Way:
    """A pipeline, and how many steps it is given instead of a case's."""

    pipe: HunyuanVideo
    num_steps: int | None = None

    def make(self, case: Case) -> Made:
        return make(self.pipe, case.prompt, replace(case.sampling, num_steps=self.num_steps or case.sampling.num_steps))


@dataclass(frozen=True)
class Row:
    """One video beside the exact one."""

    settings: str
    """as flags"""
    prompt: str
    seed: int
    of: str
    """what the exact video is made of, and how (see `what_of`): rows of other ones are not comparable"""
    passes: float
    exact_passes: float
    density: float
    operations: float
    exact_operations: float
    denoise_seconds: float
    exact_denoise_seconds: float
    seconds: float
    exact_seconds: float
    psnr: float | None
    """dB; None of identical clips"""
    ssim: float
    soundness: float
    reading: Reading | None
    exact_reading: Reading | None

    @property
    def broken(self) -> bool:
        return self.soundness < BROKEN

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What is measured once."""
        return self.settings, self.prompt, self.seed, self.of


@dataclass(frozen=True)
class Made:
    """A video, and what it took: seconds of work (on a CPU) or of the wall (on a GPU), of denoising and of all."""

    frames: Frames
    computed: Computed
    denoise_seconds: float
    seconds: float


def make(pipe: HunyuanVideo, prompt: str, sampling: FullSampling) -> Made:
    """One video, counted and timed."""
    moments = {"start": clock(pipe.device)}
    frames = None
    with counting(pipe.transformer) as computed:
        for step in pipe.steps(prompt, sampling):
            frames = step.frames
            moments[step.stage] = clock(pipe.device)
    assert frames is not None
    return Made(frames, computed, moments["denoise"] - moments["encode"], moments["decode"] - moments["start"])


def compare(exact: HunyuanVideo, others: Mapping[str, Way], cases: Sequence[Case], known: Sequence[Row] = ()) -> Iterator[Row]:
    """A row of each case with each of the others, by their settings, that is not known yet. The exact video is made in the same turn."""
    have, warm = {row.key for row in known}, False
    for case in cases:
        of = what_of(exact, case.sampling)
        missing = [name for name in others if (name, case.prompt, case.sampling.seed, of) not in have]
        if missing and not warm:  # what a process does once is nobody's time
            make(exact, case.prompt, replace(case.sampling, num_steps=min(2, case.sampling.num_steps)))
            warm = True
        if missing:
            right = make(exact, case.prompt, case.sampling)
            for name in missing:
                yield row_of(name, of, case, others[name].make(case), right)


def what_of(pipe: HunyuanVideo, sampling: FullSampling) -> str:
    """What rows have in common that can be compared: in words what is asked about most, and a digest of all settings but the seed."""
    device = torch.cuda.get_device_name(pipe.device) if pipe.device.type == "cuda" else pipe.device.type
    size = f"{sampling.num_frames}x{sampling.height}x{sampling.width}"
    dtype = str(pipe.dtype).removeprefix("torch.")
    settings = [asdict(pipe.runtime), asdict(sampling) | {"seed": None}, __version__]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return (
        f"{pipe.origin.model or 'weights'}, {size}, {sampling.num_steps} steps of {sampling.solver}, {dtype}, {device} (settings {digest})"
    )


def row_of(settings: str, of: str, case: Case, made: Made, exact: Made) -> Row:
    near = psnr(made.frames, exact.frames)
    return Row(
        settings=settings,
        prompt=case.prompt,
        seed=case.sampling.seed,
        of=of,
        passes=made.computed.passes,
        exact_passes=exact.computed.passes,
        density=made.computed.density,
        operations=made.computed.operations,
        exact_operations=exact.computed.operations,
        denoise_seconds=made.denoise_seconds,
        exact_denoise_seconds=exact.denoise_seconds,
        seconds=made.seconds,
        exact_seconds=exact.seconds,
        psnr=None if near == float("inf") else near,
        ssim=ssim(made.frames, exact.frames),
        soundness=soundness(made.frames, exact.frames),
        reading=None if case.read is None else case.read(made.frames),
        exact_reading=None if case.read is None else case.read(exact.frames),
    )


def write(path: Path, rows: Sequence[Row]) -> None:
    """All rows, a line of JSON each; whoever is ended meanwhile leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as (temporary, _):
        temporary.write_text("".join(f"{json.dumps(asdict(row), ensure_ascii=False)}\n" for row in rows), encoding="utf-8")


def read(path: Path) -> list[Row]:
    """Raises a ValueError for a file that holds something else."""
    if not path.exists():
        return []
    try:
        return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no rows of this version ({error}); move it away, or choose another folder.") from error


# --- The table ---


def tables(rows: Sequence[Row]) -> str:
    """One of each kind of rows that can be compared, under what they are of."""
    of_each = {of: [row for row in rows if row.of == of] for of in dict.fromkeys(row.of for row in rows)}
    return "\n\n".join(f"{of}:\n\n{table(mine)}" for of, mine in of_each.items())


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each of the settings, in the order in which they come first."""
    slots = [*dict.fromkeys(slot for row in rows for slot in row.reading or ())]
    heads = ["settings", "clips", "passes", "attention", "operations", "denoising", "whole video", "PSNR", "SSIM", *slots, "broken"]
    of_each = {settings: [row for row in rows if row.settings == settings] for settings in dict.fromkeys(row.settings for row in rows)}
    return markdown.table(heads, (_cells(settings, mine, slots) for settings, mine in of_each.items()))


def _cells(settings: str, rows: list[Row], slots: Sequence[str]) -> list[str]:
    saved = sum(row.exact_operations for row in rows) / sum(row.operations for row in rows)
    faster = statistics.median(row.exact_denoise_seconds / row.denoise_seconds for row in rows)
    whole = statistics.median(row.exact_seconds / row.seconds for row in rows)
    passes, of = (statistics.mean(each) for each in ([row.passes for row in rows], [row.exact_passes for row in rows]))
    density, broken = statistics.mean(row.density for row in rows), [row for row in rows if row.broken]
    cells = [f"`{settings}`", str(len(rows)), f"{passes:.1f} of {of:.0f}", f"{density:.0%}", f"{1 / saved:.0%}"]
    realised = f" ({faster / saved:.0%} of what is saved)" if saved > 1.01 else ""
    cells += [f"**{faster:.2f}×**{realised}", f"{whole:.2f}×"]
    cells += ["–", "–"] if broken else [_mean_psnr(rows), f"{statistics.mean(row.ssim for row in rows):.3f}"]
    return [*cells, *(_read_by(rows, slot) for slot in slots), f"**{len(broken)}**" if broken else "0"]


def _mean_psnr(rows: list[Row]) -> str:
    apart = [row.psnr for row in rows if row.psnr is not None]
    return f"{statistics.mean(apart):.1f} dB" if apart else "identical"


def _read_by(rows: list[Row], slot: str) -> str:
    """How many of those that asked for something in the slot show it, beside the exact ones. Nothing is seen in what is broken."""
    asked = [row for row in rows if row.reading is not None and row.exact_reading is not None and slot in row.reading]
    right = sum(bool(row.reading and row.reading[slot]) and not row.broken for row in asked)
    exact = sum(bool(row.exact_reading and row.exact_reading[slot]) for row in asked)
    return f"{right} ({exact}) of {len(asked)}" if asked else "–"
