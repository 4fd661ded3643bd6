"""The server under load, as a user starts it: many submissions at once, then a soak in which the embedded model makes small videos while
clients ask for more and look how far they are. Says what was lost or crossed, what leaked, and how long answers took.

    python benchmarks/serving.py --jobs 500
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from hunyuan_video.video import read_metadata

SMALL = {"size": "32x32", "num_frames": 5, "num_steps": 2}
CLIENTS, AT_ONCE = 8, 64
POLL = 0.5  # seconds between two looks of a client at one of its videos
WARM = 0.1  # of all jobs: what is measured from there on no longer grows by being used for the first time


@dataclass
class Seen:
    """What clients saw."""

    prompts: dict[str, str] = field(default_factory=dict)
    """by the id of their job"""
    create: list[float] = field(default_factory=list)
    poll: list[float] = field(default_factory=list)
    """seconds that answers took"""


@dataclass(frozen=True)
class Use:
    """What a process has."""

    memory: int
    """bytes"""
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Use:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
        return cls(int(status["VmRSS"].split()[0]) * 1024, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]))


def children(pid: int) -> dict[str, int]:
    """The processes of a supervisor, as "api" and "worker"."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            words = (path / "cmdline").read_text(encoding="utf-8").split("\0")
        except OSError:
            continue
        if parent == pid:
            found["api" if "serve" in words else "worker"] = int(path.name)
    return found


async def create(client: httpx.AsyncClient, seen: Seen, number: int) -> str:
    prompt = f"video number {number}"
    begun = time.perf_counter()
    answer = await client.post("/v1/videos", json={"prompt": prompt, "seed": number, **SMALL})
    seen.create.append(time.perf_counter() - begun)
    answer.raise_for_status()
    seen.prompts[answer.json()["id"]] = prompt
    return answer.json()["id"]


async def look(client: httpx.AsyncClient, seen: Seen, job_id: str) -> str:
    begun = time.perf_counter()
    answer = await client.get(f"/v1/videos/{job_id}")
    seen.poll.append(time.perf_counter() - begun)
    return answer.json()["status"]


async def go_on(client: httpx.AsyncClient, seen: Seen, numbers: itertools.count[int], jobs: int, first: list[str]) -> None:
    """One client: has as many videos in the queue as it began with, until enough have been asked for, and sees all of them through."""
    waiting = list(first)
    while waiting:
        await asyncio.sleep(POLL)
        if await look(client, seen, waiting[0]) in ("completed", "failed"):
            waiting.pop(0)
            if (number := next(numbers)) < jobs:
                waiting.append(await create(client, seen, number))


async def soak(port: int, pids: dict[str, int], jobs: int) -> tuple[Seen, list[float], dict[str, list[Use]]]:
    seen, numbers = Seen(), itertools.count()
    uses: dict[str, list[Use]] = {name: [] for name in pids}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=httpx.Limits(max_connections=AT_ONCE)) as client:
        each = min(AT_ONCE, jobs) // CLIENTS
        groups = [asyncio.gather(*(create(client, seen, next(numbers)) for _ in range(each))) for _ in range(CLIENTS)]
        first = await asyncio.gather(*groups)
        at_once, seen.create = seen.create, []

        async def watch() -> None:
            while True:
                done = (await client.get("/metrics")).status_code == 200 and await completed(client)
                if done >= WARM * jobs:
                    for name, pid in pids.items():
                        uses[name].append(Use.of(pid))
                await asyncio.sleep(5)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(go_on(client, seen, numbers, jobs, list(ids)) for ids in first))
        watching.cancel()
        for name, pid in pids.items():
            uses[name].append(Use.of(pid))
        return seen, at_once, uses


async def completed(client: httpx.AsyncClient) -> int:
    text = (await client.get("/metrics")).text
    lines = [line for line in text.splitlines() if 'status="completed"' in line]
    return int(float(lines[0].split()[-1])) if lines else 0


def wrong(port: int, seen: Seen, files: Path) -> dict[str, int]:
    """Count what was lost, or crossed, by what the file of each video tells of itself; and files that are not theirs."""
    found = {"lost": 0, "crossed": 0}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client, tempfile.TemporaryDirectory() as folder:
        for job_id, prompt in seen.prompts.items():
            content = client.get(f"/v1/videos/{job_id}/content")
            if content.status_code != 200:
                found["lost"] += 1
                continue
            (path := Path(folder) / "video.mp4").write_bytes(content.content)
            found["crossed"] += digest(read_metadata(path)["prompt"]) != digest(prompt)
    found["leaked files"] = sum(path.is_file() for path in files.rglob("*")) - 3 * len(seen.prompts)
    return found


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def p95(seconds: list[float]) -> str:
    return f"p50 {1000 * statistics.median(seconds):.0f} ms, p95 {1000 * statistics.quantiles(seconds, n=20)[-1]:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    jobs = parser.parse_args().jobs
    if jobs < 2 * AT_ONCE:
        parser.error(f"--jobs is {jobs}; it must be {2 * AT_ONCE} or more, of which {AT_ONCE} are asked for at once.")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hunyuan_video", "serve", "--port", str(port), "--data", folder, "--max-queue", str(jobs)]
        server = subprocess.Popen(command)
        try:
            while not ready(port):
                time.sleep(0.5)
            begun = time.monotonic()
            seen, at_once, uses = asyncio.run(soak(port, children(server.pid), jobs))
            print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}")
            print(f"{len(at_once)} submissions at once from {CLIENTS} clients: {p95(at_once)}")
            print(f"{len(seen.prompts)} videos in {time.monotonic() - begun:.0f} s: {wrong(port, seen, Path(folder) / 'files')}")
            print(f"create: {p95(seen.create)}; poll: {p95(seen.poll)} ({len(seen.create)} and {len(seen.poll)} while videos were made)")
            for name, use in uses.items():
                first, last = use[0], use[-1]
                grown = 100 * (last.memory / first.memory - 1)
                print(
                    f"{name}: memory {first.memory / 1e6:.0f} MB, then {last.memory / 1e6:.0f} MB ({grown:+.1f} %); "
                    f"open files {first.files}, then {last.files}; threads {first.threads}, then {last.threads}"
                )
        finally:
            server.terminate()
            server.wait()


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
