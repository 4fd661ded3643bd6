"""`hunyuan-video verify`: good weights pass, and every kind of wrong ones is found and named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_hub import serving
from huggingface_hub import close_session

from hunyuan_video import cli
from hunyuan_video.apps import checksums
from hunyuan_video.apps.download import download
from hunyuan_video.apps.verify import BOUND, block_differences, verify
from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.checkpoint.stored import open_transformer
from hunyuan_video.models import transformer
from hunyuan_video.weights import EMBEDDED, locate


@pytest.fixture
def tree(official_tree, tmp_path) -> Path:
    """A tree with its list of hashes."""
    root = Path(shutil.copytree(official_tree, tmp_path / "ckpts"))
    checksums.write(root, checksums.sums_of(root, checksums.files_under(root)))
    return root


def findings(root: Path, status: str) -> list[str]:
    """What `verify` found of one status; it fails exactly if something is wrong."""
    found = []
    try:
        found.extend(verify(root))  # keeps what came before the error
    except ValueError:
        failed = True
    else:
        failed = False
    assert failed == any(finding.status == "wrong" for finding in found)
    return [finding.text for finding in found if finding.status == status]


def flip(path: Path) -> None:
    """One bit, in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_good_weights_pass(tree, capsys):
    assert cli.main(["verify", str(tree)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and all(line.startswith("ok ") for line in lines)
    assert "dual-stream block: differs from Diffusers' by" in lines[4] and "have the SHA-256" in lines[6]


def test_downloaded_weights_pass(official_tree, tmp_path):
    with serving() as hub:
        hub.serve_tree(official_tree)
        list(download(tmp_path / "ckpts", endpoint=hub.endpoint))
        close_session()
    assert findings(tmp_path / "ckpts", "wrong") == []


def test_a_flipped_bit_is_found_and_named(tree):
    flip(tree / "text_encoder_2" / "model.safetensors")
    assert findings(tree, "wrong") == ["files: 1 have another SHA-256: text_encoder_2/model.safetensors"]


def test_missing_and_unlisted_files_are_named(tree):
    (tree / "text_encoder" / "generation_config.json").unlink()
    sums = checksums.read(tree)
    del sums["hunyuan-video-t2v-720p/vae/pytorch_model.pt"]
    checksums.write(tree, sums)
    missing, unlisted = findings(tree, "wrong")
    assert missing == "files: 1 are missing: text_encoder/generation_config.json"
    assert unlisted == "files: 1 are used and not listed: hunyuan-video-t2v-720p/vae/pytorch_model.pt"


def test_a_missing_part_is_named(tree, capsys):
    shutil.rmtree(tree / "text_encoder_2")
    assert cli.main(["verify", str(tree)]) == 2
    assert "text_encoder_2" in capsys.readouterr().err


def test_tensors_that_do_not_fit_are_named_in_every_part(tree):
    from safetensors.torch import load_file, save_file

    found = locate(tree)
    state = torch.load(found.transformer, weights_only=True)["module"]
    state["img_in.proj.bias"] = state["img_in.proj.bias"][1:]
    torch.save({"module": state}, found.transformer)
    file = found.vae / "pytorch_model.pt"
    torch.save({f"{name}x": tensor for name, tensor in torch.load(file, weights_only=True).items()}, file)
    for folder, lost in ((found.text_encoder, "model.embed_tokens.weight"), (found.text_encoder_2, "text_model.final_layer_norm.bias")):
        state = load_file(folder / "model.safetensors")
        save_file({name: tensor for name, tensor in state.items() if name != lost}, folder / "model.safetensors")
    wrong = findings(tree, "wrong")
    assert "img_in.proj.bias has shape" in wrong[0] and "is missing" in wrong[1]
    assert "embed_tokens.weight is missing" in wrong[2] and "final_layer_norm.bias is missing" in wrong[3]
    assert findings(tree, "skipped") == ["blocks: the transformer could not be read"]


def test_a_cut_file_is_wrong_and_the_rest_is_still_checked(tree):
    path = locate(tree).transformer
    path.write_bytes(path.read_bytes()[:-100])
    first, last = findings(tree, "wrong")
    assert "is damaged" in first and last.endswith("mp_rank_00_model_states.pt")


@pytest.mark.parametrize("layout", ["official", "diffusers", "fp8"])
def test_blocks_agree_with_diffusers_in_every_layout(tmp_path, official_tree, layout):
    (out, *_) = convert(locate(official_tree).transformer, tmp_path / ("a" if layout == "diffusers" else "a.pt"), layout)
    assert max(block_differences(open_transformer(out)).values()) < BOUND / 50


def test_queries_in_the_place_of_keys_are_found(tree, monkeypatch):
    original = transformer.split_heads

    def swapped(qkv: torch.Tensor, num_heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = original(qkv, num_heads)
        return k, q, v

    monkeypatch.setattr(transformer, "split_heads", swapped)
    dual, single = findings(tree, "wrong")
    assert "dual-stream block: differs" in dual and "single-stream block: differs" in single


def test_weights_that_are_not_numbers_are_wrong(tree):
    path = locate(tree).transformer
    state = torch.load(path, weights_only=True)["module"]
    state["single_blocks.0.linear2.bias"].fill_(torch.nan)
    torch.save({"module": state}, path)
    assert findings(tree, "wrong")[0].startswith("single-stream block: differs from Diffusers' by nan")


def test_without_diffusers_that_half_is_skipped_and_the_rest_passes(tree, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models.transformers.transformer_hunyuan_video", None)
    (text,) = findings(tree, "skipped")
    assert "Diffusers is not installed" in text and "pip install diffusers" in text


# --- The list of hashes ---


def test_without_a_list_the_files_are_not_checked_and_it_is_said(official_tree):
    assert findings(official_tree, "wrong") == []
    (text,) = findings(official_tree, "skipped")
    assert "there is no" in text and "hunyuan-video download" in text and "verify --write" in text


def test_a_list_is_written_for_weights_from_elsewhere_and_never_over_another(tmp_path, capsys):
    convert(EMBEDDED, tmp_path / "model", "diffusers")
    assert cli.main(["verify", str(tmp_path / "model"), "--write"]) == 0
    assert "are now listed in" in capsys.readouterr().out
    assert findings(tmp_path / "model", "wrong") == []
    assert cli.main(["verify", str(tmp_path / "model"), "--write"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_wrong_weights_are_not_listed_as_they_are(official_tree, tmp_path):
    root = Path(shutil.copytree(official_tree, tmp_path / "ckpts"))
    (root / "text_encoder" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="Not all is right"):
        list(verify(root, write=True))
    assert not (root / checksums.NAME).exists()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_sha256sum_reads_the_list(tree):
    subprocess.run(["sha256sum", "--check", "--strict", checksums.NAME], cwd=tree, check=True, capture_output=True)


def test_a_damaged_list_is_refused_with_the_line(tree):
    with (tree / checksums.NAME).open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(ValueError, match=r"Line \d+ of .*SHA256SUMS is no SHA-256 and file name"):
        list(verify(tree))
