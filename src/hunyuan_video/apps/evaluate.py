"""How well a model follows its prompts in the rendered world, judged on the pixels a viewer would see.

A small classifier, the judge, looks at five frames of a video and names subject, motion and background. It learns from rendered clips
alone, never from generated ones, and first has to prove itself on clips it has not seen. Its word is then the score of a generator, on
combinations that were seen in training and on combinations that never were. It saturates near 100 %: read it with the contact sheet.

Letters: B clips, K = 5 frames the judge looks at, T frames, H height, W width.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hunyuan_video.training import world

logger = logging.getLogger(__name__)

Frames = UInt8[np.ndarray, "T H W 3"]
Words = tuple[str, str, str]  # subject, motion, background
Generate = Callable[[str, int], Frames]  # prompt, seed -> frames
Reconstruct = Callable[[Frames], Frames]  # through the VAE and back
Judge = Callable[[Frames], Words]

NUM_LOOKS = 5
# Far apart, and above 2**31, below which all training draws its seeds: nothing is judged with a scene that something was trained on.
JUDGE_SEED, EXAM_SEED, EVALUATION_SEED = 2**40, 2**41, 2**42
EXAM_CLIPS = 420
PASS_MARK = 0.995
SHEET_PROMPTS = (
    "A cat walks on the grass, realistic style.",
    "A red car drives to the left in the desert.",
    "A rocket flies up at night.",
    "A balloon rises over the ocean.",
    "The robot stands still in the desert.",
    "A flower grows in a grassy field.",
    "A heart gets smaller in the snow.",
    "A ball falls down in the park.",
    "A dog runs to the right in the snow.",
    "In the moonlight, a blue bird flies left.",
    # The last two are combinations never seen in training.
    "A fish swims to the right in a grassy field.",
    "A sailboat drifts to the left over the snow.",
)


# --- The judge -----------------------------------------------------------------------------------------------------------------


class JudgeNet(nn.Module):
    """2-D convolutions on each frame, then convolutions across all five at once, then one answer of three words."""

    def __init__(self, width: int = 24) -> None:
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
        self.answer = nn.Linear(4 * width * 16, len(world.SUBJECTS) + len(world.MOTIONS) + len(world.BACKGROUNDS))

    def forward(self, looks: Float[Tensor, "B K 3 64 64"]) -> tuple[Float[Tensor, "B _"], Float[Tensor, "B _"], Float[Tensor, "B _"]]:
        """Logits of subject, motion and background."""
        x = self.frame(rearrange(looks, "B K C H W -> (B K) C H W"))
        x = self.video(rearrange(x, "(B K) C H W -> B (K C) H W", K=NUM_LOOKS))
        sizes = [len(world.SUBJECTS), len(world.MOTIONS), len(world.BACKGROUNDS)]
        subject, motion, background = self.answer(x.flatten(1)).split(sizes, dim=1)
        return subject, motion, background


def look(frames: Frames) -> Float[Tensor, "K 3 64 64"]:
    """What the judge sees of a video: five frames spread evenly over it, 64 × 64, in [-1, 1]."""
    if len(frames) < NUM_LOOKS:
        raise ValueError(f"The video has {len(frames)} frames; the judge needs at least {NUM_LOOKS} to see a motion.")
    chosen = frames[np.linspace(0, len(frames) - 1, NUM_LOOKS).round().astype(int)]
    looks = rearrange(torch.from_numpy(np.ascontiguousarray(chosen)), "K H W C -> K C H W").float() / 127.5 - 1.0
    return looks if looks.shape[-2:] == (world.SIDE, world.SIDE) else F.interpolate(looks, (world.SIDE, world.SIDE), mode="area")


def train_judge(seed: int = 0, num_steps: int = 320, batch_size: int = 32) -> JudgeNet:
    """Train a judge on rendered training clips, the same for the same seed; about a minute of one CPU core."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = JudgeNet()
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 30) * (1.0 - step / num_steps))
        for step in range(num_steps):
            first = JUDGE_SEED + (seed * num_steps + step) * batch_size
            scenes = [world.sample_scene(first + i, "train") for i in range(batch_size)]
            # Five frames rendered are frames 0, 4, 8, 12, 16 of seventeen: a clip moves the same way however many frames show it.
            looks = torch.stack([look(world.render(scene, num_frames=NUM_LOOKS)) for scene in scenes])
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


def _labels(scenes: Sequence[world.Scene]) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.tensor([world.SUBJECTS.index(scene.subject) for scene in scenes]),
        torch.tensor([world.MOTIONS.index(scene.motion) for scene in scenes]),
        torch.tensor([world.BACKGROUNDS.index(scene.background) for scene in scenes]),
    )


def as_judge(net: JudgeNet) -> Judge:
    """The classifier as a function of frames."""

    @torch.no_grad()
    def judge(frames: Frames) -> Words:
        subject, motion, background = (int(logits.argmax()) for logits in net(look(frames)[None]))
        return world.SUBJECTS[subject], world.MOTIONS[motion], world.BACKGROUNDS[background]

    return judge


def examine(judge: Judge, num_clips: int = EXAM_CLIPS) -> Score:
    """How often a judge names all three of rendered clips it has never seen, half of them of combinations it has never seen."""
    scenes = [world.sample_scene(EXAM_SEED + i, "held_out" if i % 2 else "train") for i in range(num_clips)]
    right = sum(judge(world.render(scene)) == (scene.subject, scene.motion, scene.background) for scene in scenes)
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
    logger.info("judge: all three right on %s unseen rendered clips", score)
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
    """What the judge saw in the clips of one split."""

    split: world.Split
    subject: Score
    motion: Score
    background: Score
    all_three: Score
    mistakes: tuple[Mistake, ...]


def questions(num_clips: int, split: world.Split, seed: int = 0) -> Iterator[tuple[Words, str, int]]:
    """Combination, fresh caption and seed of each clip to ask for; each combination comes once before any comes twice."""
    combinations = world.combinations(split)
    rng = np.random.default_rng([EVALUATION_SEED, seed, split == "held_out"])
    order: list[int] = []
    for i in range(num_clips):
        order = order or list(rng.permutation(len(combinations)))
        words = combinations[order.pop()]
        yield words, world.write_caption(*words, rng), seed + i


def evaluate(generate: Generate, judge: Judge, num_clips: int, split: world.Split, seed: int = 0) -> Report:
    """Ask for `num_clips` videos, let the judge name what is in them, and count the right answers."""
    if num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}; it must be at least 1.")
    right = np.zeros(3, int)
    mistakes: list[Mistake] = []
    for asked, prompt, clip_seed in questions(num_clips, split, seed):
        seen = judge(generate(prompt, clip_seed))
        right += [a == s for a, s in zip(asked, seen, strict=True)]
        if seen != asked:
            mistakes.append(Mistake(prompt, clip_seed, asked, seen))
            logger.info("%s: asked for %s, the judge sees %s", split, " ".join(asked), " ".join(seen))
    subject, motion, background = (Score(int(n), num_clips) for n in right)
    return Report(split, subject, motion, background, Score(num_clips - len(mistakes), num_clips), tuple(mistakes))


def psnr(frames: Frames, other: UInt8[np.ndarray, "_ _ _ 3"]) -> float:
    """Peak signal-to-noise ratio in dB over a whole clip; infinite for equal clips."""
    if frames.shape != other.shape:
        raise ValueError(f"The clips have shapes {frames.shape} and {other.shape}; PSNR compares clips of one shape.")
    error = np.mean((frames.astype(np.float64) - other) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def vae_psnr(reconstruct: Reconstruct, num_clips: int) -> tuple[float, float]:
    """Mean per-clip PSNR in dB of rendered clips of held-out combinations, through the VAE and back, and half its 95 % interval."""
    clips = (world.render(world.sample_scene(EXAM_SEED + i, "held_out")) for i in range(num_clips))
    values = [psnr(clip, reconstruct(clip)) for clip in clips]
    return float(np.mean(values)), 1.96 * float(np.std(values)) / math.sqrt(num_clips)


# --- What people look at -------------------------------------------------------------------------------------------------------


def contact_sheet(rows: Sequence[tuple[str, Frames]], path: Path, scale: int = 2, num_columns: int = 2) -> None:
    """Write a PNG with five frames of each video side by side under its prompt, `scale` times enlarged."""
    if not rows:
        raise ValueError("There is no video to show; give at least one (prompt, frames).")
    _, height, width, _ = rows[0][1].shape
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


def markdown_table(reports: Sequence[Report], psnr_db: tuple[float, float] | None, judge_score: Score) -> str:
    """The result as a table, with 95 % intervals, and the sentence that says how far to trust it."""
    names = {"train": "combinations seen in training", "held_out": "combinations never seen"}
    lines = ["| prompts | clips | subject | motion | background | all three |", "|---|---|---|---|---|---|"]
    for report in reports:
        cells = (_cell(score) for score in (report.subject, report.motion, report.background, report.all_three))
        lines.append(f"| {names[report.split]} | {report.all_three.total} | {' | '.join(cells)} |")
    lines += ["", f"Percent right by the judge, with 95 % Wilson intervals. The judge itself: {judge_score} on unseen rendered clips."]
    if psnr_db is not None:
        mean, half_width = psnr_db
        lines += ["", f"VAE reconstruction of rendered clips of held-out combinations: {mean:.2f} ± {half_width:.2f} dB PSNR per clip."]
    return "\n".join(lines) + "\n"


def _cell(score: Score) -> str:
    low, high = wilson(score.right, score.total)
    return f"{100 * score.rate:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main(
    generate: Generate,
    reconstruct: Reconstruct | None,
    folder: Path,
    num_clips: int = 256,
    seed: int = 0,
    judge_folder: Path | None = None,
) -> str:
    """Judge a generator and write `evaluation.md`, `evaluation.json` and `contact_sheet.png` into `folder`; returns the table.

    `num_clips` is per split. `reconstruct` is the VAE's encode and decode, or None to leave its PSNR out. The judge is kept in
    `judge_folder` (by default `folder`) and trained there first if it is missing. Raises ValueError if the judge fails its own exam.
    """
    judge, judge_score = load_judge(judge_folder or folder)
    reports = [evaluate(generate, judge, num_clips, split, seed) for split in ("train", "held_out")]
    psnr_db = None if reconstruct is None else vae_psnr(reconstruct, num_clips)
    table = markdown_table(reports, psnr_db, judge_score)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.md").write_text(table)
    result = {"judge": asdict(judge_score), "psnr_db": psnr_db, "reports": [asdict(report) for report in reports]}
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    contact_sheet([(prompt, generate(prompt, seed)) for prompt in SHEET_PROMPTS], folder / "contact_sheet.png")
    return table
