"""How well videos begin, end, go on and lead back, on the embedded model: the numbers of docs/ways-to-begin.md, and pictures to look at.

    python benchmarks/ways.py --out results/ways

Anchor: PSNR of the decoded frames that were given, to what was given. Seam: the step into a frame beside the median of all others (1: like
any other). Worst: the largest step inside a video beside the median, for what a seam would have to exceed to be seen.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hunyuan_video.config import Given
from hunyuan_video.evaluation.metrics import psnr
from hunyuan_video.evaluation.seams import Frames, repetition, seam, steps
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.request import Clip, Keyframe, Picture

PROMPTS = (
    "A cat walks to the right on the grass.",
    "A red car drives to the left in the city.",
    "A bird flies up over the sea.",
    "A blue robot grows in the desert.",
    "A fish swims to the right in the sea.",
    "A ball moves down in the snow.",
)
OTHERS = (
    "A dog walks to the right on the grass.",
    "A yellow car drives to the left in the city.",
    "A balloon flies up over the sea.",
    "A red robot grows in the desert.",
    "A boat moves to the right in the sea.",
    "A flower moves down in the snow.",
)


def worst(frames: Frames) -> float:
    inside = steps(frames)[1:]
    return float(inside.max() / max(np.median(inside), 1e-3))


def sheet(path: Path, rows: list[Frames], columns: int = 9) -> None:
    """Each video a row, of frames from all over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [np.concatenate([row[place] for place in np.linspace(0, len(row) - 1, columns).round().astype(int)], axis=1) for row in rows]
    Image.fromarray(np.concatenate(lines)).save(path)


class Ways:
    def __init__(self, pipe: HunyuanVideo, out: Path, count: int, side: int):
        self.pipe, self.out, self.given, self.side = pipe, out, pipe.origin.given, side
        self.cases = list(zip(PROMPTS, OTHERS, range(count), strict=False))
        self.plain = [self.make(prompt, seed) for prompt, _, seed in self.cases]

    def make(self, prompt: str, seed: int, **given: Any) -> Frames:
        return self.pipe(prompt, seed=seed, height=self.side, width=self.side, **given).frames

    def knowing(self, *given: Given) -> None:
        """From now on as if the weights had been trained to be given this."""
        self.pipe.origin = replace(self.pipe.origin, given=given)

    def each(self, make: Callable[[int, str, str], Frames]) -> list[Frames]:
        return [make(seed, prompt, other) for prompt, other, seed in self.cases]

    def anew(self) -> Iterator[tuple[Any, ...]]:
        """Of a clip, by another prompt, with each strength."""
        yield "strength", "PSNR to the clip, dB", "PSNR to the new prompt's own video, dB"
        own = self.each(lambda seed, _, other: self.make(other, seed))
        shown = [self.plain[0]]
        for strength in (0.2, 0.4, 0.6, 0.8):
            made = self.each(lambda seed, _, other, s=strength: self.make(other, seed, video=self.plain[seed], strength=s))
            shown.append(made[0])
            yield strength, *(statistics.median(map(psnr, made, beside)) for beside in (self.plain, own))
        sheet(self.out / "video-to-video.png", [*shown, own[0]])

    def after(self) -> Iterator[tuple[Any, ...]]:
        """A clip, and what comes after it."""
        yield "held", "seam", "worst inside", "anchor, dB"
        kinds: dict[str, tuple[int, tuple[Given, ...]]] = {
            "9 frames, clean": (9, ("first", "continuation")),
            "1 frame, clean": (1, ("first",)),
            "9 frames, the first one clean": (9, ("first",)),
            "9 frames, none clean": (9, ()),
        }
        shown = []
        for name, (overlap, given) in kinds.items():
            self.knowing(*given)
            made, anchors = [], []
            for prompt, _, seed in self.cases:
                clip = self.plain[seed][:25]
                begins = Keyframe(0, Clip(clip[-overlap:]))
                after = self.make(prompt, seed + 100, keyframes=(begins,))
                made.append(np.concatenate([clip, after[overlap:]]))
                anchors.append(psnr(after[:overlap], clip[-overlap:]))
            shown.append(made[0])
            yield name, *(statistics.median(map(of, made)) for of in (lambda frames: seam(frames, 25), worst)), statistics.median(anchors)
        self.knowing(*self.given)
        sheet(self.out / "continue.png", shown, 13)

    def between(self) -> Iterator[tuple[Any, ...]]:
        """Pictures at both ends, of the prompt's own video."""
        yield "how", "first, dB", "last, dB", "worst step"
        shown = [self.plain[0]]
        kinds: dict[str, tuple[Given, ...]] = {"none clean": (), "the first one clean": ("first",), "both clean": ("first", "last")}
        for name, given in kinds.items():
            self.knowing(*given)
            ends = [(Keyframe(0, Picture(frames[0])), Keyframe(-1, Picture(frames[-1]))) for frames in self.plain]
            made = self.each(lambda seed, prompt, _, ends=ends: self.make(prompt, seed + 100, keyframes=ends[seed]))
            shown.append(made[0])
            anchors = [[psnr(a[place][None], b[place][None]) for a, b in zip(made, self.plain, strict=True)] for place in (0, -1)]
            yield name, *map(statistics.median, anchors), statistics.median(map(worst, made))
        self.knowing(*self.given)
        sheet(self.out / "keyframes.png", shown)

    def around(self) -> Iterator[tuple[Any, ...]]:
        """Loops."""
        yield "how", "seam", "worst inside", "mean step"
        loops = {
            "no loop": self.plain,
            "a ring": self.each(lambda seed, prompt, _: self.make(prompt, seed, loop=True)),
            "back to a picture": self.each(lambda seed, prompt, _: self.make(prompt, seed, loop=True, image=Picture(self.plain[seed][0]))),
        }
        for name, made in loops.items():
            mean = statistics.median(float(steps(frames)[1:].mean()) for frames in made)
            yield name, *(statistics.median(map(of, made)) for of in (lambda frames: seam(frames, 0), worst)), mean
        shown = [made[case] for case in (2, 0) for made in loops.values()]
        sheet(self.out / "loops.png", [np.concatenate([frames, frames[:4]]) for frames in shown], 11)

    def long(self) -> Iterator[tuple[Any, ...]]:
        """Videos six and eight times as long as those that the model was trained on."""
        yield "how", "frames", "worst step", "repetition", "mean step"
        kinds: dict[str, tuple[dict[str, Any], int | None]] = {
            "at once": ({}, None),
            "riflex": ({"positions": "riflex"}, None),
            "windows of 33": ({}, 33),
        }
        for count in (201, 257):
            shown = []
            for name, (more, window) in kinds.items():
                self.pipe.runtime = replace(self.pipe.runtime, window=window)
                made = self.each(lambda seed, prompt, _, more=more, count=count: self.make(prompt, seed, num_frames=count, **more))
                shown.append(made[0])
                mean = statistics.median(float(steps(frames)[1:].mean()) for frames in made)
                yield name, count, *(statistics.median(map(of, made)) for of in (worst, lambda frames: repetition(frames, 33))), mean
            sheet(self.out / f"long-{count}.png", shown, 17)
        self.pipe.runtime = replace(self.pipe.runtime, window=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/ways"), help="folder for pictures")
    parser.add_argument("--count", type=int, default=len(PROMPTS), help="how many of the prompts")
    parser.add_argument("--side", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--only", nargs="*", default=["around", "after", "between", "anew", "long"], help="which tables")
    args = parser.parse_args()
    ways = Ways(HunyuanVideo.load(), args.out, args.count, args.side)
    for name in args.only:
        print(f"\n{name}:")
        for row in getattr(ways, name)():
            print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |", flush=True)


if __name__ == "__main__":
    main()
