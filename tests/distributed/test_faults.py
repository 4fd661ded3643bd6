"""Ranks that fail: all end, soon, and one sentence says which one and why. Real processes, which get real signals."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked, python
from media_files import at, write_video

from hunyuan_video import cli
from hunyuan_video.apps import launch
from hunyuan_video.distributed.started import RanksError
from hunyuan_video.distributed.watch import Ending, Watch
from hunyuan_video.signals import STOPS
from hunyuan_video.video import load_latents

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "src" / "hunyuan_video" / "tiny"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
SMALL = ("--height", "64", "--width", "64", "--num-frames", "5", "--seed", "0")
LONG = (*SMALL, "--num-steps", "1000")
OWN = ("-m", "hunyuan_video", "generate", "A cat.", "--device", "cpu", "--weights", str(EMBEDDED))
OFFICIAL = (
    *TORCHRUN, str(ROOT / "sample_video_parallel.py"), "--model-base", str(EMBEDDED), "--video-size", "64", "64", "--video-length", "5",
    "--infer-steps", "1000", "--prompt", "A cat.", "--seed", "0", "--timeout", "6",
)  # fmt: skip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")


@dataclass
class Run:
    """A command and the ranks that it has started."""

    process: Forked
    ranks: dict[int, int]
    """process numbers"""

    @property
    def errors(self) -> Path:
        return self.process.error

    @property
    def number(self) -> int:
        return self.process.process.pid or 0

    def ended(self, seconds: float) -> tuple[int, str, list[str]]:
        """Exit code, what was printed, and the sentences of `hunyuan-video`, of a run that must end in so many seconds, with all ranks."""
        code = self.process.ended(seconds)
        alive = [rank for rank, number in self.ranks.items() if Path(f"/proc/{number}").exists()]
        assert alive == []
        said = self.errors.read_text()
        return code, self.process.out.read_text(), [line for line in said.splitlines() if line.startswith("hunyuan-video: ")]


@contextmanager
def running(folder: Path, *command: str, until: str = "Attention by", **environment: str) -> Iterator[Run]:
    """A command that has come as far as to say `until`, with its ranks' numbers."""
    with contextlib.chdir(folder):
        run = Run(python(*command, says=folder / "said", OMP_NUM_THREADS="1", **environment), {})
    try:
        run.process.wait_until(lambda: until in run.errors.read_text())
        assert until in run.errors.read_text(), run.errors.read_text()
        run.ranks |= ranks_of(run.number)
        yield run
    finally:
        for number in (run.number, *run.ranks.values()):
            if Path(f"/proc/{number}").exists():
                os.kill(number, signal.SIGKILL)
        run.process.process.join()


def ranks_of(parent: int) -> dict[int, int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    environments = {int(number): Path(f"/proc/{number}/environ").read_bytes().split(b"\0") for number in children}
    return {
        int(entry.removeprefix(b"RANK=")): number
        for number, entries in environments.items()
        for entry in entries
        if entry.startswith(b"RANK=")
    }


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.stem != "said")


def test_a_rank_that_is_killed_ends_all_within_seconds_and_what_was_done_is_kept(tmp_path):
    with running(tmp_path, *OWN, *LONG, "--gpus", "2", "--save-state", "state.safetensors") as run:
        run.process.wait_until((tmp_path / "state.safetensors").exists)
        assert set(run.ranks) == {0, 1}
        os.kill(run.ranks[1], signal.SIGKILL)
        code, out, sentences = run.ended(15)
    assert (code, out) == (1, "")
    assert sentences == [
        "hunyuan-video: Rank 1 was killed (SIGKILL); if nobody did that, this machine had too little memory for all ranks."
    ]
    assert "Kept: state.safetensors" in run.errors.read_text() and "Traceback" not in run.errors.read_text()
    assert files_in(tmp_path) == ["state.safetensors"]


@pytest.mark.slow
def test_under_torchrun_a_rank_that_hangs_ends_all_after_the_timeout_and_never_wakes(tmp_path):
    with running(tmp_path, *OFFICIAL, until="Attention by") as run:
        time.sleep(3)
        os.kill(run.ranks[1], signal.SIGSTOP)
        code, out, (sentence,) = run.ended(6 + 15)
    assert (code, out) == (1, "") and files_in(tmp_path) == []
    assert_hung(sentence, 6)


def assert_hung(sentence: str, seconds: int) -> None:
    assert sentence.startswith(f"hunyuan-video: Rank 1 has not answered for {seconds} s, last seen denoising, step ")
    assert sentence.endswith(" of 1000; if it is only slow, a longer --timeout waits for it.")


def test_a_rank_that_hangs_ends_all_after_the_timeout_and_never_wakes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "state.safetensors"
    command = ("-m", "hunyuan_video", "generate", "A cat.", "--device", "cpu", "--timeout", "3", "--save-state", str(state), *LONG)
    with started_by_another(*command) as ranks:
        ranks[0].wait_until(state.exists)
        time.sleep(1)  # in which ranks have heard of each other what they do
        ranks[1].send_signal(signal.SIGSTOP)
        assert [rank.ended(3 + 15) for rank in ranks] == [1, -signal.SIGKILL]
    (sentence,) = sentences_of(ranks)
    assert_hung(sentence, 3)
    assert not list((tmp_path / "results").glob("*")) or files_in(tmp_path / "results") == []


def of_two() -> dict[str, str]:
    """The environment of two ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}


@contextmanager
def started_by_another(*command: str, **environment: str) -> Iterator[list[Forked]]:
    """Two ranks of a command, which no torchrun looks after."""
    environment |= of_two()
    ranks = [python(*command, says=Path(f"rank{rank}"), RANK=str(rank), LOCAL_RANK=str(rank), **environment) for rank in range(2)]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.process.kill()


def sentences_of(ranks: list[Forked]) -> list[str]:
    return [line for rank in ranks for line in rank.error.read_text().splitlines() if line.startswith("hunyuan-video: ")]


def test_ctrl_c_ends_all_ranks(tmp_path):
    with running(tmp_path, *OWN, *LONG, "--gpus", "2") as run:
        run.process.send_signal(signal.SIGINT)
        code, out, sentences = run.ended(15)
    assert (code, out, sentences) == (130, "", []) and files_in(tmp_path) == []
    assert run.errors.read_text().count("Stopped. Nothing of this video was kept") == 1 and "Traceback" not in run.errors.read_text()


@pytest.mark.slow
def test_what_ctrl_c_stopped_on_two_ranks_is_finished_by_three(tmp_path):
    settings = (*SMALL, "--num-steps", "200", "--format", "latents")
    with running(tmp_path, *OWN, *settings, "--gpus", "2", "--save-state", "state.safetensors") as run:
        run.process.wait_until((tmp_path / "state.safetensors").exists)
        run.process.send_signal(signal.SIGINT)
        assert run.ended(15)[0] == 130 and run.errors.read_text().count("Kept: state.safetensors") == 1
    resume = ("-m", "hunyuan_video", "generate", "--resume", "state.safetensors", "--weights", str(EMBEDDED), "--gpus", "3")
    paths = []
    for command in (resume, (*OWN, *settings)):
        result = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True)
        paths += result.stdout.splitlines()
    three, one = (load_latents(tmp_path / path)[0] for path in paths)
    torch.testing.assert_close(three, one, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_ranks_end_without_their_launcher(tmp_path):
    with running(tmp_path, *OWN, *LONG, "--gpus", "2") as run:
        os.kill(run.number, signal.SIGKILL)
        wait_for_the_end_of(run.ranks.values())


def wait_for_the_end_of(processes: Iterable[int]) -> None:
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{number}").exists() for number in processes):
        assert time.monotonic() < deadline
        time.sleep(0.1)


# Forks the ranks, and waits for them.
LAUNCHER = """
import os, sys
from hunyuan_video.__main__ import console
for rank in ("0", "1"):
    if os.fork() == 0:
        os.environ["RANK"] = os.environ["LOCAL_RANK"] = rank
        console()
os.wait()
"""


def test_the_ranks_end_without_whatever_started_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launcher = python("-c", LAUNCHER, "generate", "A cat.", "--device", "cpu", *LONG, says=Path("said"), **of_two())
    launcher.wait_until(lambda: "Attention by" in launcher.error.read_text())
    parent = launcher.process.pid
    ranks = [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    assert len(ranks) == 2
    launcher.process.kill()
    wait_for_the_end_of(ranks)


@pytest.mark.slow
def test_under_torchrun_another_rank_tells_that_the_first_was_killed(tmp_path):
    with running(tmp_path, *OFFICIAL) as run:
        os.kill(run.ranks[0], signal.SIGKILL)
        _, out, (sentence,) = run.ended(20)
    assert out == "" and sentence.startswith("hunyuan-video: Rank 0 is gone, last seen ") and files_in(tmp_path) == []


MEMORY = "Rank 1: out of memory; try --offload auto, --fp8 or a smaller video"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        ("memory", 1, MEMORY),
        ("weights", 2, "Rank 1: No HunyuanVideo weights were found: looked for nowhere"),
        ("sleep", 1, "Rank 1 has not answered for 3 s, last seen denoising"),  # but it beats
    ],
)
def test_under_torchrun_what_fails_on_one_rank_ends_all_with_its_sentence(tmp_path, fault, code, sentence):
    command = (*TORCHRUN, str(ROOT / "tests" / "faulty.py"), "generate", "A cat.", "--device", "cpu", "--timeout", "3", *LONG)
    result = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**os.environ, "FAULT": fault},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = [line for line in result.stderr.splitlines() if line.startswith("hunyuan-video: ")]
    assert len(said) == 1 and said[0].startswith(f"hunyuan-video: {sentence}")
    assert result.stdout == "" and files_in(tmp_path) == [] and f"exitcode  : {code} " in result.stderr


def test_what_fails_on_one_rank_ends_all_with_its_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with started_by_another(str(ROOT / "tests" / "faulty.py"), *OWN[2:], *LONG, FAULT="memory") as ranks:
        assert [rank.ended(60) for rank in ranks] == [1, 1]
    (sentence,) = sentences_of(ranks)
    assert sentence.startswith(f"hunyuan-video: {MEMORY}") and [rank.out.read_text() for rank in ranks] == ["", ""]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--ulysses-degree", "3", "--gpus", "2"], "The Ulysses degree 3 and the ring degree 1 are for 3 ranks, but there are 2"),
        (["--height", "16", "--width", "16", "--num-frames", "1", "--gpus", "2"], "A video of 1 tokens cannot be shared in 2 parts"),
        (["--gpus", "100"], "cannot be shared in 100 parts"),
        (["--gpus", "2", "--pipefusion-stages", "2", "--shard"], "shard would gather every block for every patch"),
        (["--gpus", "2", "--warmup-steps", "2"], "without pipefusion_patches every step is exact"),
        (["--gpus", "2", "--resume", "a.safetensors"], "give nothing else but --weights"),
    ],
)
def test_what_ranks_would_refuse_is_refused_before_they_start(tmp_path, monkeypatch, capsys, wrong, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "elastic_launch", None)
    assert cli.main([*OWN[2:], *SMALL, *wrong]) == 2
    assert sentence in capsys.readouterr().err and files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--ulysses-degree", "3", "--gpus", "2"], "The Ulysses degree 3 and the ring degree 1 are for 3 ranks, but there are 2"),
        (["--gpus", "0"], "gpus is 0; it must be 1 or more"),
        (["--gpus", "2", "--times", "0"], "times is 0; it must be between 1 and 1000."),
    ],
)
def test_what_ranks_would_refuse_to_go_on_with_is_refused_before_they_start(tmp_path, monkeypatch, capsys, wrong, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "elastic_launch", None)
    write_video(tmp_path / "clip.mp4", at(24, 9))
    assert cli.main(["continue", "clip.mp4", "--prompt", "a cat", "--weights", str(EMBEDDED), "--device", "cpu", *wrong]) == 2
    assert sentence in capsys.readouterr().err and not list((tmp_path / "results").glob("*"))


def test_gpus_that_torchrun_has_not_started_are_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(cli, "run_together", cli.run_guarded)
    assert cli.main([*OWN[2:], *SMALL, "--gpus", "2"]) == 2
    assert "--gpus is 2, but torchrun has started 3 processes; leave --gpus out." in capsys.readouterr().err


def test_the_state_of_a_run_is_named_when_the_rank_that_would_do_so_is_dead(tmp_path, monkeypatch, caplog):
    def dead(*_: object) -> None:
        (tmp_path / "state.safetensors").touch()
        raise RanksError("Rank 0 was killed (SIGKILL); …", 1)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "launch", dead)
    assert cli.main([*OWN[2:], *SMALL, "--gpus", "2", "--save-state", "state.safetensors"]) == 1
    assert "Kept: state.safetensors" in caplog.text


def test_the_launcher_leaves_alone_what_is_ignored_and_gives_back_the_rest(monkeypatch):
    def elastic_launch(config: Any, _program: str) -> Callable[..., None]:
        for name in config.signals_to_handle.split(","):
            signal.signal(getattr(signal, name), lambda *_: None)
        return lambda *_: during.extend(map(signal.getsignal, STOPS))

    during: list[Any] = []
    monkeypatch.setattr(launch, "elastic_launch", elastic_launch)
    first = {number: signal.getsignal(number) for number in STOPS}
    signal.signal(STOPS[-1], signal.SIG_IGN)
    try:
        before = [signal.getsignal(number) for number in STOPS]
        launch.launch(1, "cpu", [])
        assert during[-1] is signal.SIG_IGN and not set(during[:-1]) & set(before)
        assert [signal.getsignal(number) for number in STOPS] == before
    finally:
        for number, handler in first.items():
            signal.signal(number, handler)


def test_a_stop_that_comes_before_its_signal_is_heard_is_no_failure(monkeypatch):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "1", "RANK": "0"}.items():
            monkeypatch.setenv(name, value)
    watch = Watch(lambda error: None)
    watch._signals.setblocking(False)
    watch.report(KeyboardInterrupt())
    try:
        assert watch._look() == Ending(None, "", 130)
    finally:
        watch._signals.close()
        watch._wakeup.close()


def test_commands_that_ranks_cannot_share_are_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["replay", "a.mp4"]) == 2
    assert "`hunyuan-video replay` works in one process, but torchrun has started 2" in capsys.readouterr().err
