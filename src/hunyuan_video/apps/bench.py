"""What speed costs: the presets, or other settings, beside the exact way to make a video."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from hunyuan_video.assembly import check
from hunyuan_video.config import PER_VIDEO, FullSampling, Runtime, Sampling, check_solver
from hunyuan_video.evaluation import quality
from hunyuan_video.miniature.judge import load_judge
from hunyuan_video.miniature.questions import answers, questions
from hunyuan_video.miniature.world import Scene
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.weights import Weights

log = logging.getLogger(__name__)

READ = ("subject", "colour", "motion")


def measure(
    found: Weights,
    exact: Runtime,
    others: Mapping[str, Runtime],
    sampling: Sampling,
    prompts: Sequence[str] | None,
    num_prompts: int,
    num_seeds: int,
    folder: Path,
    judge_folder: Path,
) -> Iterator[quality.Row]:
    """Rows of `others` that are not in `folder` yet, where each is kept as soon as it is there. Without prompts, those of the embedded
    world, and its judge, who is trained first if he is not in `judge_folder`."""
    path = folder / "rows.jsonl"
    rows = quality.read(path)
    pipe = HunyuanVideo.load(found, exact, sampling)
    complete = replace(sampling, seed=sampling.seed or 0).over(pipe.defaults)
    for runtime in others.values():
        check(runtime, pipe.world)
        check_solver(complete, runtime)
    cases = _asked(prompts, complete, num_seeds) if prompts else _of_the_world(num_prompts, complete, num_seeds, judge_folder)
    sharing = [name for name, runtime in others.items() if _shares_models(runtime, exact)]
    for names in (sharing, *([name] for name in others if name not in sharing)):  # one more model at a time
        pipes = {
            name: pipe.sharing(others[name]) if name in sharing else HunyuanVideo.load(found, others[name], sampling) for name in names
        }
        for row in quality.compare(pipe, pipes, cases, rows):
            rows.append(row)
            quality.write(path, rows)
            yield row
        del pipes  # before the next ones are loaded


def table(folder: Path) -> str:
    """Of all rows that are in a folder, also written beside them."""
    text = quality.tables(quality.read(folder / "rows.jsonl")) + "\n"
    (folder / "quality.md").write_text(text, encoding="utf-8")
    return text


def _asked(prompts: Sequence[str], sampling: FullSampling, num_seeds: int) -> list[quality.Case]:
    return [quality.Case(prompt, seeded) for prompt, seeded in product(prompts, _seeded(sampling, num_seeds))]


def _of_the_world(num_prompts: int, sampling: FullSampling, num_seeds: int, judge_folder: Path) -> list[quality.Case]:
    log.info(
        "%d prompts with %d seeds each, read by the judge of the embedded world, who is trained first if he is not in %s (minutes).",
        *(num_prompts, num_seeds, judge_folder),
    )
    judge, _ = load_judge(judge_folder)

    def reading(scene: Scene, frames: quality.Frames) -> quality.Reading:
        return {slot: right for slot, right in answers(scene, judge(frames)).items() if slot in READ}

    scenes = questions(num_prompts, "held_out")
    return [
        quality.Case(scene.caption, seeded, lambda frames, scene=scene: reading(scene, frames))
        for scene, seeded in product(scenes, _seeded(sampling, num_seeds))
    ]


def _seeded(sampling: FullSampling, num_seeds: int) -> list[FullSampling]:
    return [replace(sampling, seed=sampling.seed + number) for number in range(num_seeds)]


def _shares_models(runtime: Runtime, exact: Runtime) -> bool:
    return replace(runtime, speed=exact.speed, **{name: getattr(exact, name) for name in PER_VIDEO}) == exact
