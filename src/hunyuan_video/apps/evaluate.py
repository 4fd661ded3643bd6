"""How well a model follows its prompts in the rendered world, judged on the pixels a viewer would see.

A small classifier, the judge, looks at five frames of a video and says all that a caption can say: subject, second subject, motion,
background, size, colour, style. It learns from rendered clips alone, never from generated ones, and first has to prove itself on clips
it has not seen. Its word is then the score of a generator, in three groups of prompts: combinations that were seen in training;
combinations that never were (of a subject alone), in sentences built as no training caption is; and, in such sentences, pairs of
subjects that were never shown in this order. It saturates near 100 %: read it with the contact sheet.

Letters: B clips, K = 5 frames the judge looks at, T frames, H height, W width.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hunyuan_video.training import drawing, world
from hunyuan_video.training.world import SLOTS, Scene

logger = logging.getLogger(__name__)

Frames = UInt8[np.ndarray, "T H W 3"]
Words = dict[str, str | None]  # a word for each slot of a scene
Generate = Callable[[str, int], Frames]  # prompt, seed -> frames
Reconstruct = Callable[[Frames], Frames]  # through the VAE and back
Judge = Callable[[Frames], Words]
Group = Literal["train", "held_out", "pair"]
T = TypeVar("T")

NUM_LOOKS = 5
# Far apart, and above 2**31, below which all training draws its seeds: nothing is judged with a scene that something was trained on.
JUDGE_SEED, EXAM_SEED, EVALUATION_SEED = 2**40, 2**41, 2**42
EXAM_CLIPS = 600
EXAM_SLOTS = ("subject", "second", "motion", "background")
PASS_MARK = 0.99  # of both subjects, motion and background together
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


def words_of(scene: Scene) -> Words:
    """What can be seen: a subject that nobody recoloured has its own colour, if that has a name."""
    own = world.COLOURABLE.get(scene.subject) if scene.second is None else None
    return {slot: getattr(scene, slot) for slot in SLOTS} | {"colour": scene.colour or own}


# --- The judge -----------------------------------------------------------------------------------------------------------------


class JudgeNet(nn.Module):
    """2-D convolutions on each frame, then convolutions across all five at once, then one answer for every slot."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.frame = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.video = nn.Sequential(
            nn.Conv2d(2 * width * NUM_LOOKS, 4 * width, 3, padding=1),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.Conv2d(4 * width, 4 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
        )
        self.answer = nn.Linear(4 * width * 16, sum(map(len, SLOTS.values())))

    def forward(self, looks: Float[Tensor, "B K 3 64 64"]) -> tuple[Float[Tensor, "B _"], ...]:
        """Logits for every slot."""
        x = self.frame(rearrange(looks, "B K C H W -> (B K) C H W"))
        x = self.video(rearrange(x, "(B K) C H W -> B (K C) H W", K=NUM_LOOKS))
        return self.answer(x.flatten(1)).split([len(values) for values in SLOTS.values()], dim=1)


def look(frames: Frames) -> Float[Tensor, "K 3 64 64"]:
    """What the judge sees of a video: five frames spread evenly over it, 64 × 64, in [-1, 1]."""
    if len(frames) < NUM_LOOKS:
        raise ValueError(f"The video has {len(frames)} frames; the judge needs at least {NUM_LOOKS} to see a motion.")
    chosen = frames[np.linspace(0, len(frames) - 1, NUM_LOOKS).round().astype(int)]
    looks = rearrange(torch.from_numpy(np.ascontiguousarray(chosen)), "K H W C -> K C H W").float() / 127.5 - 1.0
    return looks if looks.shape[-2:] == (drawing.SIDE, drawing.SIDE) else F.interpolate(looks, (drawing.SIDE, drawing.SIDE), mode="area")


def train_judge(seed: int = 0, num_steps: int = 3000, batch_size: int = 32) -> JudgeNet:
    """Train a judge on rendered training clips, the same for the same seed; about twelve minutes of one CPU core."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = JudgeNet()
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 30) * (1.0 - step / num_steps))
        for step in range(num_steps):
            first = JUDGE_SEED + (seed * num_steps + step) * batch_size
            scenes = [world.sample_scene(first + i, "train") for i in range(batch_size)]
            # Five frames rendered are frames 0, 4, 8, 12, 16 of seventeen: a clip moves the same way however many frames show it.
            looks = torch.stack([look(drawing.render(scene, num_frames=NUM_LOOKS)) for scene in scenes])
            # Generated clips are softer and noisier than rendered ones; a judge that only knew crisp pixels would judge sharpness.
            if step % 2:
                looks = F.interpolate(F.avg_pool2d(looks.flatten(0, 1), 2), scale_factor=2, mode="bilinear").view_as(looks)
            looks = looks + torch.randn_like(looks) * 0.15 * torch.rand(batch_size, 1, 1, 1, 1)
            loss = torch.stack([F.cross_entropy(logits, labels) for logits, labels in zip(net(looks), _labels(scenes), strict=True)]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 100 == 0:
                logger.info("judge: step %d of %d, loss %.3f", step, num_steps, loss.item())
    return net.eval()


def _labels(scenes: Sequence[Scene]) -> list[Tensor]:
    return [torch.tensor([values.index(words_of(scene)[slot]) for scene in scenes]) for slot, values in SLOTS.items()]


def as_judge(net: JudgeNet) -> Judge:
    """The classifier as a function of frames."""

    @torch.no_grad()
    def judge(frames: Frames) -> Words:
        return {slot: values[int(logits.argmax())] for (slot, values), logits in zip(SLOTS.items(), net(look(frames)[None]), strict=True)}

    return judge


def examine(judge: Judge, num_clips: int = EXAM_CLIPS) -> Score:
    """How often a judge names subjects, motion and background of rendered clips it has never seen, half of them of held-out words."""
    scenes = [world.sample_scene(EXAM_SEED + i, "held_out" if i % 2 else "train") for i in range(num_clips)]
    seen = [judge(drawing.render(scene)) for scene in scenes]
    right = sum(all(words[slot] == getattr(scene, slot) for slot in EXAM_SLOTS) for words, scene in zip(seen, scenes, strict=True))
    return Score(right, num_clips)


def load_judge(folder: Path, seed: int = 0) -> tuple[Judge, Score]:
    """The judge kept in `folder`, trained first if there is none, and its score in the exam.

    The exam is sat again at every load: a judge kept from before the world changed fails it here rather than misjudging in silence.
    """
    path = folder / f"judge_{seed}.safetensors"
    if path.exists():
        net = JudgeNet()
        net.load_state_dict(load_file(path))
        net.eval()
    else:
        net = train_judge(seed)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(net.state_dict(), path)
    judge = as_judge(net)
    score = examine(judge)
    logger.info("judge: all right on %s unseen rendered clips", score)
    if score.rate < PASS_MARK:
        raise ValueError(f"The judge at {path} is right on only {score} rendered clips; delete the file to train it again.")
    return judge, score


# --- The score -----------------------------------------------------------------------------------------------------------------


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (E. B. Wilson, 1927); it stays sensible at 0 and at 100 %."""
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"{right} of {total} is no proportion; give 0 <= right <= total and a total of at least 1.")
    z = 1.959964
    rate, z2 = right / total, z * z / total
    centre = (rate + z2 / 2) / (1 + z2)
    reach = z / (1 + z2) * math.sqrt(rate * (1 - rate) / total + z2 / total / 4)
    return max(0.0, centre - reach), min(1.0, centre + reach)


@dataclass(frozen=True)
class Score:
    """So many right of so many."""

    right: int
    total: int

    @property
    def rate(self) -> float:
        return self.right / self.total

    def __str__(self) -> str:
        low, high = wilson(self.right, self.total)
        return f"{self.right}/{self.total} = {self.rate:.1%} ({low:.1%} to {high:.1%})"


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


def questions(num_clips: int, group: Group, seed: int = 0) -> Iterator[Scene]:
    """The scenes to ask for; each combination (or pair) comes once before any comes twice."""
    rng = np.random.default_rng([EVALUATION_SEED, seed, ("train", "held_out", "pair").index(group)])
    if group == "pair":
        for i, (subject, second) in zip(range(num_clips), _shuffled(world.pairs("held_out"), rng), strict=False):
            motion, background = (values[rng.integers(len(values))] for values in (world.MOTIONS, world.BACKGROUNDS))
            yield world.compose(subject, motion, background, seed + i, rng, second=second, unseen=True)
    else:
        for i, words in zip(range(num_clips), _shuffled(world.combinations(group), rng), strict=False):
            yield world.compose(*words, seed + i, rng, unseen=group == "held_out")


def _shuffled(possible: Sequence[T], rng: np.random.Generator) -> Iterator[T]:
    """All of them in random order, again and again."""
    while True:
        for index in rng.permutation(len(possible)):
            yield possible[index]


def evaluate(generate: Generate, judge: Judge, num_clips: int, group: Group, seed: int = 0) -> Report:
    """Ask for `num_clips` videos, let the judge say what is in them, and count the right answers."""
    outcomes: dict[str, list[bool]] = {"subject": [], "motion": [], "background": [], "size": [], "colour": [], "style": []}
    everything: list[bool] = []
    mistakes: list[Mistake] = []
    for scene in questions(num_clips, group, seed):
        asked, seen = words_of(scene), judge(generate(scene.caption, scene.seed))
        right = {slot: asked[slot] == seen[slot] for slot in SLOTS}
        right["subject"] = right["subject"] and right["second"]
        for slot, of_slot in outcomes.items():
            if slot not in ("size", "colour") or getattr(scene, slot) not in ("normal", None):
                of_slot.append(right[slot])
        everything.append(right["subject"] and right["motion"] and right["background"])
        if not everything[-1]:
            mistakes.append(Mistake(scene.caption, scene.seed, asked, seen))
            logger.info("%s: %r, but the judge sees %s", group, scene.caption, {k: seen[k] for k in EXAM_SLOTS if not right[k]})
    scores = {slot: Score(sum(of_slot), len(of_slot)) for slot, of_slot in outcomes.items() if of_slot}
    return Report(group, scores, Score(sum(everything), num_clips), tuple(mistakes))


def psnr(frames: Frames, other: UInt8[np.ndarray, "_ _ _ 3"]) -> float:
    """Peak signal-to-noise ratio in dB over a whole clip; infinite for equal clips."""
    if frames.shape != other.shape:
        raise ValueError(f"The clips have shapes {frames.shape} and {other.shape}; PSNR compares clips of one shape.")
    error = np.mean((frames.astype(np.float64) - other) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


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
    lines = [f"| prompts | clips | {' | '.join(columns)} | subjects, motion and background |", "|---" * 9 + "|"]
    for report in reports:
        cells = [_cell(report.scores[column]) if column in report.scores else "" for column in columns] + [_cell(report.everything)]
        lines.append(f"| {names[report.group]} | {report.everything.total} | {' | '.join(cells)} |")
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
) -> str:
    """Judge a generator and write `evaluation.md`, `evaluation.json` and `contact_sheet.png` into `folder`; returns the table.

    `num_clips` is per group. `reconstruct` is the VAE's encode and decode, tested on clips of `size` (frames, height, width). The judge is
    kept in `folder` and trained there first if it is missing. Raises ValueError if the judge fails its own exam, or for no clips.
    """
    if num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}; it must be at least 1.")
    judge, judge_score = load_judge(folder)
    contact_sheet([(prompt, generate(prompt, seed)) for prompt in SHEET_PROMPTS], folder / "contact_sheet.png")
    groups: tuple[Group, ...] = ("train", "held_out", "pair")
    reports = [evaluate(generate, judge, num_clips, group, seed) for group in groups]
    psnr_db = vae_psnr(reconstruct, min(num_clips, 64), *size)
    table = markdown_table(reports, psnr_db, judge_score)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.md").write_text(table)
    result = {"judge": asdict(judge_score), "psnr_db": psnr_db, "reports": [asdict(report) for report in reports]}
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    return table
