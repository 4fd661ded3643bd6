"""How well a model follows its prompts in the rendered world, judged on the pixels a viewer would see.

The word of the judge (see `judge`) is the score of a generator, in three groups of prompts: combinations that were seen in training;
combinations that never were (of a subject alone), in sentences built as no training caption is; and, in such sentences, pairs of
subjects that were never shown in this order. It saturates near 100 %: read it with the contact sheet.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hunyuan_video import markdown
from hunyuan_video.evaluation.metrics import psnr
from hunyuan_video.miniature import beginnings, drawing, goals, world
from hunyuan_video.miniature.judge import (
    EXAM_SEED,
    EXAM_SLOTS,
    NUM_LOOKS,
    Frames,
    Judge,
    Score,
    Words,
    load_judge,
    wilson,
    words_of,
)
from hunyuan_video.miniature.questions import Group, answers, questions

logger = logging.getLogger(__name__)

Generate = Callable[[str, int], Frames]  # prompt, seed -> frames
Reconstruct = Callable[[Frames], Frames]  # through the VAE and back

SHOWN_HEIGHT = 128  # pixels a frame of the contact sheet has at least
SHEET_PROMPTS = (
    "A cat walks on the grass, realistic style.",
    "A big red car drives to the left in the desert.",
    "A rocket flies up at night.",
    "A dog and a penguin walk to the right in the snow.",
    "A blue balloon rises over the city, cartoon style.",
    "An elephant in the mountains, the camera zooms in.",
    "A butterfly flies right in the forest.",
    "A small turtle walks on the sand dunes, a cartoon.",
    "A steam train drives before tall buildings.",
    "A sailboat drifts to the left at sunset.",
    "An octopus in space, the camera pans right.",
    "A robot and a yellow star stand still at night.",
    "A helicopter goes up over the ocean, cartoon style.",
    "A mushroom grows in a grassy field.",
    "A purple umbrella falls down in the park.",
    "A teddy bear and a frog in the woods, the camera zooms out.",
)


@dataclass(frozen=True)
class Mistake:
    prompt: str
    seed: int
    asked: Words
    seen: Words


@dataclass(frozen=True)
class Report:
    """What the judge saw in the clips of one group: for each slot, how many of those that asked for something in it were right."""

    group: Group
    scores: dict[str, Score]
    everything: Score  # subjects, motion and background of one clip
    mistakes: tuple[Mistake, ...]


def evaluate(generate: Generate, judge: Judge, num_clips: int, group: Group, seed: int = 0) -> Report:
    """Ask for `num_clips` videos, let the judge say what is in them, and count the right answers."""
    outcomes: dict[str, list[bool]] = {"subject": [], "motion": [], "background": [], "size": [], "colour": [], "style": []}
    everything: list[bool] = []
    mistakes: list[Mistake] = []
    for scene in questions(num_clips, group, seed):
        asked, seen = words_of(scene), judge(generate(scene.caption, scene.seed))
        right = answers(scene, seen)
        for slot, of_slot in outcomes.items():
            if slot in right:
                of_slot.append(right[slot])
        everything.append(right["subject"] and right["motion"] and right["background"])
        if not everything[-1]:
            mistakes.append(Mistake(scene.caption, scene.seed, asked, seen))
            logger.info("%s: %r, but the judge sees %s", group, scene.caption, {k: seen[k] for k in EXAM_SLOTS if asked[k] != seen[k]})
    scores = {slot: Score(sum(of_slot), len(of_slot)) for slot, of_slot in outcomes.items() if of_slot}
    return Report(group, scores, Score(sum(everything), num_clips), tuple(mistakes))


def vae_psnr(reconstruct: Reconstruct, num_clips: int, num_frames: int, height: int, width: int) -> tuple[float, float]:
    """Mean per-clip PSNR in dB of rendered clips of held-out combinations, through the VAE and back, and half its 95 % interval."""
    clips = (drawing.render(world.sample_scene(EXAM_SEED + i, "held_out"), height, width, num_frames) for i in range(num_clips))
    values = [psnr(clip, reconstruct(clip)) for clip in clips]
    return float(np.mean(values)), 1.96 * float(np.std(values)) / math.sqrt(num_clips)


# --- What people look at -------------------------------------------------------------------------------------------------------


def contact_sheet(rows: Sequence[tuple[str, Frames]], path: Path) -> None:
    """Write a PNG with five frames of each video side by side under its prompt, small ones enlarged."""
    if not rows:
        raise ValueError("There is no video to show; give at least one (prompt, frames).")
    _, height, width, _ = rows[0][1].shape
    scale, num_columns = max(1, SHOWN_HEIGHT // height), 2
    strip, margin, gap = 22, 10, 2  # pixels: the prompt's line, around each video, between frames
    cell_width = NUM_LOOKS * (width * scale + gap) - gap + 2 * margin
    cell_height = strip + height * scale + margin
    num_rows = math.ceil(len(rows) / num_columns)
    sheet = Image.new("RGB", (cell_width * min(num_columns, len(rows)), cell_height * num_rows + margin), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for i, (prompt, frames) in enumerate(rows):
        left, top = i % num_columns * cell_width + margin, i // num_columns * cell_height + 4
        draw.text((left, top), prompt, fill=(40, 40, 40), font=font)
        for j, index in enumerate(np.linspace(0, len(frames) - 1, NUM_LOOKS).round().astype(int)):
            picture = Image.fromarray(frames[index]).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
            sheet.paste(picture, (left + j * (width * scale + gap), top + strip - 4))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def markdown_table(reports: Sequence[Report], psnr_db: tuple[float, float], judge_score: Score) -> str:
    """The result as a table, with 95 % intervals, and the sentence that says how far to trust it."""
    names = {
        "train": "combinations seen in training",
        "held_out": "combinations and sentences never seen",
        "pair": "two subjects never seen in this order",
    }
    columns = ("subject", "motion", "background", "size", "colour", "style")
    rows = []
    for report in reports:
        cells = [_cell(report.scores[column]) if column in report.scores else "" for column in columns] + [_cell(report.everything)]
        rows.append([names[report.group], report.everything.total, *cells])
    lines = [markdown.table(["prompts", "clips", *columns, "subjects, motion and background"], rows)]
    lines += ["", f"Percent right by the judge, with 95 % Wilson intervals. The judge itself: {judge_score} on unseen rendered clips."]
    mean, half_width = psnr_db
    lines += ["", f"VAE reconstruction of rendered clips of held-out combinations: {mean:.2f} ± {half_width:.2f} dB PSNR per clip."]
    return "\n".join(lines) + "\n"


def _cell(score: Score) -> str:
    low, high = wilson(score.right, score.total)
    return f"{100 * score.rate:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main(
    generate: Generate,
    reconstruct: Reconstruct,
    size: tuple[int, int, int],
    folder: Path,
    num_clips: int = 128,
    seed: int = 0,
    begin: beginnings.Begin | None = None,
    footage: Mapping[str, Frames] = MappingProxyType({}),
    before: goals.Result | None = None,
) -> str:
    """Judge a generator and write `evaluation.md`, `evaluation.json` and `contact_sheet.png` into `folder`; returns the tables.

    `num_clips` is per group, and per kind of beginning if there is a `begin`; `reconstruct` is the VAE's encode and decode, tested on
    clips of `size` (frames, height, width) and on those of `footage`, by name; `before` are the numbers of weights that these must not fall
    behind. The judge is kept in `folder` and trained there first if it is missing. Raises ValueError if the judge fails its own exam, or
    for no clips.
    """
    if num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}; it must be at least 1.")
    judge, judge_score = load_judge(folder)
    contact_sheet([(prompt, generate(prompt, seed)) for prompt in SHEET_PROMPTS], folder / "contact_sheet.png")
    groups: tuple[Group, ...] = ("train", "held_out", "pair")
    reports = [evaluate(generate, judge, num_clips, group, seed) for group in groups]
    psnr_db = vae_psnr(reconstruct, min(num_clips, 64), *size)
    begun = [] if begin is None else [beginnings.evaluate(begin, judge, kind, num_clips, size, seed) for kind in beginnings.KINDS]
    result = {"judge": asdict(judge_score), "psnr_db": psnr_db, "reports": [asdict(report) for report in reports]}
    result["beginnings"] = [asdict(each) for each in begun]
    result["footage_db"] = {name: psnr(clip, reconstruct(clip)) for name, clip in footage.items()}
    tables = [markdown_table(reports, psnr_db, judge_score), *([beginnings.markdown_table(begun)] if begun else [])]
    table = "\n".join([*tables, goals.markdown_table(goals.of(result, before))])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.md").write_text(table, encoding="utf-8")
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return table
