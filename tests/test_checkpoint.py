"""Loading: every official wrapper, strictly, and one sentence for everything else."""

from __future__ import annotations

import errno
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, manifest, randomize
from safetensors.torch import load_file, save_file
from tiny_checkpoint import save_llava, save_text_encoders
from transformers import AutoTokenizer, CLIPTextModel, LlamaForCausalLM, LlamaModel

from hunyuan_video import checkpoint
from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.models.text import TextEncoder, template_prefix
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.transforms import fp8
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
    with pytest.raises(ValueError, match=r"holds more than tensors \(\w+\), which would run code"):
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


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("mmap.mmap", OSError(errno.ENOMEM, "Cannot allocate memory")),
        ("torch.frombuffer", RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")),
    ],
)
def test_a_file_is_not_blamed_when_memory_runs_out(tmp_path, state, monkeypatch, name, where, error):
    def run_out(*args, **kwargs):
        raise error

    path = save(tmp_path / name, state)
    monkeypatch.setattr(where, run_out)
    with pytest.raises(type(error), match=re.escape(error.args[-1])):
        load(path)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_damaged_file_in_a_folder_called_memory_is_damaged(tmp_path, name):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / name).write_bytes(b"PK\3\4" + b"\0" * 64)
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        load(tmp_path / "memory" / name)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_file_that_may_not_be_read_is_not_called_damaged_or_missing(tmp_path, state, monkeypatch, name):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    path = save(tmp_path / name, state)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match="model"):
        load(path)


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


def test_a_damaged_vae_config_is_refused_with_a_sentence(official_tree, tmp_path):
    copy = Path(shutil.copytree(locate(official_tree).vae, tmp_path / "vae"))
    (copy / "config.json").write_text('{"latent_channels": ')
    with pytest.raises(ValueError, match=r"config\.json is damaged .*fetch it again\.$"):
        checkpoint.load_vae(copy, torch.float32, CPU)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_text_encoders(tmp_path_factory.mktemp("ckpts"))


@pytest.fixture(scope="module")
def encoder(folders: tuple[Path, Path]) -> TextEncoder:
    return load_text_encoder(*folders, dtype=torch.float32)


def copy_of(folder: Path, to: Path, *, without: str = "") -> Path:
    return Path(shutil.copytree(folder, to, ignore=shutil.ignore_patterns(without)))


def test_loading_text_encoders_prints_and_logs_nothing(folders, capfd: pytest.CaptureFixture[str]):
    load_text_encoder(*folders)
    assert capfd.readouterr() == ("", "")


def test_loaded_text_encoders_give_what_transformers_gives(folders, encoder: TextEncoder):
    features = encoder.encode(["a cat"])
    ids = torch.tensor([encoder.llm_tokenizer.encode(template_prefix("video") + "a cat<|eot_id|>").ids])
    states = LlamaModel.from_pretrained(folders[0])(ids, output_hidden_states=True).hidden_states[-3]
    torch.testing.assert_close(features.states, states[:, encoder.crop("video") :])
    ids = torch.tensor([encoder.clip_tokenizer.encode("a cat").ids])
    torch.testing.assert_close(features.pooled, CLIPTextModel.from_pretrained(folders[1])(ids).pooler_output)


WORDS = ("a cat<|eot_id|> runs, 一只猫  twice\n", "", "x" * 400)


@pytest.mark.parametrize("settings", [{}, {"tokenizer_class": "PreTrainedTokenizerFast"}, {"add_bos_token": False, "add_eos_token": True}])
def test_a_tokenizer_makes_the_ids_that_transformers_makes(folders, tmp_path, settings):
    """Whoever reads it: with a class that has no rules of its own, without a class, or with rules in its settings."""
    folder = copy_of(folders[0], tmp_path / "copy")
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text())
    said.pop("tokenizer_class")
    file.write_text(json.dumps(said | settings))
    ours, theirs = checkpoint.load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert [ours.encode(words).ids for words in WORDS] == theirs(list(WORDS), verbose=False)["input_ids"]


def test_a_tokenizer_that_cuts_and_pads_by_itself_does_not_here(folders, tmp_path):
    folder = copy_of(folders[0], tmp_path / "copy")
    tokenizer = checkpoint.load_tokenizer(folder)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert checkpoint.load_tokenizer(folder).encode("many words").ids == checkpoint.load_tokenizer(folders[0]).encode("many words").ids


def test_the_embedded_tokenizers_are_read_without_transformers():
    code = "import sys; from hunyuan_video.checkpoint import load_tokenizer; from hunyuan_video.weights import EMBEDDED; "
    code += "[load_tokenizer(EMBEDDED / part) for part in ('text_encoder', 'text_encoder_2')]; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_text_encoders_are_frozen_and_wholly_on_the_device(folders):
    encoder = load_text_encoder(*folders, device="meta")
    tensors = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
    assert all(tensor.is_meta and not tensor.requires_grad for tensor in tensors.values())
    assert not any(module.training for module in encoder.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_text_is_near_float32(folders, encoder: TextEncoder, dtype: torch.dtype):
    low = load_text_encoder(*folders, dtype=dtype)
    features = low.encode(["a cat", "a big dog"])
    assert features.states.dtype == features.pooled.dtype == dtype
    exact = encoder.encode(["a cat", "a big dog"])
    features = features.to("cpu", torch.float32)
    torch.testing.assert_close(features.states[features.mask], exact.states[exact.mask], atol=0.02, rtol=0.05)
    torch.testing.assert_close(features.pooled, exact.pooled, atol=0.05, rtol=0.05)


def test_text_encoders_in_bin_files_load_alike(folders, encoder: TextEncoder, tmp_path):
    dirs = [copy_of(folder, tmp_path / folder.name, without="model.safetensors") for folder in folders]
    for folder, to in zip(folders, dirs, strict=True):
        torch.save(load_file(folder / "model.safetensors"), to / "pytorch_model.bin")
    assert_same(load_text_encoder(*dirs, dtype=torch.float32), encoder)


def test_sharded_text_encoders_load_alike_and_only_whole(folders, encoder: TextEncoder, tmp_path):
    sharded = copy_of(folders[0], tmp_path / "sharded", without="model.safetensors")
    LlamaForCausalLM.from_pretrained(folders[0]).save_pretrained(sharded, max_shard_size="20KB")
    assert (sharded / "model.safetensors.index.json").is_file()
    assert_same(load_text_encoder(sharded, folders[1], dtype=torch.float32), encoder)
    shard = min(sharded.glob("model-*.safetensors"))
    cut_in_half(shard)
    with pytest.raises(ValueError, match=rf"{shard.name} is damaged"):
        load_text_encoder(sharded, folders[1])
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        load_text_encoder(sharded, folders[1])
    for index in ("{", "[]", "{}", '{"weight_map": {"a": 1}}'):
        (sharded / "model.safetensors.index.json").write_text(index)
        with pytest.raises(ValueError, match=r"index\.json is damaged .*fetch it again\.$"):
            load_text_encoder(sharded, folders[1])


def test_a_variant_in_shards_loads_alike(folders, encoder: TextEncoder, tmp_path):
    sharded = copy_of(folders[0], tmp_path / "sharded", without="model.safetensors")
    LlamaForCausalLM.from_pretrained(folders[0]).save_pretrained(sharded, max_shard_size="20KB", variant="fp16")
    assert [index.name for index in sharded.glob("*.index*")] == ["model.safetensors.index.fp16.json"]
    assert_same(load_text_encoder(sharded, folders[1], dtype=torch.float32), encoder)
    min(sharded.glob("model.fp16-*.safetensors")).unlink()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        load_text_encoder(sharded, folders[1])


def test_a_variant_counts_only_where_the_model_itself_is_not(folders, encoder: TextEncoder, tmp_path):
    copy = copy_of(folders[0], tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, copy / "model.fp16.safetensors")
    assert_same(load_text_encoder(copy, folders[1], dtype=torch.float32), encoder)
    save_file(tensors, copy / "model.fp16.safetensors")
    (copy / "model.safetensors").unlink()
    assert_same(load_text_encoder(copy, folders[1], dtype=torch.float32), encoder)
    save_file(tensors, copy / "model.bf16.safetensors")
    with pytest.raises(ValueError, match=r"several weight files \(model\.bf16\.safetensors, model\.fp16\.safetensors\)"):
        load_text_encoder(copy, folders[1])


def test_an_index_of_shards_that_are_gone_leaves_the_whole_file(folders, encoder: TextEncoder, tmp_path):
    copy = copy_of(folders[0], tmp_path / "copy")
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same(load_text_encoder(copy, folders[1], dtype=torch.float32), encoder)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_text_encoders_and_vae_load_from_behind_a_trainers_prefixes(folders, encoder: TextEncoder, official_tree, tmp_path, prefix):
    dirs = [copy_of(folder, tmp_path / folder.name) for folder in folders]
    for folder in dirs:
        save_file({prefix + name: tensor for name, tensor in load_file(folder / "model.safetensors").items()}, folder / "model.safetensors")
    assert_same(load_text_encoder(*dirs, dtype=torch.float32), encoder)
    original = locate(official_tree).vae
    copy = copy_of(original, tmp_path / "vae")
    stored = torch.load(original / "pytorch_model.pt", weights_only=True)
    torch.save({prefix + name: tensor for name, tensor in stored.items()}, copy / "pytorch_model.pt")
    expected = checkpoint.load_vae(original, torch.float32, CPU).state_dict()
    loaded = checkpoint.load_vae(copy, torch.float32, CPU).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "values", [{"block_out_channels": 5}, {"latent_channels": "16"}, {"down_block_types": 4}, {"scaling_factor": True}]
)
def test_a_vae_config_of_wrong_values_is_refused_with_a_sentence(official_tree, tmp_path, values):
    copy = copy_of(locate(official_tree).vae, tmp_path / "vae")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | values))
    with pytest.raises(ValueError, match=r"^[^\n]*config\.json describes no model that can be built [^\n]*\.$"):
        checkpoint.load_vae(copy, torch.float32, CPU)


def in_scaled_8_bits(folder: Path) -> dict[str, torch.Tensor]:
    """Put the linears of a text encoder's file into 8 bits as ComfyUI's files have them; returns what they then are."""
    file, exact, stored = folder / "model.safetensors", {}, {"scaled_fp8": torch.zeros(2).to(fp8.FP8)}
    for name, tensor in load_file(file).items():
        if tensor.ndim == 2 and "embed" not in name:
            scale = fp8.scale_of(tensor)
            stored[name] = fp8.in_8_bits(tensor, scale)
            stored[name.replace(".weight", ".scale_weight")] = scale.squeeze()
            exact[name] = (stored[name].bfloat16() * scale.bfloat16()).float()
        else:
            exact[name] = stored[name] = tensor
    save_file(stored, file)
    return exact


def test_text_encoders_in_scaled_8_bits_are_expanded(folders, tmp_path):
    scaled, plain = ([copy_of(folder, tmp_path / kind / folder.name) for folder in folders] for kind in ("scaled", "plain"))
    for folder, same in zip(scaled, plain, strict=True):
        save_file(in_scaled_8_bits(folder), same / "model.safetensors")
    assert_same(load_text_encoder(*scaled, dtype=torch.float32), load_text_encoder(*plain, dtype=torch.float32))


def test_scales_of_what_is_not_in_8_bits_are_refused(folders, tmp_path):
    copy = copy_of(folders[0], tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"model.layers.0.mlp.up_proj.scale_weight": torch.ones(())}, copy / "model.safetensors")
    with pytest.raises(ValueError, match=r"has a scale for layers\.0\.mlp\.up_proj that is of no weight in 8 bits"):
        load_text_encoder(copy, folders[1])


def assert_same(loaded: TextEncoder, expected: TextEncoder) -> None:
    state, other = loaded.state_dict(), expected.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("body", "head", "rest"),
    [
        ("language_model.model.", "language_model.lm_head.", ("vision_tower.", "multi_modal_projector.")),
        ("model.language_model.", "lm_head.", ("model.vision_tower.", "model.multi_modal_projector.")),
    ],
    ids=["older", "newer"],
)
def test_of_the_uncut_llava_the_language_model_is_taken(
    folders, encoder: TextEncoder, tmp_path, body: str, head: str, rest: tuple[str, str]
):
    save_llava(folders[0], tmp_path / "llava", body, head, rest)
    assert_same(load_text_encoder(tmp_path / "llava", folders[1], dtype=torch.float32), encoder)


def test_a_llava_without_a_language_model_is_refused(folders, tmp_path):
    llava = copy_of(folders[0], tmp_path / "llava")
    (llava / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(ValueError, match=r"config\.json describes no model that can be built"):
        load_text_encoder(llava, folders[1])


def test_tokenizers_may_lie_apart_as_in_diffusers(folders, encoder: TextEncoder, tmp_path):
    dirs = [copy_of(folder, tmp_path / folder.name, without="tokenizer*") for folder in folders]
    for folder in folders:
        copy_of(folder, tmp_path / folder.name.replace("text_encoder", "tokenizer"), without="model.safetensors")
    assert_same(load_text_encoder(*dirs, dtype=torch.float32), encoder)


def test_swapped_text_encoders_are_refused(folders):
    with pytest.raises(ValueError, match=r"'llama'.*docs/weights\.md"):
        load_text_encoder(folders[1], folders[0])
    with pytest.raises(ValueError, match=r"must be CLIP.*docs/weights\.md"):
        load_text_encoder(folders[0], folders[0])


def test_a_missing_text_encoder_folder_is_named(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no text encoder folder .*absent: docs/weights\.md"):
        load_text_encoder(tmp_path / "absent", folders[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer"), ("model.safetensors", "no weights")],
)
def test_a_missing_text_encoder_file_is_named(folders, tmp_path, name: str, message: str):
    with pytest.raises(FileNotFoundError, match=rf"{message}.*docs/weights\.md"):
        load_text_encoder(copy_of(folders[0], tmp_path / "broken", without=name), folders[1])


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_truncated_text_encoder_file_is_refused_with_a_sentence(folders, tmp_path, which: int, name: str):
    dirs = list(folders)
    dirs[which] = copy_of(folders[which], tmp_path / "broken")
    cut_in_half(dirs[which] / name)
    with pytest.raises(ValueError, match=rf"^[^\n]*broken/{name} is damaged[^\n]*fetch it again\.$"):
        load_text_encoder(*dirs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_hidden_layers": "four"},
        {"num_attention_heads": 3, "head_dim": None},
        {"num_attention_heads": 0},
        {"hidden_size": -4},
        {"hidden_act": "none"},
    ],
)
def test_a_config_of_no_model_is_refused_with_a_sentence(folders, tmp_path, wrong: dict):
    broken = copy_of(folders[0], tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | wrong))
    with pytest.raises(ValueError, match=r"^[^\n]*config\.json describes no model that can be built[^\n]*$"):
        load_text_encoder(broken, folders[1])


def test_a_tokenizer_with_code_of_its_own_is_refused_and_does_not_run(folders, tmp_path):
    broken = copy_of(folders[0], tmp_path / "broken")
    (broken / "mine.py").write_text("from pathlib import Path\nPath(__file__).with_name('exploded').touch()\n")
    settings = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (broken / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"^The tokenizer in [^\n]* is damaged or needs code of its own"):
        load_text_encoder(broken, folders[1])
    assert not (broken / "exploded").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {name: t for name, t in state.items() if "layers.1.mlp" not in name}, r"layers\.1\.mlp\.\w+\.weight is missing;.*"),
        (lambda state: state | {"model.adapter.weight": torch.zeros(1)}, r"adapter\.weight is unknown"),
        (lambda state: state | {"model.layers.4.mlp.up_proj.weight": torch.zeros(1)}, r"layers\.4\.mlp\.up_proj\.weight is unknown"),
        (
            lambda state: state | {"model.embed_tokens.weight": torch.zeros(7, 16)},
            r"embed_tokens\.weight has shape \[7, 16\], not \[260, 16\]",
        ),
    ],
)
def test_text_tensors_that_do_not_fit_are_listed(folders, tmp_path, change: Callable[[dict], dict], message: str):
    broken = copy_of(folders[0], tmp_path / "broken", without="model.safetensors")
    torch.save(change(load_file(folders[0] / "model.safetensors")), broken / "pytorch_model.bin")
    with pytest.raises(ValueError, match=rf"broken does not fit the model: {message}"):
        load_text_encoder(broken, folders[1])
