"""`hunyuan-video data curate`, as it is typed, and killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_llm import serving
from footage_files import QUICK, film, moving

from hunyuan_video import cli

SAID = {"short": "Squares move.", "dense": "Many squares move to the left.", "lighting": "Even."}


@pytest.fixture
def footage(tmp_path) -> Path:
    (tmp_path / "footage").mkdir()
    film(tmp_path / "footage" / "a.mp4", moving(1, 24, speed=2), moving(2, 20, speed=2))
    (tmp_path / "quick.toml").write_text(QUICK)
    return tmp_path / "footage"


def arguments(footage: Path, *more: str, out: str = "out") -> list[str]:
    thresholds = str(footage.parent / "quick.toml")
    return ["data", "curate", str(footage), "--out", str(footage.parent / out), "--thresholds", thresholds, *(more or ("--workers", "1"))]


def test_footage_becomes_clips_with_words_that_data_prepare_makes_texts_of(footage, capsys, monkeypatch):
    monkeypatch.setenv("HUNYUAN_VIDEO_CAPTION_KEY", "secret")
    with serving(json.dumps(SAID)) as llm:
        assert cli.main(arguments(footage, "--caption-url", llm.url, "--caption-model", "seeing")) == 0
    assert "| **kept** | 2 | 2 |" in capsys.readouterr().out and llm.headers[0]["Authorization"] == "Bearer secret"
    rows = [json.loads(line) for line in (footage.parent / "out" / "low.jsonl").read_text().splitlines()]
    assert [row["caption"]["dense"] for row in rows] == [SAID["dense"]] * 2
    assert cli.main(["data", "prepare", str(footage.parent / "out" / "low.jsonl"), "--out", "x", "--buckets", "17x64x64", "--dry-run"]) == 0
    assert "| 17x64x64 | 2 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--workers", "0"], "workers is 0; it must be 1 or more."),
        (["--caption-url", "http://localhost:1/v1"], "captions need both"),
        (["--caption-url", "ftp://x", "--caption-model", "a"], "caption_url is 'ftp://x'"),
        (["--embedder", "gone.onnx"], "gone.onnx does not exist"),
    ],
)
def test_a_wrong_request_is_a_sentence(footage, more, sentence, capsys):
    assert cli.main(arguments(footage, *more)) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(("module", "name"), [("cv2", "curate"), ("nudenet", "curate-unsafe")])
def test_a_missing_package_names_its_extra(module, name, monkeypatch):
    from hunyuan_video.curation.extras import extra

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module}, .* pip install 'hunyuan-video\[{name}\]'"):
        extra(module)


def tree(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name[0] != "."}


def known(out: Path) -> int:
    """So many lines of the ledger are written."""
    return sum(path.read_bytes().count(b"\n") for path in (out / "ledger").glob("*"))


@pytest.mark.slow
def test_killed_again_and_again_it_makes_the_same(footage):
    """The whole command with all of its processes, and the thresholds as they are; each time it gets some lines further."""
    for number in range(2, 5):
        film(footage / f"{number}.mp4", moving(number, 70, 2, 256, 256), moving(number + 10, 70, 3, 256, 256))
    command = [sys.executable, "-m", "hunyuan_video", "data", "curate", str(footage), "--workers", "2", "--out"]
    subprocess.run([*command, str(footage.parent / "whole")], check=True)
    draw, kills, killed = random.Random(1), 0, footage.parent / "killed"
    while True:
        far = known(killed) + draw.randint(1, 5)
        process = subprocess.Popen([*command, str(killed)], start_new_session=True)
        while process.poll() is None and known(killed) < far:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0 and kills >= 2
    assert tree(footage.parent / "killed") == tree(footage.parent / "whole")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="which children a process has is read from /proc")
def test_workers_end_with_a_command_that_is_killed(footage):
    process = subprocess.Popen([sys.executable, "-m", "hunyuan_video", *arguments(footage)], start_new_session=True)
    started = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 120
    while len(started.read_text().split()) < 2 and time.monotonic() < deadline:  # a worker, and what looks after its semaphores
        time.sleep(0.05)
    children = [int(child) for child in started.read_text().split()]
    process.kill()
    process.wait()
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(children) == 2 and not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.slow
def test_ray_data_makes_the_same_as_processes(footage):
    pytest.importorskip("ray")
    assert cli.main(arguments(footage)) == 0
    assert cli.main(arguments(footage, "--ray", out="ray")) == 0
    assert tree(footage.parent / "ray") == tree(footage.parent / "out")
