"""The command that says what speed costs, `bench`. It imports no torch before all is checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hunyuan_video.commands.common import Computes, Flat, Loads, Which
from hunyuan_video.commands.flags import flags_of
from hunyuan_video.config import SPEEDS, LoadKey, Runtime, Sampling, require
from hunyuan_video.files import read_prompts


@dataclass(frozen=True)
class Bench(Computes):
    """Say what each preset of --speed, or the settings that are given, saves and costs beside exact videos of the same seeds."""

    what: tyro.conf.Positional[Literal["quality"]]
    """quality: computed, time, PSNR, SSIM and, of the embedded model, what the judge of its world reads (docs/faster.md)"""
    out: Path = Path("results/quality")
    """folder for rows.jsonl, from which an interrupted run goes on, and the table"""
    prompts_file: Path | None = None
    """a text file with one prompt a line; what is seen of them nobody reads then (default: prompts of the embedded model's world)"""
    num_prompts: int = 10
    """of the embedded world"""
    num_seeds: int = 3
    """of each prompt, counting up from --seed (default: from 0)"""
    judge: Path = Path("results/evaluation")
    """folder of the judge that `evaluate embedded` keeps; trained first if it is missing"""
    sampling: Annotated[Sampling, Flat] = field(default_factory=Sampling)
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime.open)
    which: Loads = field(default_factory=Which)
    load_key: LoadKey = "module"
    """as for `generate`"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_prompts >= 1, f"num_prompts is {self.num_prompts}; it must be 1 or more.")
        require(self.num_seeds >= 1, f"num_seeds is {self.num_seeds}; it must be 1 or more.")

    def run(self) -> None:
        exact, others = self.compared()
        prompts = None if self.prompts_file is None else read_prompts(self.prompts_file)
        found = self.which.find(self.load_key)
        require(
            found.is_embedded or prompts is not None,
            "The prompts of the embedded model's world, and its judge, mean nothing to these weights; give --prompts-file.",
        )

        from hunyuan_video.apps import bench

        sizes = (self.num_prompts, self.num_seeds)
        for row in bench.measure(found, exact, others, self.sampling, prompts, *sizes, self.out, self.judge):
            near = "identical" if row.psnr is None else f"{row.psnr:.1f} dB"
            print(f"{row.settings}: {row.prompt!r}, seed {row.seed}: {near}, SSIM {row.ssim:.3f}", flush=True)
        print(bench.table(self.out))

    def compared(self) -> tuple[Runtime, dict[str, Runtime]]:
        """The exact runtime, and those beside it by the flags that say them: the one given, if it is not exact, or else each preset.

        Raises:
            ValueError: all are exact.
        """
        exact = self.runtime.exact()
        if self.runtime != exact:
            return exact, {" ".join(_beyond(self.runtime, exact)): self.runtime}
        presets = [exact.at_speed(speed) for speed in SPEEDS]
        others = {f"--speed {runtime.speed}": runtime for runtime in presets if replace(runtime, speed="exact") != exact}
        require(bool(others), "Every preset is exact here; give a setting that is not, such as --pipefusion-patches 4.")
        return exact, others


def _beyond(runtime: Runtime, exact: Runtime) -> list[str]:
    """Flags of what is not exact, where those that a preset implies go without saying."""
    speed = [] if runtime.speed == "exact" else ["--speed", runtime.speed]
    return speed + flags_of(runtime, exact.at_speed(runtime.speed))
