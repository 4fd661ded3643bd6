"""Many raters at once, with the page as a user starts it: each sees a study of drawn clips through, and it is said how long answers took.

python benchmarks/rating.py --raters 60
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from hunyuan_video.evaluation.study import Prompt, Source, Study, System
from hunyuan_video.leash import hold
from hunyuan_video.miniature.drawing import render
from hunyuan_video.miniature.world import sample_scene, write_caption
from hunyuan_video.rating.design import QUESTIONS
from hunyuan_video.recording import Recording

PROMPTS, FRAMES = 20, 33


@dataclass
class Seen:
    """Seconds that answers took, in order; bytes of videos; and seconds for which the page's process has computed."""

    answers: list[float] = field(default_factory=list)
    videos: list[float] = field(default_factory=list)
    size: int = 0
    computed: float = 0.0

    def percentile(self, which: float) -> float:
        return float(np.percentile(self.answers, which))


def draw_study(folder: Path) -> Study:
    """Twenty clips of each of two systems, of the embedded model's size."""
    scenes = [sample_scene(seed, "train") for seed in range(PROMPTS)]
    prompts = [Prompt(f"{number:04}", write_caption(scene, np.random.default_rng(number))) for number, scene in enumerate(scenes)]
    study = Study.create(folder, Source("drawn", "0" * 64, rewritten=False, benchmark="own"), prompts)
    study = study.with_systems([System(name, "folder") for name in ("bright", "dark")])
    for shade, system in enumerate(study.systems, start=1):
        for prompt, scene in zip(prompts, scenes, strict=True):
            path = study.clip(system.name, prompt.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            with Recording(path.suffix) as recording:
                recording.add(render(scene, num_frames=FRAMES) // shade)
                recording.write(path, None)
    return study


async def rate(address: str, number: int, pause: float, seen: Seen) -> None:
    """One rater from the first page to the last; `pause` seconds are between two answers in the mean."""
    chance = random.Random(number)
    # A browser asks again if the server has just closed an idle connection, as ours does after 5 s; this client does not.
    brief = httpx.Limits(keepalive_expiry=2)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=brief) as client:

        async def timed(method: str, path: str, **more: object) -> dict:
            begun = time.perf_counter()
            answer = await client.request(method, path, **more)  # pyright: ignore[reportArgumentType]
            seen.answers.append(time.perf_counter() - begun)
            answer.raise_for_status()
            return answer.json() if answer.headers["content-type"] == "application/json" else {}

        await asyncio.sleep(2 * pause * chance.random())
        for path in ("/", "/page.css", "/page.js", "/words.js"):
            await timed("GET", path)
        task = await timed("POST", "/api/join", json={})
        while "clips" in task:
            for clip in task["clips"]:
                begun = time.perf_counter()
                seen.size += len((await client.get(f"/media/{clip}.mp4")).content)
                seen.videos.append(time.perf_counter() - begun)
            await asyncio.sleep(2 * pause * chance.random())
            said = {"answers": dict.fromkeys(QUESTIONS, "tie"), "latency_ms": 1000}
            task = await timed("POST", f"/api/task/{task['number']}", json=said)


async def _all(address: str, raters: int, pause: float) -> Seen:
    seen = Seen()
    await asyncio.gather(*(rate(address, number, pause, seen) for number in range(raters)))
    return seen


def measure(folder: Path, port: int, raters: int, pause: float) -> Seen:
    """With the page as its command starts it, in a process of its own, which is stopped afterwards."""
    study = draw_study(folder / "study")
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "hunyuan_video", "evaluate", "rate", str(study.folder), "--mode", "pairs", "--port", str(port)]
    server = hold(command)
    try:
        _wait_for(address, server)
        before = _computed(server.pid)
        seen = asyncio.run(_all(address, raters, pause))
        seen.computed = _computed(server.pid) - before
        return seen
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.wait()


def _computed(pid: int) -> float:
    """Seconds, in the user's code and the system's."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            httpx.get(f"{address}/health", timeout=5)
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit("The page did not start.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raters", type=int, default=60)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two answers of a rater, in the mean")
    parser.add_argument("--port", type=int, default=8082)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        seen = measure(Path(folder), given.port, given.raters, given.pause)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    times = ", ".join(f"p{which} {1000 * seen.percentile(which):.0f} ms" for which in (50, 95, 99))
    print(f"{given.raters} raters at once, {given.pause:g} s between answers: {len(seen.answers)} answers, {times}")
    each = 1000 * seen.computed / (len(seen.answers) + len(seen.videos))
    print(f"besides {len(seen.videos)} videos, {seen.size / 2**20:.0f} MiB; {time.perf_counter() - begun:.0f} s in all")
    print(f"the page computed for {seen.computed:.1f} s, {each:.1f} ms for each answer or video")


if __name__ == "__main__":
    main()
