"""A model that is fast and needs no torch: what it makes says of which order, by how many steps, and is wrong if one was left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hunyuan_video.serving.attempt import State
from hunyuan_video.serving.jobs import Order
from hunyuan_video.serving.worker import Craft


@dataclass(frozen=True)
class Made:
    prompt: str
    sampling: Any
    model: str = "fake"

    def to_json(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "seed": self.sampling.seed, "model": self.model, "adapters": ()}


@dataclass(frozen=True)
class Step:
    stage: str
    step: int
    total: int
    provenance: Made
    latents: str | None = None
    new_frames: str | None = None


class Studio:
    """`work` is called in each step of denoising and decoding, with its number, and may take long, fail, or end the process."""

    def __init__(self, work: Callable[[Order, int], None] = lambda order, step: None, model: str = "fake"):
        self.work, self.model = work, model
        self.done: list[int] = []

    def make(self, order: Order, resume: tuple[int, str] | None) -> Generator[Step]:
        made = Made(order.prompt, order.sampling, self.model)
        yield Step("encode", 1, 1, made)
        done, latents = resume or (0, f"{order.prompt} {order.sampling.seed}")
        total = order.sampling.num_steps
        if done > 0:
            yield Step("denoise", done, total, made, latents)
        for step in range(done + 1, total + 1):
            self.work(order, step)
            self.done.append(step)
            latents = hashlib.sha256(f"{latents} {step}".encode()).hexdigest()
            yield Step("denoise", step, total, made, latents)
        for piece in (1, 2):
            self.work(order, total + piece)
            yield Step("decode", piece, 2, made, latents, latents)

    def craft(self) -> Craft:
        return Craft(lambda order: order, self.make, Files, lambda: 12345)


class Files:
    def __init__(self) -> None:
        self.frames = ""

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def keep(self, state: State, path: Path) -> None:
        path.write_text(json.dumps([state.step, state.made, state.latents]), encoding="utf-8")

    def read(self, path: Path) -> State:
        return State(*json.loads(path.read_text(encoding="utf-8")))

    def preview(self, step: Step) -> bytes | None:
        return f"{step.latents}".encode()

    def add(self, step: Step) -> None:
        self.frames += step.new_frames or ""

    def finish(self, last: Step, folder: Path) -> dict[str, Path]:
        path = folder / "video.mp4"
        path.write_bytes(video_of(last.provenance.to_json(), self.frames))
        return {"video": path}


def video_of(made: dict[str, Any], frames: str) -> bytes:
    """A file large enough to be cut in the middle."""
    return json.dumps({**made, "frames": frames, "filling": "." * 100_000}).encode()


def right_video(order: Order) -> bytes:
    """What must come of an order, however often its making was interrupted."""
    steps = list(Studio().make(order, None))
    return video_of(steps[-1].provenance.to_json(), "".join(step.new_frames or "" for step in steps))
