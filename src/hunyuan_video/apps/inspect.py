"""What is in a weight file or folder, told from its contents. Reads names, shapes and dtypes; hardly any numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hunyuan_video.checkpoint import differences, model_type, read_vae
from hunyuan_video.checkpoint.convert import whole_model
from hunyuan_video.checkpoint.kinds import kind_of
from hunyuan_video.checkpoint.lazy import Lazy
from hunyuan_video.checkpoint.lora import describe, unwrapped
from hunyuan_video.checkpoint.reading import container_of, plain_tensors, read_folder, read_state_dict
from hunyuan_video.checkpoint.stored import StoredTransformer, open_transformer, unwrap
from hunyuan_video.config import Conditioning
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.transforms.lora import listed
from hunyuan_video.weights import I2V, lora_in


def report(path: Path) -> str:
    """Everything about a file, a folder of one model, or the root of a whole one, as text for a person.

    Raises:
        FileNotFoundError, ValueError: it is missing, damaged, or nothing of HunyuanVideo.
    """
    root = whole_model(path) if path.is_dir() else None
    if root is None:
        return _table(_part(path))
    parts = {"transformer": root.transformer, "vae": root.vae, "text_encoder": root.text_encoder, "text_encoder_2": root.text_encoder_2}
    layout = "Diffusers folder" if root.is_diffusers else "official tree"
    begins = f", image to video ({_TOLD[root.conditioning]})" if root.image_to_video else ""
    other = root.root / I2V
    beside = f"\n{other} is there, too: inspect it by this name." if other.is_dir() and not root.sees else ""
    tables = (f"{name}: {part}\n{_table(_part(part, sees=root.sees))}" for name, part in parts.items())
    return "\n\n".join([f"{path}: {layout}{begins}{beside}", *tables])


_TOLD: dict[Conditioning, str] = {"first_frame": "first frame given clean", "latent_concat": "picture and mask on channels of their own"}


def _part(path: Path, *, sees: bool = False) -> dict[str, str]:
    if path.is_dir() and (path / "config.json").is_file() and (kind := model_type(path)):
        return _text_encoder(kind, path, sees=sees)
    path = (lora_in(path) if path.is_dir() else None) or path
    content = read_folder(path) if path.is_dir() else read_state_dict(path)
    container = "folder" if path.is_dir() else container_of(path)
    found, _ = unwrapped(content, path)
    if (lora := describe(found)) is not None:
        tensors = plain_tensors(found, path)
        dialect, ranks, targets = lora
        sizes = {"rank": ", ".join(map(str, ranks)) or "none", "targets": listed(targets)}
        return {"format": container, "model": dialect, **_numbers(tensors), **sizes}
    load_key = "module" if "module" in content or "ema" not in content else "ema"
    tensors = plain_tensors(unwrap(content, path, load_key), path)
    kind = kind_of(tensors)
    if kind == "a HunyuanVideo VAE":
        return _vae(path, container)
    if kind not in (None, "a HunyuanVideo transformer"):
        return {"format": container, "model": f"{kind}, which is not of HunyuanVideo's transformers and VAEs", **_numbers(tensors)}
    stored = open_transformer(path, load_key)
    wrapper = f", under {load_key!r}" if load_key in content else ""
    return {"format": f"{container}, {stored.layout} layout{wrapper}", **_transformer(stored, tensors)}


def _transformer(stored: StoredTransformer, tensors: Mapping[str, Tensor | Lazy]) -> dict[str, str]:
    config = stored.config
    is_released = config in (TransformerConfig(), TransformerConfig(guidance_embed=False))
    sizes = f"{config.num_double_blocks} + {config.num_single_blocks} blocks of width {config.hidden_size}"
    with torch.device("meta"):
        model = HunyuanVideoTransformer(config)
    return {
        "model": f"HunyuanVideo transformer{' (the released 13B)' if is_released else ''}, {sizes}",
        "guidance": "embedded" if config.guidance_embed else "none embedded: uses cfg_scale",
        "input": f"{config.in_channels} channels" + (", image to video" if config.in_channels > config.out_channels else ""),
        **_numbers(stored.state),
        "8 bits": f"{len(stored.scales)} layers" if stored.scales else "none",
        "differs": listed(differences(model.state_dict(), stored.state)) or "in nothing",
    }


def _vae(path: Path, container: str) -> dict[str, str]:
    config, state = read_vae(path)
    with torch.device("meta"):
        expected = CausalVAE(config).state_dict()
    what = f"HunyuanVideo VAE, {config.latent_channels} latent channels"
    return {"format": container, "model": what, **_numbers(state), "differs": listed(differences(expected, state)) or "in nothing"}


def _text_encoder(kind: str, path: Path, *, sees: bool) -> dict[str, str]:
    used = "which sees the picture" if sees else "of which the language model is used"
    known = {"llama": "Llama text encoder", "llava": f"un-cut LLaVA, {used}", "clip": "CLIP"}
    return {
        "format": "Hugging Face folder",
        "model": known.get(kind.removesuffix("_text_model"), kind),
        **_numbers(plain_tensors(read_folder(path), path)),
    }


def _numbers(tensors: Mapping[str, Tensor | Lazy]) -> dict[str, str]:
    count: Counter[str] = Counter()
    for tensor in tensors.values():
        count[str(tensor.dtype).removeprefix("torch.")] += torch.Size(tensor.shape).numel()
    total = sum(count.values())
    shares = ", ".join(f"{dtype} {number / max(total, 1):.0%}" for dtype, number in count.most_common())
    return {"dtype": shares, "parameters": f"{total:,} in {len(tensors)} tensors"}


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(f"  {name:<11} {text}" for name, text in rows.items())
