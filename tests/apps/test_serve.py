"""What `serve` refuses before it starts anything, and how it starts workers."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hunyuan_video import cli, weights
from hunyuan_video.apps import serve
from hunyuan_video.apps.supervisor import Child
from hunyuan_video.commands.common import Which
from hunyuan_video.commands.flags import flags_of
from hunyuan_video.commands.serving import Serve, Worker
from hunyuan_video.config import Limits, Place, Runtime

KEY = "a-key-of-somebody"


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["serve", *arguments]) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_other_addresses_need_keys(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("HUNYUAN_VIDEO_API_KEYS", raising=False)
    assert "there are no keys; give --api-key-file" in refusal(["--host", host, "--data", str(tmp_path / "new")], capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_this_machines_own_address_needs_none(host: str) -> None:
    assert serve.rules_of(weights.locate(weights.EMBEDDED), host, "").keys == {}


def test_an_address_that_is_taken_is_said_before_anything_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "choose another --port" in refusal(["--port", str(port), "--data", str(tmp_path / "new")], capsys)
    assert not (tmp_path / "new").exists()


def test_a_database_that_does_not_answer_is_named_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["--database", "postgresql+psycopg://ann:secret@127.0.0.1:1/videos", "--port", "18999"], capsys)
    assert "postgresql+psycopg://ann:***@127.0.0.1:1/videos does not answer" in said and "secret" not in said


@pytest.mark.parametrize(
    "settings",
    [
        Serve(),
        Worker(name="w1", gpus=2),
        Serve(
            port=9000,
            place=Place(Path("a b"), "postgresql+psycopg://host/name", "s3://bucket/videos"),
            workers=3,
            webhook_host=("a.example", "b.example"),
            limits=Limits(max_frames=33),
            runtime=Runtime(fp8=True, vae_tiling=False, dtype="bfloat16"),
            which=Which(Path("ckpts")),
        ),
    ],
)
def test_flags_mean_the_settings_that_they_are_made_of(settings: Serve | Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    from hunyuan_video.apps.parse import parse

    for name, value in settings.place.environment.items():
        monkeypatch.setenv(name, value)
    assert parse(type(settings), flags_of(settings), "test") == settings


def test_no_command_line_of_a_child_has_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[Child] = []
    monkeypatch.setattr(serve, "_checked", lambda *_: None)
    monkeypatch.setattr(serve, "supervise", lambda _, started: children.extend(started))
    database, files = "postgresql+psycopg://ann:secret@db.example/videos", "s3://key:secret@bucket/videos"
    Serve(place=Place(tmp_path, database, files), runtime=Runtime(device="cpu")).run()
    assert [child.is_worker for child in children] == [False, True]
    for child in children:
        assert "secret" not in " ".join(child.command)
        assert child.environment.items() >= {"HUNYUAN_VIDEO_DATABASE": database, "HUNYUAN_VIDEO_FILES": files}.items()


def test_workers_share_gpus_and_more_than_there_are_gpus_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_visible_gpus", lambda: ["0", "1", "2", "3"])
    assert serve.shares_of(2, 2, "auto") == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    assert serve.shares_of(1, 4, "auto") == [{}]
    with pytest.raises(ValueError, match="3 workers with 2 GPUs each need 6, but this machine has 4"):
        serve.shares_of(3, 2, "auto")


def test_the_supervisor_and_the_api_import_no_torch() -> None:
    code = "import sys, uvicorn, hunyuan_video.apps.serve, hunyuan_video.serving.api; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
