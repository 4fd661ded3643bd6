"""Loading: every official wrapper, strictly, and one sentence for everything else."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, manifest, randomize
from safetensors.torch import save_file

from hunyuan_video import checkpoint
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.weights import locate

CPU = torch.device("cpu")


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return randomize(HunyuanVideoTransformer(TINY)).state_dict()


def load(path: Path, **options):
    return checkpoint.load_transformer(path, torch.float32, CPU, **options)


def save(path: Path, content) -> Path:
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"module": state}, lambda state: {"ema": {}, "module": state}])
def test_wrapped_and_bare_files_load_the_same(tmp_path, state, wrap):
    model = load(save(tmp_path / "model.pt", wrap(state)))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_safetensors_load_like_pickled_tensors(tmp_path, state):
    assert load(save(tmp_path / "model.safetensors", state)).config == load(save(tmp_path / "model.pt", state)).config == TINY


def test_the_load_key_chooses_between_weights_and_their_average(tmp_path, state):
    average = {name: tensor + 1 for name, tensor in state.items()}
    path = save(tmp_path / "model.pt", {"module": state, "ema": average})
    assert torch.equal(load(path, load_key="ema").img_in.proj.bias, state["img_in.proj.bias"] + 1)


def test_an_absent_load_key_is_named_with_those_that_are_there(tmp_path, state):
    with pytest.raises(ValueError, match="has no 'ema'; it holds module"):
        load(save(tmp_path / "model.pt", {"module": state}), load_key="ema")


@pytest.mark.parametrize("guidance_embed", [True, False])
def test_every_size_of_the_released_models_is_read_off_their_tensors(guidance_embed):
    state = {name: torch.empty(shape, device="meta") for name, shape in manifest("dit_hyvideo_t2_cfgdistill").items()}
    if not guidance_embed:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("guidance_in")}
    assert checkpoint.transformer_config(state) == replace(TransformerConfig(), guidance_embed=guidance_embed)


def test_weights_are_cast_and_frozen(tmp_path, state):
    model = checkpoint.load_transformer(save(tmp_path / "model.pt", state), torch.bfloat16, CPU)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.training


def test_missing_and_unknown_and_misshapen_tensors_are_listed(tmp_path, state):
    del state["img_in.proj.bias"]
    state["surplus"] = torch.ones(1)
    state["time_in.mlp.0.bias"] = torch.ones(7)
    with pytest.raises(
        ValueError, match=r"img_in\.proj\.bias is missing.*surplus is unknown.*time_in\.mlp\.0\.bias has shape \[7\], not \[32\]"
    ):
        load(save(tmp_path / "model.pt", state))


def test_a_long_list_of_differences_is_cut_at_ten(tmp_path, state):
    state |= {f"surplus{i}": torch.ones(1) for i in range(25)}
    with pytest.raises(ValueError, match="and 15 more"):
        load(save(tmp_path / "model.pt", state))


def test_another_model_is_refused_by_what_it_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"not a HunyuanVideo transformer.*img_in"):
        load(save(tmp_path / "model.pt", {"weight": torch.ones(1)}))


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"module": Bomb()}, "model.pt")
    with pytest.raises(ValueError, match="damaged or not a checkpoint of plain tensors"):
        load(Path("model.pt"))
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\0" * 64 + data[64:]])
def test_damaged_files_are_refused_with_a_sentence(tmp_path, state, name, damage):
    path = save(tmp_path / name, state)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        load(path)


def test_a_plain_pickle_of_something_else_is_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps([1, 2, 3], protocol=2))
    with pytest.raises(ValueError, match=r"model\.pt"):
        load(tmp_path / "model.pt")


def test_the_vae_loads_with_and_without_its_prefix(official_tree, tmp_path):
    original = locate(official_tree).vae
    prefixed = checkpoint.load_vae(original, torch.float32, CPU).state_dict()
    copy = Path(shutil.copytree(original, tmp_path / "vae"))
    bare = {name.removeprefix("vae."): tensor for name, tensor in torch.load(original / "pytorch_model.pt", weights_only=True).items()}
    torch.save({"state_dict": bare}, copy / "pytorch_model.pt")
    wrapped = checkpoint.load_vae(copy, torch.float32, CPU).state_dict()
    assert prefixed.keys() == wrapped.keys() and all(torch.equal(prefixed[name], wrapped[name]) for name in prefixed)


def test_a_vae_folder_without_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        checkpoint.load_vae(tmp_path, torch.float32, CPU)
