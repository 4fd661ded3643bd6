"""How weights load: every foreign wrapper, name and format is dealt with here, and nowhere else.

A model is built on the meta device, from sizes read off the tensors themselves or from its folder's config.json, and the file's tensors
become its parameters: strictly, every name and every shape. Pickled files are only ever read by PyTorch's weights-only unpickler.

Where a process group is there, the loaders are for all its ranks together, and rank 0 reads the weights for all (see `ranks`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch import Tensor, nn

from hunyuan_video.beginning import how_told
from hunyuan_video.checkpoint.kinds import check_kind
from hunyuan_video.checkpoint.lazy import Lazy, lazy
from hunyuan_video.checkpoint.ranks import Delivered, delivered
from hunyuan_video.checkpoint.reading import check_finite, container_of, plain_tensors, read_folder, read_state_dict, reason
from hunyuan_video.checkpoint.stored import StoredTransformer, expanded, open_transformer, transformer_config, unwrap
from hunyuan_video.config import LoadKey, check_types
from hunyuan_video.distributed.once import is_first, once
from hunyuan_video.distributed.world import CPU
from hunyuan_video.models.clip import CLIPText, CLIPTextConfig
from hunyuan_video.models.llama import Llama, LlamaConfig
from hunyuan_video.models.text import SKIPPED_LAYERS, TextEncoder, without_skipped_layers
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.ahead import early_tensors
from hunyuan_video.transforms.as_stored import StackedLinear, StoredEmbedding, StoredLinear, leave_as_stored
from hunyuan_video.transforms.lora import listed
from hunyuan_video.weights import Weights, is_large, read_json

__all__ = [
    "fill", "fitting_sizes", "load_on_rank_0", "load_text_encoder", "load_transformer", "load_vae",
    "read_json", "read_state_dict", "read_transformer", "reason", "stays_in_file", "transformer_config",
]  # fmt: skip

Model = TypeVar("Model")
# Classes of tokenizers that have no rules of their own, and settings that are rules all the same.
_WHOLE = ("PreTrainedTokenizerFast", "TokenizersBackend")
_MORE = {"add_bos_token", "add_eos_token", "added_tokens_decoder", "auto_map"}
# Layers that bring their weight to the dtype of computing themselves.
_CONVERTING = (fp8.Fp8Linear, StoredLinear, StackedLinear, StoredEmbedding)


def differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor | Lazy | Delivered]) -> list[str]:
    """What is missing, unknown or of another shape."""
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in expected]
    return problems + [
        f"{name} has shape {list(state[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and tuple(state[name].shape) != tuple(tensor.shape)
    ]


def check_fits(model: nn.Module, state: Mapping[str, Tensor | Lazy | Delivered], path: Path) -> None:
    """Refuse tensors that are not exactly those of the model.

    Raises:
        ValueError: a name or shape differs; lists the first ten.
    """
    if problems := differences(model.state_dict(), state):
        raise ValueError(f"{path} does not fit the model: {listed(problems)}.")


def stays_in_file(part: Path, device: torch.device) -> bool:
    """Whether weights, of a file or folder, are used where they lie: by a CPU that computes alone (of many ranks, one reads), if they are
    so large that a copy would be in the way. Those of a GGUF file are expanded, into memory."""
    if device.type != "cpu" or dist.is_initialized() or not is_large(part):
        return False
    return not (part.is_file() and container_of(part) == "gguf")


def fill(
    model: nn.Module,
    state: dict[str, Any],
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    *,
    as_stored: bool = False,
    on_host: Collection[str] = (),
) -> None:
    """Make `state`, of tensors or what can give some, which is used up, the parameters of a model built on the meta device.

    With `as_stored`, weights stay as the file has them, and are converted at each use. Those named in `on_host` are on the CPU, whatever
    the device is.

    Every tensor that is copied, into another dtype or onto a device, must be finite; of small models, all. What stays in the file of a
    large one is not read for that: what is wrong there is seen after the first denoising step.

    Raises:
        ValueError: it does not fit; lists the first ten. Or a number is not finite.
    """
    check_fits(model, state, path)
    if as_stored:
        _lay_out(model, state, dtype)
    kept = dict.fromkeys(state, dtype)
    for name, layer in model.named_modules():
        if isinstance(layer, _CONVERTING):
            kept |= {f"{name}.{own}": tensor.dtype for own, tensor in layer.named_parameters() if own != "bias"}
    # In the file's order, letting go of each: a shard that has been converted is out of memory before the next is read.
    converted = {}
    in_file = device.type == "cpu" and not dist.is_initialized() and is_large(path)  # many ranks send each other all, and so check all
    for name in list(state):
        tensor = state.pop(name)
        converted[name] = tensor.to(CPU if name in on_host else device, kept[name])
        if not (in_file and tensor.dtype == kept[name]):
            check_finite(name, converted[name], path)
    model.load_state_dict(converted, strict=True, assign=True)
    model.eval().requires_grad_(False)
    for name, buffer in [*model.named_buffers()]:  # such as the scales of 8-bit layers
        owner, _, own = name.rpartition(".")
        setattr(model.get_submodule(owner), own, buffer.to(CPU if name in on_host else device))


def _lay_out(model: nn.Module, state: dict[str, Any], dtype: torch.dtype) -> None:
    """Make a model ready for weights as they are stored; those in pieces become pieces in `state`, too."""
    pieces = {name: tensor.pieces or (tensor,) for name, tensor in state.items()}
    leave_as_stored(model, {name: [torch.empty(p.shape, dtype=p.dtype, device="meta") for p in of] for name, of in pieces.items()}, dtype)
    for name, layer in model.named_modules():
        if isinstance(layer, StackedLinear):
            del state[f"{name}.weight"]
            state |= {f"{name}.pieces.{index}": piece for index, piece in enumerate(pieces[f"{name}.weight"])}


def read_transformer(path: Path, load_key: LoadKey = "module") -> tuple[dict[str, Lazy], TransformerConfig]:
    """The tensors of a transformer in any layout, under their official names and still on disk, and the sizes that they say."""
    stored = open_transformer(path, load_key)
    return stored.state, stored.config


def fitting_sizes(found: Weights) -> TransformerConfig:
    """The sizes that a transformer's tensors say, for which the parts beside it must be made; no number is read.

    Raises:
        ValueError: they are made for another one, or a tokenizer for another text encoder; or a part is damaged, or of another kind.
    """
    sizes = once(lambda: open_transformer(found.transformer, found.load_key).config)
    llm, clip, vae = read_llm(found.text_encoder)[0].config, read_clip(found.text_encoder_2)[0].config, once(lambda: read_vae(found.vae))[0]
    latents = sizes.out_channels if how_told(sizes) == "latent_concat" else sizes.in_channels
    pairs = (
        ("features in a text state", sizes.text_dim, llm.hidden_size, found.text_encoder),
        ("features in the pooled text", sizes.pooled_dim, clip.hidden_size, found.text_encoder_2),
        ("latent channels", latents, vae.latent_channels, found.vae),
    )
    for what, needed, made, part in pairs:
        if needed != made:
            raise ValueError(f"{found.transformer} needs {needed} {what}, but {part} makes {made}: they are parts of two models.")
    for folder, config in ((found.text_encoder, llm), (found.text_encoder_2, clip)):
        last = once(lambda: max(load_tokenizer(folder).get_vocab().values()))  # noqa: B023 (called now)
        if last >= config.vocab_size:  # fewer ids than there is room for are usual: the official one has 128258 of 128320
            raise ValueError(
                f"The tokenizer in {tokenizer_folder(folder)} gives ids up to {last}, but the text encoder in {folder} knows those below "
                f"{config.vocab_size}: they are parts of two models."
            )
    return sizes


def load_transformer(
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    load_key: LoadKey = "module",
    *,
    as_stored: bool = False,
    early_on_host: bool = False,
) -> HunyuanVideoTransformer:
    """The diffusion transformer from a file or folder of any layout that `stored` knows; linears in 8 bits stay so, and with `as_stored`,
    for inference on a CPU, all do (see `fill`). What only the start of a video needs may stay on the host."""
    stored = once(lambda: open_transformer(path, load_key))
    model = outline(stored)
    on_host = early_tensors(model) if early_on_host else ()
    fill(model, delivered(stored.state), path, dtype, device, as_stored=as_stored, on_host=on_host)
    return model


def load_on_rank_0(path: Path, dtype: torch.dtype, load_key: LoadKey = "module") -> HunyuanVideoTransformer:
    """As `load_transformer`, on the CPU of rank 0; on the other ranks on the meta device, for a model that is to be sharded over them."""
    stored = once(lambda: open_transformer(path, load_key))
    model = outline(stored)
    fill_on_rank_0(model, stored.state, path, dtype)
    return model


def fill_on_rank_0(model: nn.Module, state: dict[str, Any], path: Path, dtype: torch.dtype) -> None:
    """As `fill`, of a model that is to be sharded: on the other ranks it stays on the meta device."""
    once(lambda: fill(model, state, path, dtype, torch.device("cpu")))
    if not is_first():
        fill(model, state, path, dtype, torch.device("meta"))


def outline(stored: StoredTransformer) -> HunyuanVideoTransformer:
    """The model on the meta device, ready for its tensors."""
    with torch.device("meta"):
        model = HunyuanVideoTransformer(stored.config)
    if stored.scales:
        fp8.fit(model, stored.scales)
    return model


def load_vae(path: Path, dtype: torch.dtype, device: torch.device) -> CausalVAE:
    """The VAE from a folder with `config.json` (official or Diffusers), or from a file, which then is the released one."""
    config, state = once(lambda: read_vae(path))
    with torch.device("meta"):
        vae = CausalVAE(config)
    fill(vae, delivered(state), path, dtype, device)
    return vae


def read_vae(path: Path) -> tuple[VAEConfig, dict[str, Lazy]]:
    """The sizes of a VAE and its tensors, whose names may start with "vae."."""
    if path.is_dir() and not (path / "config.json").is_file():
        raise FileNotFoundError(f"There is no {path / 'config.json'}; it belongs to the download of the VAE.")
    state = read_folder(path) if path.is_dir() else read_state_dict(path)
    state = plain_tensors(unwrap(state, path, "module"), path)
    if any(name.startswith("vae.") for name in state):
        state = {name.replace("vae.", ""): tensor for name, tensor in state.items() if name.startswith("vae.")}
    check_kind(state, "a HunyuanVideo VAE", path)
    return (from_config(vae_config, path) if path.is_dir() else VAEConfig()), lazy(state)


def vae_config(folder: Path) -> VAEConfig:
    config = VAEConfig.from_json(read_json(folder / "config.json"))
    check_types(config)
    return config


def load_text_encoder(
    llm_dir: Path | str,
    clip_dir: Path | str,
    dtype: torch.dtype = torch.float16,
    device: torch.device | str = "cpu",
    *,
    as_stored: bool = False,
    on_rank_0: bool = False,
) -> TextEncoder:
    """Both text encoders from Hugging Face folders (config, tokenizer, weights in safetensors or .bin, whole or with an index), official
    or Diffusers, which keeps tokenizers apart. Of the un-cut LLaVA the language model is taken.

    Only what is used enters memory: the last two Llama layers, its head, and the vision towers are mapped and never read. `as_stored` is
    about the Llama (see `fill`), and so is `on_rank_0` (see `fill_on_rank_0`).

    Raises:
        FileNotFoundError: a folder, or a file in it, is missing.
        ValueError: the folder holds another kind of model, a damaged file, or weights that do not fit its config.
    """
    llm_dir, clip_dir, device = Path(llm_dir), Path(clip_dir), torch.device(device)
    (llm, llm_state), (clip, clip_state) = read_llm(llm_dir), read_clip(clip_dir)
    llm_tokenizer, clip_tokenizer = load_tokenizer(llm_dir), load_tokenizer(clip_dir)
    if on_rank_0:
        fill_on_rank_0(llm, llm_state, llm_dir, dtype)
    else:
        fill(llm, delivered(llm_state), llm_dir, dtype, device, as_stored=as_stored)
    fill(clip, delivered(clip_state), clip_dir, dtype, device)
    return TextEncoder(llm, clip, llm_tokenizer, clip_tokenizer).eval()


def read_llm(folder: Path) -> tuple[Llama, dict[str, Lazy]]:
    """The language model on the meta device, and those stored tensors that it uses, under its names."""
    if (kind := model_type(folder)) not in ("llama", "llava"):
        raise ValueError(
            f"{folder} holds a model of type {kind!r}; the text encoder must be of type 'llama', or the un-cut 'llava' "
            "(see docs/weights.md)."
        )
    llm = from_config(meta_llm, folder)
    num_layers = llm.config.num_hidden_layers
    return llm, once(lambda: read_encoder(folder, lambda name: llm_name(name, num_layers)))


def read_clip(folder: Path) -> tuple[CLIPText, dict[str, Lazy]]:
    """As `read_llm`, of the second text encoder."""
    if (kind := model_type(folder)) not in ("clip", "clip_text_model"):
        raise ValueError(
            f"{folder} holds a model of type {kind!r}; the second text encoder must be CLIP, 'clip' or 'clip_text_model' "
            "(see docs/weights.md)."
        )
    return from_config(meta_clip, folder), once(lambda: read_encoder(folder, clip_name))


def read_encoder(folder: Path, rename: Callable[[str], str | None]) -> dict[str, Lazy]:
    """The tensors of a text encoder that are used, under our names; those in scaled 8 bits expanded."""
    return expanded(renamed(plain_tensors(read_folder(folder), folder), rename), folder)


def model_type(folder: Path) -> str | None:
    """The kind of model that a Hugging Face folder says it holds."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no text encoder folder {folder}: docs/weights.md says where to fetch it.")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json: it must be a complete Hugging Face model folder (see docs/weights.md).")
    return read_json(folder / "config.json").get("model_type")


def tokenizer_folder(folder: Path) -> Path:
    """Where the tokenizer of a text encoder is: beside the weights, or in Diffusers' folder of its own."""
    for place in (folder, folder.with_name(folder.name.replace("text_encoder", "tokenizer"))):
        if any((place / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
            return place
    raise FileNotFoundError(
        f"{folder} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json): copy it beside the weights (see docs/weights.md)."
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """Of a text encoder. One that is all in its tokenizer.json is read as that says; what others are made of knows transformers, whose
    import takes seconds."""
    folder = tokenizer_folder(folder)
    found = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json")
    known = {name: read_json(folder / name) for name in found if (folder / name).is_file()}
    settings = known.get("tokenizer_config.json", {})
    try:
        if "tokenizer.json" in known and settings.get("tokenizer_class") in _WHOLE and not _MORE & settings.keys():
            tokenizer = Tokenizer.from_buffer((folder / "tokenizer.json").read_bytes())
        else:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False).backend_tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"The tokenizer in {folder} is damaged or needs code of its own ({reason(error)}); fetch it again.") from error


def from_config(build: Callable[[Path], Model], folder: Path) -> Model:
    """`build(folder)`, where the many ways to stumble over a config are one."""
    try:
        return build(folder)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{folder / 'config.json'} describes no model that can be built ({reason(error)}); fetch it again.") from error


def llm_config(folder: Path) -> LlamaConfig:
    """Of a language model's folder, or of the one inside LLaVA."""
    config = read_json(folder / "config.json")
    return LlamaConfig.from_json(config["text_config"] if config.get("model_type") == "llava" else config)


def clip_config(folder: Path) -> CLIPTextConfig:
    """Of the second text encoder's folder, of that half alone or of both."""
    return CLIPTextConfig.from_json(read_json(folder / "config.json"))


def meta_llm(folder: Path) -> Llama:
    with torch.device("meta"):
        return without_skipped_layers(llm_config(folder))


def meta_clip(folder: Path) -> CLIPText:
    with torch.device("meta"):
        return CLIPText(clip_config(folder))


def llm_name(name: str, num_layers: int) -> str | None:
    """Our name for a stored Llama tensor; None for one that is not used."""
    bare = language_model_name(name)
    layer = re.match(r"layers\.(\d+)\.", bare or "")
    is_skipped = bare == "norm.weight" or (layer is not None and num_layers <= int(layer[1]) < num_layers + SKIPPED_LAYERS)
    return None if is_skipped else bare


def language_model_name(name: str) -> str | None:
    """The name of a tensor in a bare Llama: saved as that, or with its head, or inside LLaVA by older or newer versions of transformers."""
    if re.match(r"(model\.)?(vision_tower|multi_modal_projector)\.|image_newline$", name):
        return None
    name = re.sub(r"^(model\.language_model\.|language_model\.model\.|language_model\.|model\.)", "", name)
    return None if name.startswith("lm_head.") or name.endswith("rotary_emb.inv_freq") else name


def clip_name(name: str) -> str | None:
    """Our name for a stored CLIP tensor; None for one that is not used."""
    if re.match(r"vision_model\.|visual_projection\.|text_projection\.|logit_scale$", name) or name.endswith("position_ids"):
        return None
    return name.removeprefix("text_model.")


def renamed(state: Mapping[str, Tensor | Lazy], rename: Callable[[str], str | None]) -> dict[str, Lazy]:
    return lazy({name: tensor for stored, tensor in state.items() if (name := rename(stored)) is not None})
