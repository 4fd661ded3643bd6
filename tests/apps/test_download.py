"""`hunyuan-video download`: what is needed and no more, whole or with a sentence that says why not."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_hub import FakeHub, serving
from filelock import FileLock
from huggingface_hub import close_session, constants

from hunyuan_video import cli, weights
from hunyuan_video.apps import checksums
from hunyuan_video.apps.download import download

TRANSFORMERS = "hunyuan-video-t2v-720p/transformers"
TRANSFORMER = f"{TRANSFORMERS}/mp_rank_00_model_states.pt"
NEEDED = {
    TRANSFORMER,
    "hunyuan-video-t2v-720p/vae/config.json",
    "hunyuan-video-t2v-720p/vae/pytorch_model.pt",
    *(f"text_encoder/{name}" for name in ("config.json", "model.safetensors", "model.safetensors.index.json")),
    *(f"text_encoder_2/{name}" for name in ("config.json", "model.safetensors", "vocab.json", "merges.txt")),
    *(f"{folder}/{name}" for folder in ("text_encoder", "text_encoder_2") for name in ("tokenizer.json", "tokenizer_config.json")),
}


@pytest.fixture
def hub(official_tree) -> Iterator[FakeHub]:
    with serving() as hub:
        hub.serve_tree(official_tree)
        yield hub
        close_session()


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "ckpts"


def fetch(hub: FakeHub, root: Path, **options: bool) -> str:
    return "\n".join(download(root, endpoint=hub.endpoint, **options))


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")}


def test_only_the_needed_files_are_fetched(hub, root, official_tree):
    fetch(hub, root)
    assert files(root) == NEEDED | {"SHA256SUMS"} and {name for name, _ in hub.fetched} == {
        Path(name).name if "text" in name else name for name in NEEDED
    }
    assert (root / TRANSFORMER).read_bytes() == (official_tree / TRANSFORMER).read_bytes()


def test_the_image_to_video_model_comes_with_its_llava_and_its_loras(hub, root, image_tree):
    hub.serve_i2v_tree(image_tree())
    fetch(hub, root, i2v=True)
    model = "hunyuan-video-i2v-720p"
    of_model = {name.replace("hunyuan-video-t2v-720p", model).replace("text_encoder/", "text_encoder_i2v/") for name in NEEDED}
    assert files(root) == of_model | {f"{model}/lora/embrace_kohaya_weights.safetensors", "SHA256SUMS"}
    assert checksums.read(root).keys() == files(root) - {"SHA256SUMS"}
    assert weights.find(root).sees and "Nothing was fetched" in fetch(hub, root, i2v=True)


def test_8_bits_come_instead_of_bfloat16(hub, root):
    fetch(hub, root, fp8=True)
    assert {path.name for path in (root / TRANSFORMERS).iterdir()} == {
        "mp_rank_00_model_states_fp8.pt",
        "mp_rank_00_model_states_fp8_map.pt",
    }


def test_files_sizes_and_licences_are_said_before_anything_is_fetched(hub, root):
    lines = download(root, endpoint=hub.endpoint)
    said = [next(lines) for _ in range(len(NEEDED) + 2)]
    assert f"GB are to be fetched from {hub.endpoint} into {root}:" in said[0]
    assert all(any(name in line for line in said) for name in NEEDED) and "Tencent Hunyuan Community License" in said[-1]
    assert hub.fetched == []


def test_every_file_is_listed_with_its_hash(hub, root):
    fetch(hub, root)
    assert checksums.read(root) == checksums.sums_of(root, NEEDED)


def test_a_broken_download_goes_on_where_it_stopped(hub, root, official_tree, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10)  # what is kept when a connection breaks are whole chunks
    hub.cut_after = 105
    with pytest.raises(OSError, match=r"failed at openai/clip-vit-large-patch14 \(HTTP 503\); run the same command again: it goes on"):
        fetch(hub, root)
    hub.refusal = None
    hub.fetched.clear()
    fetch(hub, root)
    assert [entry for entry in hub.fetched if entry[1]] == [("model.safetensors", "bytes=100-")]
    assert (root / "text_encoder_2/model.safetensors").read_bytes() == (official_tree / "text_encoder_2/model.safetensors").read_bytes()
    assert files(root) == NEEDED | {"SHA256SUMS"}


def test_a_file_that_arrives_damaged_is_named_deleted_and_fetched_anew(hub, root):
    hub.damaged = {TRANSFORMER}
    with pytest.raises(OSError, match=rf"{TRANSFORMER} arrived damaged and was deleted \(its SHA-256"):
        fetch(hub, root)
    assert files(root) == NEEDED - {TRANSFORMER} | {"SHA256SUMS"}
    hub.damaged = set()
    hub.fetched.clear()
    fetch(hub, root)
    assert hub.fetched == [(TRANSFORMER, None)]


def test_too_little_disk_is_refused_before_a_byte_is_fetched(hub, root, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"GB of .* GB are still to be fetched into .*ckpts, whose disk has 0\.0 GB free; make room"):
        fetch(hub, root)
    assert hub.fetched == [] and not root.exists()


def test_what_is_there_already_needs_no_disk(hub, root, monkeypatch):
    fetch(hub, root)
    size = (root / TRANSFORMER).stat().st_size
    (root / TRANSFORMER).rename(root / f"{TRANSFORMER}.part")
    os.truncate(root / f"{TRANSFORMER}.part", size - 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    fetch(hub, root)
    assert hub.fetched[-1] == (TRANSFORMER, f"bytes={size - 1000}-")


def test_complete_weights_are_not_fetched_again(hub, root):
    fetch(hub, root)
    hub.fetched.clear()
    assert f"is complete: {len(NEEDED)} files" in fetch(hub, root) and hub.fetched == []


def test_files_from_elsewhere_are_compared_and_listed(hub, root, official_tree):
    shutil.copytree(official_tree, root)
    fetch(hub, root)
    assert {name for name, _ in hub.fetched} == {"model.safetensors.index.json", "vocab.json", "merges.txt"}
    assert checksums.read(root).keys() == NEEDED


@pytest.mark.parametrize("change", [lambda content: content + b"x", lambda content: bytes([content[0] ^ 1]) + content[1:]])
def test_another_file_in_the_way_is_refused_and_stays(hub, root, official_tree, change):
    shutil.copytree(official_tree, root)
    mine = change((root / TRANSFORMER).read_bytes())
    (root / TRANSFORMER).write_bytes(mine)
    with pytest.raises(FileExistsError, match=rf"{TRANSFORMER} is there and is not the present file of tencent/HunyuanVideo; move it away"):
        fetch(hub, root)
    assert (root / TRANSFORMER).read_bytes() == mine and hub.fetched == []


def test_a_listed_file_is_not_replaced_either(hub, root):
    fetch(hub, root)
    (root / TRANSFORMER).write_bytes(b"mine")
    checksums.write(root, checksums.read(root) | checksums.sums_of(root, [TRANSFORMER]))  # as `verify --write` does
    with pytest.raises(FileExistsError, match="is not the present file of tencent/HunyuanVideo; move it away"):
        fetch(hub, root)
    assert (root / TRANSFORMER).read_bytes() == b"mine"


def test_small_files_are_checked_too(hub, root, official_tree):
    shutil.copytree(official_tree, root)
    config = root / "text_encoder/config.json"
    config.write_bytes(bytes([config.read_bytes()[0] ^ 1]) + config.read_bytes()[1:])
    with pytest.raises(FileExistsError, match=r"config\.json is there and is not the present file of xtuner"):
        fetch(hub, root)


def test_a_second_download_into_the_same_folder_waits_for_nothing_and_is_refused(hub, root):
    root.mkdir()
    with FileLock(root / ".download.lock"), pytest.raises(BlockingIOError, match="Another download into"):
        fetch(hub, root)
    assert hub.fetched == []


# --- Refusals ---


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "GatedRepo", "is gated: accept its terms at"),
        (401, "RepoNotFound", r"does not give out openai/clip-vit-large-patch14 \(HTTP 401\)"),
        (404, "", r"does not give out openai/clip-vit-large-patch14 \(HTTP 404\)"),
        (500, "", r"failed at openai/clip-vit-large-patch14 \(HTTP 500\); run the same command again"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(hub, root, status, code, words):
    hub.refusal = status, code
    with pytest.raises(OSError, match=words):
        fetch(hub, root)


def test_a_network_that_wants_a_login_is_recognized(hub, root):
    hub.page = b"<html>log in</html>"
    with pytest.raises(ValueError, match="did not answer as a Hugging Face hub does"):
        fetch(hub, root)


def test_a_mirror_without_sizes_is_no_hub(hub, root, monkeypatch):
    monkeypatch.setattr(hub, "listing", lambda repo: b'{"id": "a/b", "sha": "0", "siblings": [{"rfilename": "config.json"}]}')
    with pytest.raises(ValueError, match="did not answer as a Hugging Face hub does"):
        fetch(hub, root)


@pytest.mark.parametrize("endpoint", ["hf-mirror.com", "http://[bad", ""])
def test_an_endpoint_that_is_no_address_is_refused(root, monkeypatch, endpoint):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(ValueError, match="it must be the address of a Hugging Face hub"):
        list(download(root))


def test_a_repository_without_a_needed_file_is_named(hub, root):
    del hub.repos["tencent/HunyuanVideo"][TRANSFORMER]
    with pytest.raises(FileNotFoundError, match=r"tencent/HunyuanVideo at .* has no file like"):
        fetch(hub, root)


def test_offline_mode_is_said(hub, root, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=rf"HF_HUB_OFFLINE is set, so nothing is fetched from {hub.endpoint}; unset it"):
        fetch(hub, root)


def test_without_a_network_one_sentence_names_the_endpoint(root, monkeypatch, capsys):
    with socket.socket() as taken:  # a port that nobody listens at
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        assert cli.main(["download", "--to", str(root)]) == 2
    close_session()
    message = capsys.readouterr().err
    assert message.startswith(f"hunyuan-video: No connection to {endpoint}") and "mirror" in message and message.count("\n") == 1


def test_the_command_follows_hf_endpoint_and_imports_no_torch(hub, root):
    code = "import sys; from hunyuan_video import cli; sys.exit(cli.main(sys.argv[1:]) or 9 * ('torch' in sys.modules))"
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "MODEL_BASE": str(root)}
    result = subprocess.run([sys.executable, "-c", code, "download"], env=environment, capture_output=True, text=True)
    assert (result.returncode, files(root)) == (0, NEEDED | {"SHA256SUMS"}), result.stderr
    assert "is complete" in result.stdout.splitlines()[-1]
