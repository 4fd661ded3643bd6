"""In a real ComfyUI, where $COMFYUI_PATH names one; $COMFYUI_PYTHON is its Python, with this package in it (default: this one)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import workflows

HERE = Path(__file__).parent
PACK = HERE.parents[1] / "comfyui"
MANIFESTS = HERE.parent / "data" / "manifests"
COMFYUI = os.environ.get("COMFYUI_PATH")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(COMFYUI is None, reason="no ComfyUI: $COMFYUI_PATH names none")]


def inside(what: str, *arguments: Path) -> dict:
    """What `in_comfyui.py` finds out."""
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    ran = subprocess.run([python, HERE / "in_comfyui.py", str(COMFYUI), what, *arguments], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_comfyui_builds_a_model_of_our_names_and_shapes():
    found = inside("names", MANIFESTS / "dit_hyvideo_t2_cfgdistill.json", MANIFESTS / "vae_884_16c.json")
    assert found == {"model": "HunyuanVideo", "same": True, "count": 856, "vae_channels": 16}


def test_comfyui_runs_a_workflow(comfy, tmp_path):
    workflow = workflows.read(PACK / "example_workflows" / "text_to_video.json")
    prompt = workflows.as_prompt(comfy, workflow, width=64, height=64, num_frames=5, num_steps=2)
    (tmp_path / "prompt.json").write_text(json.dumps(prompt))
    (tmp_path / "output").mkdir()
    found = inside("workflow", PACK, tmp_path / "prompt.json", tmp_path / "output")
    assert found["success"]
    assert "progress_state" in found["said"]
    assert found["files"] == [str(tmp_path / "output" / "hunyuan-video" / "video_00001_.mp4")]
