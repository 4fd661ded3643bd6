"""What docs/serving-api.md shows works as it stands there, against a server that listens."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import ANN, Served, picture

from hunyuan_video.serving.jobs import CANCELLED, CRASHED, EXPIRED, INTERNAL, NO_SPACE, OUT_OF_MEMORY, REFUSED
from hunyuan_video.serving.schema import Create

PAGE = (Path(__file__).parent.parent.parent / "docs" / "serving-api.md").read_text(encoding="utf-8")


def blocks(kind: str) -> str:
    return "".join(re.findall(rf"^```{kind}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "style.safetensors").write_bytes(b"")
    served = Served(tmp_path, loras=tmp_path / "loras", keys={})
    yield served
    served.close()


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
def test_the_python_of_the_page_runs(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with served.working(), served.listening() as address:
        names: dict[str, object] = {}
        exec(compile(blocks("python").replace("http://127.0.0.1:8000", address), "serving-api.md", "exec"), names)
        names["client"].close()  # pyright: ignore
    said = capsys.readouterr().out
    assert "completed 64x64" in said and "'seed': 42" in said and "event: completed" in said
    assert (tmp_path / "cat.mp4").stat().st_size > 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_commands_of_the_page_run(served: Served, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(picture())
    first, rest = blocks("sh").split("\nID=", 1)
    assert first.startswith("KEY=none")
    rest = re.sub(r"^AIPERF=.*\n", "", rest.partition("\n")[2], flags=re.MULTILINE)  # which runs tests of this folder
    with served.working(), served.listening() as address:

        def run(script: str, **variables: str) -> str:
            script = script.replace("http://127.0.0.1:8000", address).replace("curl -sS", "curl -sS --fail-with-body")
            done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=variables, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        made = re.findall(r"video_[0-9a-f]{32}", run(first))[0]
        said = run(rest, KEY=ANN, ID=made)
    assert "event: completed" in said and (tmp_path / "cat.mp4").stat().st_size > 0


def test_the_page_names_every_field_and_code() -> None:
    for name in Create.model_fields:
        assert f"`{name}`" in PAGE, name
    for code in (CANCELLED, CRASHED, EXPIRED, INTERNAL, NO_SPACE, OUT_OF_MEMORY, REFUSED):
        assert f"`{code}`" in PAGE, code
