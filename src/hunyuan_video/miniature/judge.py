"""The judge: a small classifier that looks at five frames of a video and says all that a caption of the rendered world can say.

It learns from rendered clips alone, never from generated ones, and first has to prove itself on clips it has not seen.

Letters: B clips, K = 5 frames the judge looks at, T frames, H height, W width.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hunyuan_video.miniature import drawing, world
from hunyuan_video.miniature.world import SLOTS, Scene

logger = logging.getLogger(__name__)

Frames = UInt8[np.ndarray, "T H W 3"]
Words = dict[str, str | None]  # a word for each slot of a scene
Judge = Callable[[Frames], Words]

NUM_LOOKS = 5
# Far apart, and above 2**31, below which all training draws its seeds: nothing is judged with a scene that something was trained on.
JUDGE_SEED, EXAM_SEED, EVALUATION_SEED = 2**40, 2**41, 2**42
EXAM_CLIPS = 600
EXAM_SLOTS = ("subject", "second", "motion", "background")
PASS_MARK = 0.99  # of both subjects, motion and background together


def words_of(scene: Scene) -> Words:
    """What can be seen: a subject that nobody recoloured has its own colour, if that has a name."""
    own = world.COLOURABLE.get(scene.subject) if scene.second is None else None
    return {slot: getattr(scene, slot) for slot in SLOTS} | {"colour": scene.colour or own}


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
