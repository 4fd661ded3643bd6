"""LoRA files of every dialect, in and out. They differ in the names of layers and factors, and in what they say of alpha.

    kohya       lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight, .lora_up.weight, .alpha       kohya, musubi-tuner
    tencent     Hunyuan_video_I2V_lora_double_blocks_0_img_attn_qkv.lora_down.weight, …, .alpha        the official I2V trainer
    original    diffusion_model.double_blocks.0.img_attn_qkv.lora_A.weight, .lora_B.weight             PEFT, ComfyUI, diffusion-pipe
    diffusers   transformer.transformer_blocks.0.attn.to_q.lora_A.weight, .lora_B.weight               Diffusers: fused layers in pieces

LoHa and LoKr files (LyCORIS, musubi-tuner) are read, too: products of the kinds they are have exact factors of a higher rank.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hunyuan_video.checkpoint.diffusers import Rows, in_diffusers
from hunyuan_video.checkpoint.reading import check_finite, container_of, read_state_dict, reason
from hunyuan_video.files import replacing
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.request import Adapter
from hunyuan_video.transforms.lora import Lora, LowRank, Strength, linear_layers, listed, stacked, weight_of

Dialect = Literal["kohya", "tencent", "original", "diffusers"]

# Ends of tensor names -> what it is: the factors of a matrix a @ b, or a matrix that is stored whole.
_PARTS = {
    **{f"lora_{word}{adapter}.weight": "lora_a" for word in ("up", "B") for adapter in ("", ".default")},
    **{f"lora_{word}{adapter}.weight": "lora_b" for word in ("down", "A") for adapter in ("", ".default")},
    **{name: name for matrix in ("hada_w1", "hada_w2", "lokr_w1", "lokr_w2") for name in (f"{matrix}_a", f"{matrix}_b")},
    **{name: name for name in ("lokr_w1", "lokr_w2", "alpha")},
}
_PREFIXES = re.compile(r"(lora_unet_|Hunyuan_video_I2V_lora_|base_model\.model\.|diffusion_model\.|transformer\.)*")
_PEFT_METADATA = "lora_adapter_metadata"  # where Diffusers keeps what PEFT knows, alpha for one


def read_adapter(adapter: Adapter, config: TransformerConfig) -> tuple[Lora, Strength]:
    """A LoRA for a transformer of this size, and its strength in each layer.

    Raises:
        FileNotFoundError, ValueError: as `read_lora`; or the adapter names blocks that its file does not adapt.
    """
    lora = read_lora(adapter.path, config)
    adapter.strengths.check_layers(lora.layers, adapter.path.name)
    return lora, adapter.strengths.at


def read_lora(path: str | Path, config: TransformerConfig = TransformerConfig()) -> Lora:  # noqa: B008 (frozen)
    """The LoRA in a file of any dialect, `.safetensors` or a `.pt` of plain tensors, for a transformer of this size.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds NaN or infinity, or is no LoRA for this transformer; lists the first ten reasons.
    """
    path = Path(path)
    content = read_state_dict(path)
    metadata = _metadata(path)
    alpha_of = _peft_alphas(metadata.pop(_PEFT_METADATA, None), path)
    with torch.device("meta"):
        model = HunyuanVideoTransformer(config)
    shapes = {name: weight_of(layer).shape for name, layer in linear_layers(model).items()}
    places = _spellings(shapes)

    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    problems: list[str] = []
    for key, tensor in content.items():
        layer, part = _split(key)
        if layer not in places or part is None or not isinstance(tensor, Tensor):
            problems.append(f"{key} is unknown")
        elif part in found[layer]:
            problems.append(f"{key} is there twice")
        else:
            check_finite(key, tensor, path)
            found[layer][part] = tensor

    pieces: dict[str, list[tuple[Rows, LowRank]]] = defaultdict(list)
    for layer, parts in found.items():
        name, rows = places[layer]
        expected = [sum(map(len, rows)), shapes[name][1]]
        try:
            piece = _adapter(parts, alpha_of(layer))
        except ValueError as error:
            problems.append(f"{layer} {error}")
            continue
        if (made_for := [len(piece.up), piece.down.shape[1]]) == expected:
            pieces[name].append((rows, piece))
        else:
            problems.append(f"{layer} is for a weight of shape {made_for}, not {expected}")
    if problems or not found:
        reasons = listed(problems) or "it is empty"
        raise ValueError(f"{path} is no LoRA for this transformer: {reasons}. It looks like {_looks_like(list(content))}.")
    return Lora({name: _fused(parts, shapes[name][0]) for name, parts in pieces.items()}, metadata)


def save_lora(lora: Lora, path: str | Path, dialect: Dialect, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a LoRA as `.safetensors`, whole or not at all.

    Only kohya files keep alpha apart. In the others it is multiplied in, for their readers ignore it or do not know it.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} must end in .safetensors: LoRA files are shared, and pickled ones could run code.")
    tensors: dict[str, Tensor] = {}

    def put(name: str, value: Tensor) -> None:
        tensors[name] = value.to(dtype, copy=True).contiguous()

    for name, adapter in lora.layers.items():
        flat, scaled = name.replace(".", "_"), adapter.scale * adapter.up.float()
        if dialect == "kohya":
            put(f"lora_unet_{flat}.lora_down.weight", adapter.down)
            put(f"lora_unet_{flat}.lora_up.weight", adapter.up)
            tensors[f"lora_unet_{flat}.alpha"] = torch.tensor(adapter.alpha)
        elif dialect == "tencent":
            put(f"Hunyuan_video_I2V_lora_{flat}.lora_down.weight", adapter.down)
            put(f"Hunyuan_video_I2V_lora_{flat}.lora_up.weight", scaled)
            tensors[f"Hunyuan_video_I2V_lora_{flat}.alpha"] = torch.tensor(float(adapter.rank))
        elif dialect == "original":
            put(f"diffusion_model.{name}.lora_A.weight", adapter.down)
            put(f"diffusion_model.{name}.lora_B.weight", scaled)
        else:
            for piece, rows in in_diffusers(name, len(adapter.up), adapter.down.shape[1]).items():
                up = scaled[_index(rows)]
                used = up.any(dim=0)  # a layer fused of pieces gives each its own factors back; a piece that was not there stays away
                if not adapter.up.any():
                    used[:] = True
                if used.any():
                    put(f"transformer.{piece}.lora_A.weight", adapter.down[used])
                    put(f"transformer.{piece}.lora_B.weight", up[:, used])
    with replacing(path) as (temporary, _):
        save_file(tensors, temporary, metadata={"format": "pt", **lora.metadata})


def _spellings(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, Rows]]:
    """Every name of a layer, or of a piece of one, in any dialect -> its official name and its rows there."""
    places: dict[str, tuple[str, Rows]] = {}
    for name, (out_features, in_features) in shapes.items():
        for spelling in (name, name.replace(".", "_"), name.replace("attn_", "attn.")):
            places[spelling] = name, (range(out_features),)
        places |= {piece: (name, rows) for piece, rows in in_diffusers(name, out_features, in_features).items()}
    return places


def _split(key: str) -> tuple[str, str | None]:
    """A tensor's name as the layer, without prefix, and what of it this is; None for nothing known."""
    key = _PREFIXES.sub("", key, count=1)
    return next(((key.removesuffix(f".{end}"), part) for end, part in _PARTS.items() if key.endswith(f".{end}")), (key, None))


def _adapter(parts: dict[str, Tensor], alpha: float | None) -> LowRank:
    """One adapter from what a file has of it. Raises a ValueError that continues the sentence of its name."""
    factors = {name: tensor.float() for name, tensor in parts.items() if name != "alpha"}
    if any(tensor.ndim != 2 for tensor in factors.values()) or ("alpha" in parts and parts["alpha"].numel() != 1):
        raise ValueError("has factors that are no matrices, or an alpha that is no number")
    if "alpha" in parts:
        alpha = parts["alpha"].item()
    names = sorted({name.removesuffix("_a").removesuffix("_b") for name in factors})
    matrices = [_factored(name, factors) for name in names]
    if names == ["lora"]:
        ((up, down),) = matrices
    elif names == ["hada_w1", "hada_w2"]:  # (a1 b1) * (a2 b2), elementwise
        (a1, b1), (a2, b2) = matrices
        if len(a1) != len(a2) or b1.shape[1] != b2.shape[1]:
            raise ValueError("has two matrices of different shapes")
        up = rearrange(a1[:, :, None] * a2[:, None], "rows p q -> rows (p q)")
        down = rearrange(b1[:, None] * b2[None], "p q columns -> (p q) columns")
    elif names == ["lokr_w1", "lokr_w2"]:  # kron(a1 b1, a2 b2)
        (a1, b1), (a2, b2) = matrices
        up, down = torch.kron(a1, a2), torch.kron(b1, b2)
    else:
        raise ValueError(f"has only {' and '.join(names) or 'alpha'}")
    # alpha is relative to the rank that was trained; a Kronecker product of two whole matrices has none, and no alpha.
    trained = next((len(tensor) for name, tensor in factors.items() if name.endswith("_b")), None)
    return LowRank(down, up, float(len(down)) if alpha is None or trained is None else alpha * (len(down) / trained))


def _factored(name: str, factors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A matrix as the product that it is stored as, or as itself times one."""
    if name in factors:
        whole = factors[name]
        rows, columns = whole.shape
        return (whole, torch.eye(columns)) if columns <= rows else (torch.eye(rows), whole)
    a, b = factors.get(f"{name}_a"), factors.get(f"{name}_b")
    if a is None or b is None:
        raise ValueError(f"lacks one of its two factors ({name})")
    if not a.shape[1] == len(b) > 0:
        raise ValueError(f"has factors of rank {a.shape[1]} and {len(b)}")
    return a, b


def _index(rows: Rows) -> Tensor:
    return torch.cat([torch.arange(part.start, part.stop) for part in rows])


def _fused(pieces: list[tuple[Rows, LowRank]], num_rows: int) -> LowRank:
    """One adapter of a whole layer from those of its pieces. Pieces that share `down` go on sharing it; others get blocks of their own."""
    placed: list[LowRank] = []
    for rows, piece in pieces:
        up = torch.zeros(num_rows, piece.rank)
        up[_index(rows)] = piece.up
        placed.append(LowRank(piece.down, up, piece.alpha))
    first = placed[0]
    if all(torch.equal(piece.down, first.down) and piece.alpha == first.alpha for piece in placed):
        return LowRank(first.down, torch.stack([piece.up for piece in placed]).sum(0), first.alpha)
    return stacked(placed)


def _metadata(path: Path) -> dict[str, str]:
    if container_of(path) != "safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def _peft_alphas(text: str | None, path: Path) -> Callable[[str], float | None]:
    """What the metadata of a file from Diffusers says of a layer's alpha; without metadata, nothing."""
    if text is None:
        return lambda _layer: None
    try:
        settings = {key.removeprefix("transformer."): value for key, value in json.loads(text).items()}
        default, exceptions = float(settings["lora_alpha"]), dict(settings.get("alpha_pattern") or {})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} has damaged PEFT settings in its header ({reason(error)}); fetch it again.") from error
    if settings.get("use_rslora"):
        raise ValueError(f"{path} is scaled by the root of its rank (rsLoRA), which is not supported; save it as a plain LoRA.")

    def alpha(layer: str) -> float:
        matching = (value for name, value in exceptions.items() if f".{layer}".endswith(f".{name.removeprefix('^')}"))
        return float(next(matching, default))

    return alpha


def describe(content: Mapping[str, Tensor]) -> tuple[str, list[int], list[str]] | None:
    """What the names in a LoRA file say without a model to fit it to: its dialect, its ranks, and its targets ("img_attn_qkv in
    double_blocks (20)", the number of blocks); None if it is no LoRA."""
    ranks: set[int] = set()
    blocks: dict[str, set[str]] = defaultdict(set)
    for key, tensor in content.items():
        layer, part = _split(key)
        if part is None or part == "alpha":
            continue
        if part.endswith("_b") and tensor.ndim == 2:
            ranks.add(len(tensor))
        place = re.search(r"((?:double|single|refiner|transformer)_blocks|blocks)[._](\d+)[._](.+)", layer)
        blocks[f"{place[3]} in {place[1]}" if place else layer].add(place[2] if place else "")
    targets = [f"{target} ({len(found)})" for target, found in sorted(blocks.items())]
    return (_looks_like(list(content)), sorted(ranks), targets) if targets else None


def _looks_like(keys: list[str]) -> str:
    signs = {
        ".lokr_": "a LoKr file",
        ".hada_": "a LoHa file",
        "Hunyuan_video_I2V_lora_": "a LoRA of Tencent's I2V trainer",
        "lora_unet_": "a kohya LoRA",
        "transformer_blocks.": "a LoRA from Diffusers",
        ".lora_A.": "a PEFT LoRA with original names",
        "double_blocks.": "whole weights of HunyuanVideo",
    }
    return next((what for sign, what in signs.items() if any(sign in key for key in keys)), "something else")
