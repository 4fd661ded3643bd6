"""Two gloo ranks load together, and the second has no weights of its own: its files are empty."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from loading_ranks import SMALL, everything, loaders, work
from spawn import on_ranks

from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.checkpoint.lazy import Lazy
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.weights import locate

MODELS = ("transformer", "8 bits", "vae", "text")


@pytest.fixture(scope="module")
def folder(official_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("ranks")
    tree = folder / "tree0"
    shutil.copytree(official_tree, tree)
    transformer = locate(tree).transformer
    convert(transformer, transformer.with_name("model_fp8.pt"), "fp8")
    (tree / "damaged.pt").write_bytes(transformer.read_bytes()[:-1000])
    torch.save({"conv_in.conv.weight": torch.zeros(1)}, tree / "another.pt")
    shutil.copytree(tree, folder / "tree1")
    for suffix in (".pt", ".safetensors"):
        for file in (folder / "tree1").rglob(f"*{suffix}"):
            file.write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    """What both ranks got, run once for all claims."""
    return on_ranks(work, 2, folder)


@pytest.mark.parametrize("name", MODELS)
def test_both_ranks_have_the_model_that_one_process_loads(folder: Path, ranks: list[dict[str, Any]], name: str):
    expected = everything(loaders(folder / "tree0")[name]())
    for found in ranks:
        assert found[name].keys() == expected.keys()
        for key, tensor in expected.items():
            assert found[name][key].dtype == tensor.dtype
            assert torch.equal(found[name][key].float(), tensor.float()), key


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("absent", "FileNotFoundError: There is no weight file"),
        ("damaged", "damaged or not a checkpoint"),
        ("another", "does not fit the model"),
        ("unreadable", "ValueError: the disk is broken"),
    ],
)
def test_what_fails_on_the_rank_that_reads_fails_on_all_with_the_same_words(ranks: list[dict[str, Any]], name: str, sentence: str):
    first, second = (found[name] for found in ranks)
    assert sentence in first and first.replace("tree0", "") == second.replace("tree1", "").replace("tree0", "")


def test_an_error_that_no_other_process_can_make_again_arrives_in_words(ranks: list[dict[str, Any]]):
    assert [found["unsendable"] for found in ranks] == ["UnsendableError: the disk: is broken"] * 2


def test_what_is_drawn_once_is_the_first_ranks(ranks: list[dict[str, Any]]):
    assert [found["one number"] for found in ranks] == [5, 5]
    assert [found["inside another"] for found in ranks] == [6, 6]


def test_a_whole_pipeline_is_loaded_by_all_and_makes_the_same_video(folder: Path, ranks: list[dict[str, Any]]):
    pipe = HunyuanVideo.load(folder / "tree0")
    expected = pipe("A cat.", SMALL).latents
    for found in ranks:
        model, latents = found["whole model"]
        assert model == pipe.origin.model
        torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)  # by another number of threads


def test_of_a_model_to_be_sharded_only_rank_0_has_numbers(ranks: list[dict[str, Any]]):
    assert [found["devices before sharding"] for found in ranks] == [["cpu"], ["meta"]]


def test_a_pickled_lazy_tensor_is_its_shape_and_dtype():
    copy = pickle.loads(pickle.dumps(Lazy.of(torch.ones(2, 3))))
    assert (copy.shape, copy.dtype) == ((2, 3), torch.float32)
    assert copy.read().is_meta
