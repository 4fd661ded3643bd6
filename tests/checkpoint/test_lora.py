"""LoRA files: every dialect in and out, the reference's tensors, Diffusers as the second opinion, one sentence for everything else."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from adapters import forward, random_lora
from conftest import TINY, golden_config, manifest, randomize
from diffusers_peer import KEYMAP
from safetensors.torch import load_file, save_file
from small_disk import small_disk
from torch import nn

from hunyuan_video.checkpoint.diffusers import in_diffusers
from hunyuan_video.checkpoint.lora import Dialect, read_lora, save_lora
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.transforms.lora import Lora, LowRank, add_lora, apply_lora, in_attention_and_mlp, linear_layers, lora_of, merge_lora

DIALECTS = get_args(Dialect)
QKV = "double_blocks.0.img_attn_qkv"


def save(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def assert_same(actual: Lora, expected: Lora) -> None:
    assert actual.layers.keys() == expected.layers.keys()
    for name, adapter in actual.layers.items():
        torch.testing.assert_close(adapter.delta(), expected.layers[name].delta(), atol=1e-6, rtol=1e-5)


# --- The reference ---


def test_a_merged_file_of_the_official_trainer_equals_the_reference(golden, tmp_path):
    """The reference's loader ignores alpha, which is therefore cancelled here by the strength; ours honours it."""
    reference = golden("lora_merge")
    config = golden_config(reference.info["config"])
    path = save({n.removeprefix("lora."): t for n, t in reference.tensors.items() if n.startswith("lora.")}, tmp_path / "a.safetensors")
    info = reference.info["config"]
    for kind, strength in (("std", 0.8), ("ref", 0.8 * info["rank"] / info["alpha_in_file"])):
        model = HunyuanVideoTransformer(config)
        model.load_state_dict(reference.state_dict(), strict=False)  # the golden has only what the LoRA touches
        merge_lora(model, read_lora(path, config), strength)
        changed = [name for name in reference.tensors if name.startswith(f"out.{kind}.")]
        assert len(changed) == 10
        for name in changed:
            reference.check(model.get_parameter(name.removeprefix(f"out.{kind}.")), name)


# --- Round trips ---


@pytest.mark.parametrize(("first", "second"), list(itertools.product(DIALECTS, repeat=2)))
def test_every_dialect_becomes_every_other(tiny_transformer, tmp_path, first, second):
    lora = random_lora(tiny_transformer)
    save_lora(lora, tmp_path / "a.safetensors", first, torch.float32)
    save_lora(read_lora(tmp_path / "a.safetensors", TINY), tmp_path / "b.safetensors", second, torch.float32)
    assert_same(read_lora(tmp_path / "b.safetensors", TINY), lora)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_trained_lora_and_a_fresh_one_survive_their_file(tiny_transformer, tmp_path, dialect):
    add_lora(tiny_transformer, rank=4, alpha=2.0)
    save_lora(lora_of(tiny_transformer), tmp_path / "fresh.safetensors", dialect)
    assert read_lora(tmp_path / "fresh.safetensors", TINY).layers.keys() == set(
        filter(in_attention_and_mlp, linear_layers(tiny_transformer))
    )
    for name, parameter in tiny_transformer.named_parameters():
        if name.endswith("lora_up"):
            parameter.data.normal_()
    save_lora(lora_of(tiny_transformer), tmp_path / "trained.safetensors", dialect, torch.float32)
    assert_same(read_lora(tmp_path / "trained.safetensors", TINY), lora_of(tiny_transformer))


def test_alpha_and_metadata_and_dtype_are_kept(tiny_transformer, tmp_path):
    lora = random_lora(tiny_transformer, rank=3, alpha=7.0)
    save_lora(Lora(lora.layers, {"trained_on": "cats"}), tmp_path / "a.safetensors", "kohya", torch.float16)
    again = read_lora(tmp_path / "a.safetensors", TINY)
    assert again.metadata["trained_on"] == "cats"
    assert {(adapter.alpha, adapter.rank) for adapter in again.layers.values()} == {(7.0, 3)}
    assert load_file(tmp_path / "a.safetensors")["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"].dtype == torch.float16


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("lora_unet_", QKV.replace(".", "_")), ("Hunyuan_video_I2V_lora_", QKV.replace(".", "_"))]
    + [(prefix, QKV) for prefix in ("", "diffusion_model.", "transformer.", "base_model.model.", "diffusion_model.transformer.")]
    + [("diffusion_model.", "double_blocks.0.img_attn.qkv")],
)  # fmt: skip
@pytest.mark.parametrize(("down", "up"), [("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora_A.default", "lora_B.default")])
def test_every_spelling_of_a_layer_is_known(tmp_path, prefix, name, down, up):
    factors = {f"{prefix}{name}.{down}.weight": torch.ones(2, 32), f"{prefix}{name}.{up}.weight": torch.ones(96, 2)}
    lora = read_lora(save(factors, tmp_path / "a.safetensors"), TINY)
    assert lora.layers.keys() == {QKV} and lora.layers[QKV].scale == 1  # without alpha


# --- Diffusers ---


def test_names_and_rows_in_diffusers_are_the_published_ones():
    published: dict[str, dict[str, list[list[int]]]] = {}
    shapes = manifest("dit_hyvideo_t2_cfgdistill")
    for target, entry in json.loads(KEYMAP.read_text())["map"].items():
        if len(shape := shapes[entry["from"]]) == 2:
            published.setdefault(entry["from"], {})[target] = entry.get("rows", [[0, shape[0]]])
    assert len(published) == 343  # 320 in the blocks
    for name, expected in published.items():
        pieces = in_diffusers(name.removesuffix(".weight"), *shapes[name])
        assert {f"{piece}.weight": [[part.start, part.stop] for part in rows] for piece, rows in pieces.items()} == expected


def diffusers_output(peer: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x, states, pooled = (torch.randn(shape, generator=generator) for shape in ((1, 4, 2, 4, 4), (1, 5, 24), (1, 20)))
    with torch.no_grad():
        mask = torch.ones(1, 5, dtype=torch.long)
        return peer(x, torch.full((1,), 500.0), states, mask, pooled, torch.full((1,), 4000.0), return_dict=False)[0]


def test_a_file_for_diffusers_does_there_what_it_does_here(diffusers_transformer, tiny_transformer, tmp_path):
    lora = random_lora(tiny_transformer)
    peer = diffusers_transformer(tiny_transformer)
    save_lora(lora, tmp_path / "a.safetensors", "diffusers", torch.float32)
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(tmp_path / "a.safetensors").items()}
    layers = {name.rpartition(".lora_")[0] for name in tensors}
    assert 2 * len(layers) == len(tensors)
    for layer in layers:
        peer.get_parameter(f"{layer}.weight").data += tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]
    apply_lora(tiny_transformer, lora)
    torch.testing.assert_close(diffusers_output(peer), forward(tiny_transformer), atol=2e-5, rtol=1e-4)


def test_diffusers_own_loader_takes_the_file(diffusers_transformer, tiny_transformer, tmp_path):
    pytest.importorskip("peft", reason="Diffusers loads adapters with peft")
    peer = diffusers_transformer(tiny_transformer)
    lora = random_lora(tiny_transformer)
    save_lora(lora, tmp_path / "a.safetensors", "diffusers", torch.float32)
    peer.load_lora_adapter(str(tmp_path), weight_name="a.safetensors")
    apply_lora(tiny_transformer, lora)
    torch.testing.assert_close(diffusers_output(peer), forward(tiny_transformer), atol=2e-5, rtol=1e-4)


def piece(name: str, rank: int, out_features: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"lora_A": (rank, 32), "lora_B": (out_features, rank)}
    return {f"transformer.{name}.{factor}.weight": torch.randn(shape, generator=generator) for factor, shape in shapes.items()}


def test_pieces_with_factors_of_their_own_become_one_and_pieces_again(tmp_path):
    single = "single_transformer_blocks.1"
    pieces = piece(f"{single}.attn.to_q", 2, 32, 0) | piece(f"{single}.attn.to_v", 3, 32, 1) | piece(f"{single}.proj_mlp", 1, 128, 2)
    lora = read_lora(save(pieces, tmp_path / "a.safetensors"), TINY)
    delta = lora.layers["single_blocks.1.linear1"].delta()
    for name, rows in (("attn.to_q", slice(0, 32)), ("attn.to_v", slice(64, 96)), ("proj_mlp", slice(96, 224))):
        up, down = (pieces[f"transformer.{single}.{name}.lora_{factor}.weight"] for factor in "BA")
        torch.testing.assert_close(delta[rows], up @ down)
    assert not delta[32:64].any()
    save_lora(lora, tmp_path / "b.safetensors", "diffusers", torch.float32)
    again = load_file(tmp_path / "b.safetensors")
    assert again.keys() == pieces.keys() and all(torch.equal(again[name], tensor) for name, tensor in pieces.items())


def test_pieces_that_share_a_factor_go_on_sharing_it(tmp_path):
    pieces = {}
    for seed, name in enumerate(("to_q", "to_k", "to_v")):
        pieces |= piece(f"transformer_blocks.0.attn.{name}", 2, 32, seed)
        pieces[f"transformer.transformer_blocks.0.attn.{name}.lora_A.weight"] = torch.ones(2, 32)
    assert read_lora(save(pieces, tmp_path / "a.safetensors"), TINY).layers[QKV].rank == 2


# --- LoHa and LoKr ---

KOHYA_QKV = "lora_unet_double_blocks_0_img_attn_qkv"


def test_a_loha_is_the_product_of_two(tmp_path):
    shapes = {"hada_w1_a": (96, 2), "hada_w1_b": (2, 32), "hada_w2_a": (96, 2), "hada_w2_b": (2, 32)}
    parts = {name: torch.randn(shape) for name, shape in shapes.items()}
    tensors = {f"{KOHYA_QKV}.{name}": tensor for name, tensor in parts.items()} | {f"{KOHYA_QKV}.alpha": torch.tensor(1.0)}
    lora = read_lora(save(tensors, tmp_path / "a.safetensors"), TINY)
    expected = 1 / 2 * (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    torch.testing.assert_close(lora.layers[QKV].delta(), expected)


@pytest.mark.parametrize("factored", ["", "1", "2", "12"])
def test_a_lokr_is_a_kronecker_product(tmp_path, factored):
    """alpha is divided by the rank; where both matrices are whole there is no rank, and alpha means nothing."""
    whole, tensors = {}, {f"{KOHYA_QKV}.alpha": torch.tensor(1.0)}
    for number, (rows, columns) in {"1": (8, 4), "2": (12, 8)}.items():
        a, b = torch.randn(rows, 2), torch.randn(2, columns)
        whole[number] = a @ b
        kept = {f"lokr_w{number}_a": a, f"lokr_w{number}_b": b} if number in factored else {f"lokr_w{number}": a @ b}
        tensors |= {f"{KOHYA_QKV}.{name}": tensor for name, tensor in kept.items()}
    lora = read_lora(save(tensors, tmp_path / "a.safetensors"), TINY)
    expected = torch.kron(whole["1"], whole["2"]) * (0.5 if factored else 1)
    torch.testing.assert_close(lora.layers[QKV].delta(), expected)


@pytest.mark.parametrize("rank", [5, 12])
def test_a_loha_of_any_rank_has_factors_no_larger_than_its_layer(tmp_path, rank):
    shapes = {"hada_w1_a": (96, rank), "hada_w1_b": (rank, 32), "hada_w2_a": (96, rank), "hada_w2_b": (rank, 32)}
    parts = {name: torch.randn(shape) for name, shape in shapes.items()}
    lora = read_lora(save({f"{KOHYA_QKV}.{name}": tensor for name, tensor in parts.items()}, tmp_path / "a.safetensors"), TINY)
    expected = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    torch.testing.assert_close(lora.layers[QKV].delta(), expected, atol=1e-4, rtol=1e-4)
    assert lora.layers[QKV].rank == min(rank**2, 32)


def huge(rows: int, columns: int) -> torch.Tensor:
    """One number on the disk, and as many in memory as are asked for."""
    return torch.ones(1).expand(rows, columns)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"lora_down.weight": huge(10**7, 32), "lora_up.weight": huge(96, 10**7)}, r"is of rank 10000000, more than a weight"),
        ({f"hada_w{i}_{f}": huge(*s) for i in "12" for f, s in (("a", (96, 10**6)), ("b", (10**6, 32)))}, r"is of rank 1000000"),
        ({"lokr_w1": torch.ones(2000, 2000), "lokr_w2": torch.ones(2000, 2000)}, r"is for a weight of shape \[4000000, 4000000\]"),
        ({"lokr_w1": huge(10**5, 10**5), "lokr_w2": torch.ones(1, 1)}, r"is for a weight of shape \[100000, 100000\]"),
        ({"diff": huge(10**6, 10**6)}, r"is for a weight of shape \[1000000, 1000000\]"),
    ],
)  # fmt: skip
def test_sizes_are_checked_before_anything_of_that_size_is_made(tmp_path, parts, sentence):
    """Each would be gigabytes, some terabytes."""
    torch.save({f"{KOHYA_QKV}.{name}": tensor for name, tensor in parts.items()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=sentence):
        read_lora(tmp_path / "a.pt", TINY)


@pytest.mark.parametrize("layer", [QKV, "single_blocks.0.linear2"])
def test_the_difference_of_a_whole_weight_is_added_as_it_is(tmp_path, layer):
    """Wider than high, and the other way round."""
    difference = torch.randn(*((96, 32) if layer == QKV else (32, 160)))
    lora = read_lora(save({f"diffusion_model.{layer}.diff": difference}, tmp_path / "a.safetensors"), TINY)
    assert torch.equal(lora.layers[layer].delta(), difference) and lora.layers[layer].rank == 32


# --- Folders ---


@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors", "lora_kohya.safetensors",
        "style.safetensors", "style.pt",
    ],
)  # fmt: skip
def test_a_folder_stands_for_the_lora_in_it(tmp_path, name):
    (tmp_path / "epoch10").mkdir()
    (tmp_path / "epoch10" / "README.md").touch()
    if name.endswith(".safetensors"):
        save(kohya(), tmp_path / "epoch10" / name)
    else:
        torch.save(kohya(), tmp_path / "epoch10" / name)
    assert read_lora(tmp_path / "epoch10", TINY).layers.keys() == {QKV}


def test_a_folder_of_the_hugging_face_cache_stands_for_its_snapshot(tmp_path):
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("abc\n")
    (tmp_path / "snapshots" / "abc").mkdir(parents=True)
    save(kohya(), tmp_path / "snapshots" / "abc" / "style.safetensors")
    assert read_lora(tmp_path, TINY).layers.keys() == {QKV}


def test_a_run_folder_stands_for_its_result(tmp_path):
    """Which is there in two dialects, beside what training needs."""
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no LoRA \(such as adapter_model.*\): the training in it has not come to an end\.$"):
        read_lora(tmp_path, TINY)
    (tmp_path / "loras").mkdir()
    for step in (100, 90):
        (tmp_path / "loras" / f"step-{step:08d}.safetensors").touch()
    newest = re.escape(str(tmp_path / "loras" / "step-00000100.safetensors"))
    with pytest.raises(FileNotFoundError, match=f"has not come to an end; its newest so far is {newest}"):
        read_lora(tmp_path, TINY)
    for dialect in ("kohya", "diffusers"):
        lora = Lora({QKV: LowRank(torch.ones(1, 32), torch.ones(96, 1), 1.0)})
        save_lora(lora, tmp_path / f"lora_{dialect}.safetensors", dialect)
    assert_same(read_lora(tmp_path, TINY), lora)


def test_a_folder_of_many_files_is_no_lora(tmp_path):
    for name in ("style-000010.safetensors", "style-000020.safetensors"):
        save(kohya(), tmp_path / name)
    with pytest.raises(ValueError, match=r"has several weight files \(style-000010\.safetensors, style-0000.*\); name the LoRA"):
        read_lora(tmp_path, TINY)


# --- Refusals ---


def kohya(rank_down: int = 2, rank_up: int = 2, in_features: int = 32, out_features: int = 96) -> dict[str, torch.Tensor]:
    return {
        f"{KOHYA_QKV}.lora_down.weight": torch.ones(rank_down, in_features),
        f"{KOHYA_QKV}.lora_up.weight": torch.ones(out_features, rank_up),
        f"{KOHYA_QKV}.alpha": torch.tensor(1.0),
    }


FEW = {f"{KOHYA_QKV}.lora_down.weight": torch.ones(2, 32)}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (kohya(rank_up=3), r"img_attn_qkv has factors of rank 3 and 2\. It looks like a kohya LoRA"),
        (kohya(rank_up=0, rank_down=0), "has factors of rank 0 and 0"),
        (kohya(in_features=3072), r"is for a weight of shape \[96, 3072\], not \[96, 32\]"),
        (kohya(out_features=95), r"is for a weight of shape \[95, 32\], not \[96, 32\]"),
        (kohya() | {f"{KOHYA_QKV}.alpha": torch.ones(2)}, "an alpha that is no number"),
        (kohya() | {f"{KOHYA_QKV}.lora_up.weight": torch.ones(96, 2, 1)}, "factors that are no matrices"),
        (kohya() | {f"{KOHYA_QKV}.dora_scale": torch.ones(1)}, r"qkv\.dora_scale is of DoRA, which scales"),
        (kohya() | {f"diffusion_model.{QKV}.lora_A.weight": torch.ones(2, 32)}, "lacks one"),
        (kohya() | {"lora_unet_double_blocks_1_img_attn_qkv.alpha": torch.ones(1)}, "double_blocks_1_img_attn_qkv.alpha is unknown"),
        (kohya() | {"lora_unet_double_blocks_0_txt_attn_qkv.alpha": torch.ones(1)}, "double_blocks_0_txt_attn_qkv has only alpha"),
        (FEW, "lacks one of its two factors"),
        ({f"{KOHYA_QKV}.lokr_w1": torch.ones(2, 2)}, "has only lokr_w1. It looks like a LoKr file"),
        ({}, "it is empty. It looks like something else"),
        ({"double_blocks.0.img_attn_qkv.weight": torch.ones(1)}, "img_attn_qkv.weight is unknown. It looks like whole weights"),
        ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.ones(1, 1)}, r"blocks\.0\.self_attn\.q\.lora_A\.weight is unknown"),
    ],
)  # fmt: skip
def test_what_is_no_lora_for_this_model_gets_one_sentence(tmp_path, tensors, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_lora(save(tensors, tmp_path / "a.safetensors"), TINY)


@pytest.mark.parametrize("part", ["lora_down.weight", "lora_up.weight", "alpha"])
def test_an_adapter_that_is_not_finite_is_refused_with_file_and_name(tmp_path, part):
    tensors = kohya() | {"lora_unet_double_blocks_0_img_attn_qkv.alpha": torch.tensor(2.0)}
    (key,) = (name for name in tensors if name.endswith(part))
    tensors[key] = tensors[key].clone()
    tensors[key].view(-1)[-1] = float("nan")
    with pytest.raises(ValueError, match=rf"a\.safetensors holds NaN or infinity in {key}"):
        read_lora(save(tensors, tmp_path / "a.safetensors"), TINY)


def test_a_disk_that_is_full_is_said_with_the_path_of_the_lora(tiny_transformer, tmp_path):
    lora = random_lora(tiny_transformer)
    with small_disk(1000), pytest.raises(OSError, match=r"Cannot write .*a\.safetensors: file too large"):
        save_lora(lora, tmp_path / "a.safetensors", "kohya")
    assert not list(tmp_path.iterdir())


def test_pieces_of_another_size_are_refused_before_they_are_put_together(tmp_path):
    pieces = piece("transformer_blocks.0.attn.to_q", 2, 32, 0) | {
        "transformer.transformer_blocks.0.attn.to_k.lora_A.weight": torch.ones(2, 16),
        "transformer.transformer_blocks.0.attn.to_k.lora_B.weight": torch.ones(32, 2),
    }
    with pytest.raises(ValueError, match=r"to_k is for a weight of shape \[32, 16\], not \[32, 32\]. It looks like a LoRA from Diffusers"):
        read_lora(save(pieces, tmp_path / "a.safetensors"), TINY)


def test_a_lora_for_the_whole_model_is_refused_by_a_small_one_with_ten_reasons(tmp_path):
    big = {f"lora_unet_single_blocks_{i}_linear2.alpha": torch.tensor(1.0) for i in range(40)}
    with pytest.raises(ValueError, match="and 30 more"):
        read_lora(save(big, tmp_path / "a.safetensors"), TINY)


def test_pickled_tensors_are_read_and_pickled_code_is_not(tiny_transformer, tmp_path):
    torch.save(kohya(), tmp_path / "a.pt")
    assert read_lora(tmp_path / "a.pt", TINY).layers.keys() == {QKV}
    torch.save({"x": Path("exploded")}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"b\.pt holds more than tensors .*, which would run code"):
        read_lora(tmp_path / "b.pt", TINY)
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save_lora(Lora({}), tmp_path / "c.pt", "kohya")


def test_without_a_config_the_file_is_for_the_released_model(tmp_path):
    lora = Lora({"single_blocks.39.linear1": LowRank(torch.ones(1, 3072), torch.ones(21504, 1), 1.0)})
    save_lora(lora, tmp_path / "a.safetensors", "diffusers")
    assert_same(read_lora(tmp_path / "a.safetensors"), lora)
    assert read_lora(tmp_path / "a.safetensors", TransformerConfig()).layers.keys() == lora.layers.keys()


def test_a_random_model_is_changed_by_its_file_as_by_the_lora(tiny_transformer, tmp_path):
    lora = random_lora(tiny_transformer)
    save_lora(lora, tmp_path / "a.safetensors", "original", torch.float32)
    other = randomize(HunyuanVideoTransformer(TINY))
    apply_lora(tiny_transformer, lora, 0.5)
    merge_lora(other, read_lora(tmp_path / "a.safetensors", TINY), 0.5)
    torch.testing.assert_close(forward(tiny_transformer), forward(other), atol=2e-5, rtol=1e-4)
