"""Weights where they lie: files larger than memory open, use no memory of their own, and are never written to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sparse_files
import torch
from safetensors.torch import save, save_file
from torch import nn

from hunyuan_video import checkpoint
from hunyuan_video.checkpoint.reading import read_state_dict

CPU = torch.device("cpu")
GB = 10**9
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    numbers = torch.arange(24.0)
    return {
        "a": numbers, "b": numbers.bfloat16().view(4, 6), "c": numbers.half(), "d": numbers.to(torch.float8_e4m3fn).view(2, 12),
        "e": numbers.long(), "f": torch.empty(0, 3), "g": torch.tensor(7.0),
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_every_tensor_is_what_was_written(tmp_path, state, suffix):
    path = tmp_path / f"a{suffix}"
    torch.save(state, path) if suffix == ".pt" else save_file(state, path)
    found = read_state_dict(path)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name].float(), tensor.float())


def test_views_of_one_storage_stay_so(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    torch.save({"whole": whole, "transposed": whole.t(), "row": whole[1]}, tmp_path / "a.pt")
    found = read_state_dict(tmp_path / "a.pt")
    assert torch.equal(found["transposed"], whole.t()) and torch.equal(found["row"], whole[1])
    assert found["row"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()


def test_numbers_at_odd_addresses_are_read(tmp_path):
    data = save({"a": torch.arange(6.0)})
    length = int.from_bytes(data[:8], "little")
    padded = (length + 3).to_bytes(8, "little") + data[8 : 8 + length] + b"   " + data[8 + length :]
    (tmp_path / "a.safetensors").write_bytes(padded)
    assert read_state_dict(tmp_path / "a.safetensors")["a"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_written_to_a_tensor_never_reaches_the_file(tmp_path, suffix):
    path, ones = tmp_path / f"a{suffix}", {"a": torch.ones(5000)}
    torch.save(ones, path) if suffix == ".pt" else save_file(ones, path)
    before = path.read_bytes()
    found = read_state_dict(path)["a"]
    assert found.mul_(3).sum() == 15_000
    assert path.read_bytes() == before


@needs_proc
@pytest.mark.parametrize("save", [sparse_files.save_safetensors, sparse_files.save_pt], ids=["safetensors", "pt"])
def test_a_file_of_twice_this_machine_opens(tmp_path, save):
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    rows = 2 * memory // 2**20 // 4 + 1
    state = {f"{i}": torch.empty(rows, 2**19, dtype=torch.bfloat16, device="meta") for i in range(4)}
    path = save(state, tmp_path / "a")
    assert path.stat().st_size > 2 * memory
    found = read_state_dict(path)
    assert found.get("module", found)["3"][-1, -1] == 0


def own_memory() -> int:
    """Bytes of this process that are in no file."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def load(path: Path) -> nn.Module:
    if path.name != "text_encoder":
        return checkpoint.load_transformer(path, torch.bfloat16, CPU, as_stored=True)
    llm, state = checkpoint.read_llm(path)
    checkpoint.fill(llm, state, path, torch.bfloat16, CPU, as_stored=True)
    return llm


@needs_proc
@pytest.mark.parametrize(
    ("name", "make", "size"),
    [
        ("official.pt", lambda path: sparse_files.save_pt(sparse_files.released(), path), 25.6),
        ("comfyui.safetensors", lambda path: sparse_files.save_safetensors(sparse_files.released(), path), 25.6),
        ("diffusers", sparse_files.save_diffusers, 25.6),
        ("fp8.pt", sparse_files.save_fp8, 13.2),
        ("text_encoder", sparse_files.save_llama, 14.1),
    ],
)
def test_the_released_sizes_take_no_memory_of_their_own(tmp_path, name, make, size):
    path = make(tmp_path / name)
    assert checkpoint.stays_in_file(path, CPU)
    before = own_memory()
    model = load(path)
    own, used = own_memory() - before, sum(tensor.nbytes for tensor in model.state_dict().values())
    print(f"{name}: {used / GB:.1f} GB of weights, RssAnon {own / GB:.2f} GB")
    assert used / GB == pytest.approx(size, abs=0.1)
    assert own < 0.2 * GB


def test_a_limit_on_the_address_space_is_said_with_the_file(tmp_path):
    path = sparse_files.save_safetensors({"a": torch.empty(2**33, dtype=torch.bfloat16, device="meta")}, tmp_path / "a.safetensors")
    program = (
        "import resource; from pathlib import Path; from hunyuan_video.checkpoint.reading import read_state_dict\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); read_state_dict(Path({str(path)!r}))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert re.search(rf"OSError: .*memory.*{re.escape(str(path))}", result.stderr)
