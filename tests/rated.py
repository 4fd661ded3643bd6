"""A study that can be rated, and raters of it: what tests of rating share."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from fastapi import FastAPI

from hunyuan_video.apps.serve import server_of
from hunyuan_video.config import FullSampling, Runtime
from hunyuan_video.evaluation.study import Prompt, Source, Study, System
from hunyuan_video.miniature.drawing import render
from hunyuan_video.miniature.world import sample_scene, write_caption
from hunyuan_video.rating.vote import Vote
from hunyuan_video.recording import Recording
from hunyuan_video.request import Provenance

SYSTEMS = ("telltale-alpha", "telltale-beta")
FRAMES = 5


def study_of(folder: Path, num_prompts: int = 4, systems: Sequence[str] = SYSTEMS, size: int = 64) -> Study:
    """Drawn clips whose files say all that a real one's do; the second system's are dark."""
    scenes = [sample_scene(seed, "train") for seed in range(num_prompts)]
    captions = [write_caption(scene, np.random.default_rng(0)) for scene in scenes]
    prompts = [Prompt(f"prompt-{number:04}", caption, ("camera:still",) if number % 2 else ()) for number, caption in enumerate(captions)]
    study = Study.create(folder, Source("prompts.txt", "0" * 64, rewritten=False, benchmark="own"), prompts, seed=7)
    study = study.with_systems([System(name, "weights", {"model": f"identity-of-{name}"}) for name in systems])
    for shade, name in enumerate(systems, start=1):
        for prompt, scene in zip(prompts, scenes, strict=True):
            path = study.clip(name, prompt.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            with Recording(".mp4") as recording:
                recording.add(render(scene, size, size, FRAMES) // shade)
                recording.write(path, comment_of(prompt.prompt, name))
    return study


def comment_of(prompt: str, system: str) -> str:
    """What a file tells of itself, as `save_video` has it written there."""
    sampling = FullSampling(num_frames=FRAMES, num_steps=4)
    names = dict.fromkeys(("transformer", "device", "hunyuan_video", "torch"), "x")
    made = Provenance(prompt, None, sampling, Runtime(), model=f"identity-of-{system}", load_key="module", frames_sha256="x", **names)  # pyright: ignore
    return json.dumps({"hunyuan_video": made.to_json()})


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """By a real server, on a free port; its address."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = server_of(app)
        server.config.timeout_graceful_shutdown = 1
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"  # where connections wait until it has started
        finally:
            while not server.started:  # before that it does not see that it is to end
                time.sleep(0.01)
            server.should_exit = True
            thread.join()


def vote(**said: object) -> Vote:
    """By one rater on one clip, unless it is said otherwise."""
    usual = {
        "rater": "r", "mode": "absolute", "number": 1, "kind": "first", "prompt": "p", "tags": (), "question": "text", "answer": "yes",
        "left": "A", "right": "", "truth": "", "latency_ms": 4000, "at": 0.0, "seed": 0, "left_made": "", "right_made": "",
    }  # fmt: skip
    return Vote(**usual | said)  # pyright: ignore[reportArgumentType]
