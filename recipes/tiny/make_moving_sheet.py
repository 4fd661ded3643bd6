"""The embedded model's videos as one moving picture: `python recipes/tiny/make_moving_sheet.py docs/images/videos.webp`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hunyuan_video import HunyuanVideo, Runtime
from hunyuan_video.miniature.evaluation import SHEET_PROMPTS
from hunyuan_video.miniature.judge import Frames
from hunyuan_video.weights import EMBEDDED

COLUMNS, TILE, GAP, STRIP = 4, 192, 8, 34  # the latter three in pixels: a video, between two, the prompt below it in two lines
FONT = ImageFont.load_default(size=12)


def wrapped(text: str) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if FONT.getlength(longer) <= TILE:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def pages(videos: Sequence[tuple[str, Frames]]) -> list[Image.Image]:
    """All videos side by side, each over its prompt: a page for each frame."""
    size = (COLUMNS * (TILE + GAP) - GAP, -(-len(videos) // COLUMNS) * (TILE + STRIP))
    pages = [Image.new("RGB", size, "white") for _ in videos[0][1]]
    for number, (prompt, frames) in enumerate(videos):
        left, top = number % COLUMNS * (TILE + GAP), number // COLUMNS * (TILE + STRIP)
        for page, frame in zip(pages, frames, strict=True):
            page.paste(Image.fromarray(frame).resize((TILE, TILE), Image.Resampling.BICUBIC), (left, top))
            ImageDraw.Draw(page).text((left, top + TILE + 2), wrapped(prompt), fill=(40, 40, 40), font=FONT, spacing=1)
    return pages


def main(path: Path) -> None:
    pipe = HunyuanVideo.load(EMBEDDED, Runtime(dtype="bfloat16", vae_dtype="bfloat16"))
    first, *others = pages([(prompt, pipe(prompt, seed=0).frames) for prompt in SHEET_PROMPTS])
    # 24 a second, in whole milliseconds, and the last frame a little longer.
    times = [*np.diff(np.arange(len(others) + 1) * 1000 // 24).tolist(), 800]
    first.save(path, save_all=True, append_images=others, duration=times, loop=0, quality=85, method=4)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
