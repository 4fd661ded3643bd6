"""Files from strangers: each is refused with one sentence, quickly, and no code of theirs runs."""

from __future__ import annotations

import io
import json
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, randomize
from safetensors.torch import save

from hunyuan_video import checkpoint
from hunyuan_video.checkpoint.convert import write_pickle
from hunyuan_video.checkpoint.lora import read_lora
from hunyuan_video.models.transformer import HunyuanVideoTransformer

SENTINEL = "exploded"


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path(SENTINEL),))


class Builtin:
    def __reduce__(self):
        return (exec, (f"open({SENTINEL!r}, 'w').close()",))


def saved(content: object, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def tensors() -> dict[str, torch.Tensor]:
    return randomize(HunyuanVideoTransformer(TINY)).state_dict()


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def packed(level: int = 9) -> bytes:
    """A compressed archive, the small outside of something huge."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        archive.writestr("a/data.pkl", bytes(50_000_000))
    return file.getvalue()


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


def gguf(*, tensors: int = 1, values: int = 0, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + rest


def one_float(**changes) -> dict:
    return {"img_in.proj.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}


def claims_more(numel: int) -> bytes:
    """A tensor of a million numbers whose storage says that it has `numel`."""
    data = saved({"img_in.proj.weight": torch.ones(4)})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    storage, _, tensor = entries[pickled].rpartition(b"K\x04")  # 4 stands there as the storage's length, and as the tensor's
    entries[pickled] = storage.replace(b"K\x04", b"K" + bytes([numel])) + b"J" + struct.pack("<i", 2**20) + tensor
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "a pickle that calls a function": lambda: pickle.dumps(Bomb(), protocol=2),
    "a pickle that calls exec": lambda: pickle.dumps({"module": Builtin()}, protocol=2),
    "a bomb in an archive": lambda: saved({"module": Bomb()}),
    "a bomb among tensors": lambda: saved({"module": tensors() | {"extra": Builtin()}}),
    "a bomb in an old file": lambda: saved({"module": Bomb()}, _use_new_zipfile_serialization=False),
    "a compressed archive": packed,
    "a truncated archive": lambda: saved(tensors())[:50_000],
    "an archive without its end": lambda: saved(tensors())[:-30],
    "an archive with flipped bits in its pickle": lambda: flipped(saved(tensors()), 200),
    "a tensor beyond its storage": lambda: claims_more(4),
    "a tensor of a storage that has nothing": lambda: claims_more(0),
    "a list": lambda: saved([torch.ones(1)]),
    "tensors that are numbers": lambda: saved({"module": {"img_in.proj.weight": 1}}),
    "a wrapper around a number": lambda: saved({"module": 3}),
    "a sparse tensor": lambda: saved({"img_in.proj.weight": torch.eye(3).to_sparse()}),
    "a truncated safetensors file": lambda: save(tensors())[:50_000],
    "a header that claims everything": lambda: struct.pack("<Q", 2**63) + b"{" + bytes(64),
    "a header of a hundred megabytes": lambda: safetensors(b"{" + b" " * 100_000_000 + b"}"),
    "a header with flipped bits": lambda: flipped(save(tensors()), 20),
    "a header that is no JSON": lambda: safetensors(b"{" * 1000),
    "a header nested without end": lambda: safetensors(b'{"a":' * 100_000),
    "offsets outside the file": lambda: safetensors(one_float(data_offsets=[0, 2**40]), bytes(4)),
    "offsets that overlap": lambda: safetensors(one_float() | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}}, bytes(6)),
    "a negative shape": lambda: safetensors(one_float(shape=[-1]), bytes(4)),
    "a shape beyond all numbers": lambda: safetensors(one_float(shape=[2**62, 2**62]), bytes(4)),
    "an unknown dtype": lambda: safetensors(one_float(dtype="EVIL"), bytes(4)),
    "GGUF with endless tensors": lambda: gguf(tensors=2**60),
    "GGUF with endless metadata": lambda: gguf(values=2**60),
    "GGUF with an endless string": lambda: gguf(values=1, rest=struct.pack("<Q", 2**60)),
    "GGUF with an endless array": lambda: gguf(values=1, rest=struct.pack("<Q1sIIQ", 1, b"a", 9, 0, 2**60)),
    "GGUF with an unknown type": lambda: gguf(values=1, rest=struct.pack("<Q1sI", 1, b"a", 77)),
    "GGUF with a tensor beyond the file": lambda: gguf(rest=struct.pack("<Q1sI2QIQ", 1, b"a", 2, 2**40, 2**40, 0, 0)),
    "GGUF that ends at once": lambda: b"GGUF\3\0\0\0\1",
    "GGUF from the future": lambda: gguf(version=900),
    "a pointer of Git LFS": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 25642\n",
    "a web page": lambda: b"<!DOCTYPE html><html><body>401 Unauthorized</body></html>",
    "noise": lambda: bytes(range(256)) * 16,
    "nothing": lambda: b"",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_a_bad_file_is_refused_with_a_sentence_in_no_time_and_runs_nothing(folder, kind, name):
    if kind.startswith("GGUF"):
        pytest.importorskip("gguf", reason="the extra gguf is not installed")
    (folder / name).write_bytes(FILES[kind]())
    for read in (lambda path: checkpoint.load_transformer(path, torch.float32, torch.device("cpu")), lambda path: read_lora(path, TINY)):
        start = time.process_time()
        with pytest.raises(ValueError, match=r"^[^\n]*a\.(safetensors|pt) [^\n]*\.$"):
            read(folder / name)
        assert time.process_time() - start < 0.5
    assert not (folder / SENTINEL).exists()


def test_the_bombs_are_real(folder):
    """Unpickled as Python does it, each of them would have gone off."""
    for bomb in (Bomb(), Builtin()):
        pickle.loads(pickle.dumps(bomb))
        (folder / SENTINEL).unlink()


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/hostname", "a/b.safetensors"])
def test_an_index_cannot_point_outside_its_folder(folder, shard):
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        checkpoint.load_transformer(folder, torch.float32, torch.device("cpu"))


def test_json_nested_without_end_is_refused(folder):
    (folder / "config.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        checkpoint.read_json(folder / "config.json")


def test_a_model_of_ten_thousand_blocks_is_refused_before_it_is_built(folder):
    state = tensors()
    norm = state["single_blocks.0.q_norm.weight"]
    torch.save(state | {f"single_blocks.{i}.q_norm.weight": norm for i in range(10_000)}, folder / "a.pt")
    with pytest.raises(ValueError, match="its sizes make no sense"):
        checkpoint.load_transformer(folder / "a.pt", torch.float32, torch.device("cpu"))


def test_what_we_write_ourselves_is_not_refused(folder):
    from hunyuan_video.checkpoint.lazy import Lazy

    state = tensors()
    write_pickle({"module": {name: Lazy.of(tensor) for name, tensor in state.items()}}, folder / "a.pt")
    assert checkpoint.load_transformer(folder / "a.pt", torch.float32, torch.device("cpu")).config == TINY
