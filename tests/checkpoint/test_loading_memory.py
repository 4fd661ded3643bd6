"""Loading takes little more memory than what is loaded, on a checkpoint of gigabytes with every official name."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig

MB = 10**6

# In a process of its own, whose high-water mark is the loading's. Pages of mapped files count.
LOAD = """
import re, sys
from pathlib import Path
import torch
from hunyuan_video import checkpoint
from hunyuan_video.transforms import fp8

def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = status("VmRSS")
model = checkpoint.load_transformer(Path(sys.argv[1]), getattr(torch, sys.argv[2]), torch.device("cpu"))
if sys.argv[3] == "fp8":
    fp8.quantize(model)
print(status("VmHWM") - before, sum(tensor.nbytes for tensor in model.state_dict().values()))
"""


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.3 GB in bfloat16: all 60 blocks at 0.3 of their width, written tensor by tensor."""
    with torch.device("meta"):
        state = HunyuanVideoTransformer(TransformerConfig(hidden_size=896, num_heads=7)).bfloat16().state_dict()
    header, position = {}, 0
    for name, tensor in state.items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [position, position + tensor.nbytes]}
        position += tensor.nbytes
    text = json.dumps(header).encode()
    path = tmp_path_factory.mktemp("large") / "transformer.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in state.values():
            torch.full((tensor.numel(),), 0.01, dtype=torch.bfloat16).view(torch.uint8).numpy().tofile(file)
    return path


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(("dtype", "kind"), [("bfloat16", "plain"), ("float32", "plain"), ("bfloat16", "fp8")])
def test_loading_takes_at_most_the_file_and_300_mb_over_the_final_size(large_file: Path, dtype: str, kind: str):
    assert large_file.stat().st_size > 2e9
    command = [sys.executable, "-c", LOAD, str(large_file), dtype, kind]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    peak, final = map(int, result.stdout.split())
    assert peak < final + large_file.stat().st_size + 300 * MB
    if (dtype, kind) == ("bfloat16", "plain"):
        assert peak < 300 * MB + final  # mapped, not copied
