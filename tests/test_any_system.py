"""Nothing is needed that Windows or macOS lack: proven here by taking it away, for the tests run on Linux alone."""

from __future__ import annotations

import ast
import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hunyuan_video import checkpoint, weights
from hunyuan_video.checkpoint.convert import convert

ROOT = Path(__file__).parent.parent
SHIPPED = [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "recipes").rglob("*.py"), ROOT / "sample_video.py"]

# Of the standard library: modules, signals and functions that exist on some systems only.
LESS = """
import mmap, os, signal, sys
for name in ("fcntl", "grp", "pwd", "readline", "resource", "syslog", "termios"):
    sys.modules[name] = None
for module, names in (
    (signal, "SIGHUP SIGKILL SIGQUIT SIGALRM SIGUSR1 SIGCHLD pthread_sigmask"),
    (os, "fork getuid geteuid sysconf sched_getaffinity posix_fallocate mkfifo pread statvfs uname"),
    (mmap, "MAP_SHARED MAP_PRIVATE MAP_ANONYMOUS PROT_READ PROT_WRITE"),
):
    for name in names.split():
        vars(module).pop(name, None)  # which this system may lack, too
sys.platform = "other"
"""


def run(code: str, folder: Path) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_module_is_imported_and_a_video_made_without_what_only_some_systems_have(tmp_path):
    code = """
import concurrent.futures.process, multiprocessing  # what others need is theirs
import av, filelock, huggingface_hub, psutil, torch, torch.distributed.checkpoint, torch.distributed.fsdp, torch.utils.tensorboard, tqdm
import alembic.command, fastapi, fsspec, gradio, httpx, prometheus_client, sqlalchemy, standardwebhooks, uvicorn
from transformers import AutoTokenizer
"""
    code += LESS
    code += """
import pkgutil, importlib, math, re
import hunyuan_video
for module in pkgutil.walk_packages(hunyuan_video.__path__, "hunyuan_video."):
    # What only runs; what Alembic runs; what needs Ray, which is for clusters.
    if not re.search(r"__main__|\\.migrations\\.|ray_workers", module.name):
        importlib.import_module(module.name)
from hunyuan_video import cli, memory
from hunyuan_video.training.run import peak_memory
from pathlib import Path
memory.MEMINFO = memory.STATUS = Path("nowhere")
assert math.isnan(peak_memory(torch.device("cpu")))
arguments = ["--num-steps", "1", "--num-frames", "5", "--height", "64", "--width", "64", "--save-state", "state.safetensors"]
assert cli.main(["generate", "A cat walks on the grass.", *arguments]) == 0
"""
    made = run(code, tmp_path).splitlines()
    assert len(made) == 1 and (tmp_path / made[0]).is_file()


def test_the_command_stops_and_ends_by_the_signals_that_there_are(tmp_path):
    code = "import signal; vars(signal).pop('SIGHUP', None); from hunyuan_video import signals as s; print(s.STOPS); s.enter(lambda: 3)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", cwd=tmp_path)
    assert result.returncode == 3 and "SIGTERM" in result.stdout and "SIGHUP" not in result.stdout


def test_an_official_file_is_written_where_pytorch_cannot_write_into_a_mapped_one(tmp_path, monkeypatch):
    monkeypatch.delattr(mmap, "MAP_SHARED", raising=False)
    source = weights.locate(weights.EMBEDDED).transformer
    (path,) = convert(source, tmp_path / "a.pt", "official")
    expected, written = (checkpoint.load_transformer(file, torch.float32, torch.device("cpu")).state_dict() for file in (source, path))
    assert all(torch.equal(expected[name], written[name]) for name in expected)


def unnamed_encodings(path: Path) -> list[str]:
    """Where text is read or written in whatever encoding the system likes, which on Windows is not UTF-8."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        match node.func:
            case ast.Attribute(attr="read_text" | "write_text"):
                found.append(f"{path}:{node.lineno}")
            case ast.Attribute(attr="open", value=ast.Name(id="av" | "Image" | "os" | "tarfile" | "wave")):
                pass
            case ast.Attribute(attr="open", value=ast.Call(func=ast.Name(id="pyav" | "build_opener"))):
                pass
            case ast.Attribute(attr="open", value=ast.Name(id="results") | ast.Attribute(attr="results" | "_results")):
                pass  # bytes, always
            case ast.Name(id="open") | ast.Attribute(attr="open"):
                given = ast.walk(ast.Tuple([*node.args, *(k.value for k in node.keywords if k.arg == "mode")]))
                modes = [part.value for part in given if isinstance(part, ast.Constant)]
                if not any(isinstance(mode, str) and "b" in mode for mode in modes):
                    found.append(f"{path}:{node.lineno}")
    return found


@pytest.mark.parametrize("code", ["Path('a').read_text()", "Path('a').write_text('é')", "open('a', 'w')", "path.open()"])
def test_a_text_without_an_encoding_is_found(code, tmp_path):
    (tmp_path / "a.py").write_text(code, encoding="utf-8")
    assert unnamed_encodings(tmp_path / "a.py")


def test_every_text_is_read_and_written_in_a_named_encoding():
    assert len(SHIPPED) > 100
    assert [place for path in SHIPPED for place in unnamed_encodings(path)] == []
