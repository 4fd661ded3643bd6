"""What speed costs: the presets, or other settings, beside the exact way to make a video."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from hunyuan_video.assembly import check
from hunyuan_video.config import PER_VIDEO, FullSampling, Runtime, Sampling, check_solver, require
from hunyuan_video.evaluation import quality
from hunyuan_video.miniature.judge import load_judge
from hunyuan_video.miniature.questions import answers, questions
from hunyuan_video.miniature.world import Scene
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.weights import Weights

log = logging.getLogger(__name__)

READ = ("subject", "colour", "motion")


@dataclass(frozen=True)
class Asks:
    """What videos are made of."""

    prompts: Sequence[str] | None
    """None: those of the embedded model's world, whose judge reads them"""
    num_prompts: int
    """of the embedded world"""
    num_seeds: int
    judge: Path
    """folder of the judge; he is trained first if he is not there"""

    def cases(self, sampling: FullSampling) -> list[quality.Case]:
        seeded = [replace(sampling, seed=sampling.seed + number) for number in range(self.num_seeds)]
        if self.prompts is not None:
            return [quality.Case(*each) for each in product(self.prompts, seeded)]
        log.info(
            "%d prompts with %d seeds each, read by the judge of the embedded world, who is trained first if he is not in %s (minutes).",
            *(self.num_prompts, self.num_seeds, self.judge),
        )
        judge, _ = load_judge(self.judge)

        def reading(scene: Scene, frames: quality.Frames) -> quality.Reading:
            return {slot: right for slot, right in answers(scene, judge(frames)).items() if slot in READ}

        return [
            quality.Case(scene.caption, each, lambda frames, scene=scene: reading(scene, frames))
            for scene, each in product(questions(self.num_prompts, "held_out"), seeded)
        ]


def measure(
    found: Weights,
    exact: Runtime,
    others: Mapping[str, Runtime],
    fewer_steps: Sequence[int],
    sampling: Sampling,
    asks: Asks,
    folder: Path,
) -> Iterator[quality.Row]:
    """Rows of `others`, and of the exact way in fewer steps, that are not in `folder` yet, where each is kept as soon as it is there."""
    path = folder / "rows.jsonl"
    rows = quality.read(path)
    pipe = HunyuanVideo.load(found, exact, sampling)
    complete = replace(sampling, seed=sampling.seed or 0).over(pipe.defaults)
    for runtime in others.values():
        check(runtime, pipe.world)
        check_solver(complete, runtime)
    for number in fewer_steps:
        require(0 < number < complete.num_steps, f"fewer_steps is {number}; it must be 1 to {complete.num_steps - 1} here.")
    cases = asks.cases(complete)
    for ways in _ways(found, pipe, others, fewer_steps, sampling):
        for row in quality.compare(pipe, ways, cases, rows):
            rows.append(row)
            quality.write(path, rows)
            yield row
        del ways  # before the next ones are loaded


def _ways(
    found: Weights, pipe: HunyuanVideo, others: Mapping[str, Runtime], fewer_steps: Sequence[int], sampling: Sampling
) -> Iterator[dict[str, quality.Way]]:
    """All that share the exact way's models, and then those that need their own, one at a time."""
    sharing = [name for name, runtime in others.items() if _shares_models(runtime, pipe.runtime)]
    fewer = {f"--num-steps {number}": quality.Way(pipe, number) for number in fewer_steps}
    yield fewer | {name: quality.Way(pipe.sharing(others[name])) for name in sharing}
    for name, runtime in others.items():
        if name not in sharing:
            yield {name: quality.Way(HunyuanVideo.load(found, runtime, sampling))}


def table(folder: Path) -> str:
    """Of all rows that are in a folder, also written beside them."""
    text = quality.tables(quality.read(folder / "rows.jsonl")) + "\n"
    (folder / "quality.md").write_text(text, encoding="utf-8")
    return text


def _shares_models(runtime: Runtime, exact: Runtime) -> bool:
    return replace(runtime, speed=exact.speed, **{name: getattr(exact, name) for name in PER_VIDEO}) == exact
