"""LoRA files of every dialect, in and out. They differ in the names of layers and factors, and in what they say of alpha.

    kohya       lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight, .lora_up.weight, .alpha       kohya, musubi-tuner
    tencent     Hunyuan_video_I2V_lora_double_blocks_0_img_attn_qkv.lora_down.weight, …, .alpha        the official I2V trainer
    original    diffusion_model.double_blocks.0.img_attn_qkv.lora_A.weight, .lora_B.weight             PEFT, ComfyUI, diffusion-pipe
    diffusers   transformer.transformer_blocks.0.attn.to_q.lora_A.weight, .lora_B.weight               Diffusers: fused layers in pieces

These are written. Read are many more spellings (`lora_names`), alphas that stand elsewhere (`lora_settings`), LoHa and LoKr files, and
differences of whole weights: products of the kinds they are have exact factors of a higher rank.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hunyuan_video.checkpoint.diffusers import Rows, in_diffusers
from hunyuan_video.checkpoint.lora_names import is_of_flux, looks_like, spellings, split, why_not
from hunyuan_video.checkpoint.lora_settings import read_settings
from hunyuan_video.checkpoint.reading import container_of, plain_tensors, read_state_dict
from hunyuan_video.files import replacing
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.request import Adapter
from hunyuan_video.transforms.lora import Lora, LowRank, Strength, listed, stacked
from hunyuan_video.weights import lora_file

Dialect = Literal["kohya", "tencent", "original", "diffusers"]

# Under what a pickle may keep the tensors, beside an optimizer, a step and settings.
_WRAPPERS = ("state_dict", "model_state_dict", "lora_state_dict", "lora", "module", "model", "transformer", "network", "weights", "ema")
_FLUX = "{} is a LoRA of FLUX, whose layers have names and shapes like these, but another meaning."
_BIASES = {"diff_b", "lora_bias"}
Factors = tuple[Tensor, ...]  # a matrix: two factors of it, or itself alone


def read_adapter(adapter: Adapter, config: TransformerConfig) -> tuple[Lora, Strength]:
    """A LoRA for a transformer of this size, and its strength in each layer.

    Raises:
        FileNotFoundError, ValueError: as `read_lora`; or the adapter names blocks that its file does not adapt.
    """
    lora = read_lora(adapter.path, config)
    adapter.strengths.check_layers([*lora.layers, *lora.offsets], adapter.path.name)
    return lora, adapter.strengths.at


def read_lora(path: str | Path, config: TransformerConfig = TransformerConfig()) -> Lora:  # noqa: B008 (frozen)
    """The LoRA in a file of any dialect, `.safetensors` or a `.pt` of plain tensors, or in a folder that a trainer left, for a transformer
    of this size. What decides its strength is honoured wherever it stands.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds NaN or infinity, or is no LoRA for this transformer; lists the first ten reasons.
    """
    path = lora_file(Path(path))
    content, beside = unwrapped(read_state_dict(path), path)
    content = plain_tensors(content, path)
    metadata = _header(path) | beside
    if _says_flux(metadata):
        raise ValueError(_FLUX.format(path))
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in HunyuanVideoTransformer(config).named_parameters()}
    places = spellings({name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")})
    found, keys, problems = _found(content, places, path)
    settings, trained_with = read_settings(path, metadata), _trained_with(metadata)

    pieces: dict[str, list[tuple[Rows, LowRank]]] = defaultdict(list)
    changes: dict[str, list[tuple[Rows, Tensor]]] = defaultdict(list)
    broken: list[str] = []
    for layer, parts in found.items():
        name, rows = places[layer]
        try:
            rank = _checked_rank(parts, (sum(map(len, rows)), *shapes[f"{name}.weight"][1:]), has_bias=f"{name}.bias" in shapes)
            if trained_with is not None and keys.get((layer, "lora_b"), "").endswith(".lora_down.weight") and "alpha" not in parts:
                raise ValueError(f"has no alpha, but the header tells of a training with {trained_with}; set the layer's alpha")
        except ValueError as error:
            problems.append(f"{layer} {error}")
            continue
        parts = {part: tensor.float() for part, tensor in parts.items()}
        if unusable := [keys[layer, part] for part, tensor in parts.items() if not tensor.isfinite().all()]:
            broken += unusable
            continue
        adapter, offsets = _adapter(parts, settings.alpha_of(layer, rank))
        if adapter is not None:
            pieces[name].append((rows, adapter))
        for own, offset in offsets.items():
            changes[f"{name}.{own}"].append((rows, offset))
    for name, placed in (pieces | changes).items():
        if _overlap([rows for rows, _ in placed]):
            problems.append(f"{name} is there twice, under two names")
    if problems or not found:
        reasons = listed(problems) or "it is empty"
        raise ValueError(f"{path} is no LoRA for this transformer: {reasons}. It looks like {looks_like(content)}.")
    if broken:
        raise ValueError(
            f"{path} holds NaN or infinity in {listed(broken)}: it is damaged, or its training failed; fetch it again, or use another."
        )
    if is_of_flux(pieces, (config.num_double_blocks, config.num_single_blocks)):
        raise ValueError(_FLUX.format(path))
    return Lora(
        {name: _fused(placed, shapes[f"{name}.weight"][0]) for name, placed in pieces.items()},
        {key: str(value) for key, value in metadata.items()},
        {name: _joined(placed, shapes[name]) for name, placed in changes.items()},
    )


def _found(
    content: Mapping[str, Any], places: Mapping[str, Any], path: Path
) -> tuple[dict[str, dict[str, Tensor]], dict[tuple[str, str], str], list[str]]:
    """The tensors of each layer, in the file's spelling, by what they are; how the file calls each; and what is wrong with names."""
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    keys: dict[tuple[str, str], str] = {}
    adapters: set[str | None] = set()
    problems: list[str] = []
    for key, tensor in content.items():
        layer, part, adapter = split(key)
        if layer not in places or part is None or not isinstance(tensor, Tensor):
            problems.append(f"{key} {why_not(key)}")
        elif part in found[layer]:
            problems.append(f"{key} is there twice")
        else:
            found[layer][part], keys[layer, part] = tensor, key
        if part in ("lora_a", "lora_b"):
            adapters.add(adapter)
    if len(adapters) > 1:
        names = ", ".join(sorted(name or "one without a name" for name in adapters))
        raise ValueError(f"{path} holds several adapters ({names}); save the one that is wanted as a file of its own.")
    return found, keys, problems


def unwrapped(content: dict, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a file, taken out of whatever wraps them; and what stands beside them.

    Raises:
        ValueError: it holds several LoRAs.
    """
    said: dict[str, Any] = {}
    for _ in range(len(_WRAPPERS)):  # and no deeper: a pickle may hold itself
        inner = [key for key in _WRAPPERS if isinstance(content.get(key), dict)]
        loras = [key for key in inner if any(split(str(name))[1] for name in content[key])]
        if len(loras) > 1:
            raise ValueError(f"{path} holds several LoRAs ({', '.join(loras)}); save the one that is wanted as a file of its own.")
        beside = {key: value for key, value in content.items() if isinstance(key, str) and key not in inner}
        settings = [value for key, value in beside.items() if isinstance(value, dict) and ("lora" in key or "config" in key)]
        for facts in (beside, *settings):
            said |= {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
        if not inner:
            break
        content = content[(loras or inner)[0]]
    return {str(key): value for key, value in content.items() if not isinstance(value, str | int | float)}, said


def save_lora(lora: Lora, path: str | Path, dialect: Dialect, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a LoRA as `.safetensors`, whole or not at all.

    Only kohya files keep alpha apart. In the others it is multiplied in, for their readers ignore it or do not know it.

    Raises:
        ValueError: the name ends in something else; or the LoRA changes biases or norms, which this dialect has no names for.
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
    for name, offset in lora.offsets.items():
        layer, _, own = name.rpartition(".")
        if dialect not in ("kohya", "original"):
            raise ValueError(f"{name} is changed by this LoRA, which a file of dialect {dialect} cannot say; write kohya or original.")
        prefix = f"lora_unet_{layer.replace('.', '_')}" if dialect == "kohya" else f"diffusion_model.{layer}"
        put(f"{prefix}.{'diff_b' if own == 'bias' else 'diff'}", offset)
    with replacing(path) as (temporary, _):
        save_file(tensors, temporary, metadata={"format": "pt", **lora.metadata})


def _checked_rank(parts: Mapping[str, Tensor], expected: tuple[int, ...], *, has_bias: bool) -> int:
    """The rank that a layer's tensors were trained with, once their shapes fit its weight and bias: nothing has been computed before.

    Raises a ValueError that continues the sentence of the layer's name.
    """
    if other := [tensor.dtype for name, tensor in parts.items() if name != "alpha" and not tensor.is_floating_point()]:
        raise ValueError(f"has factors of {other[0]}, which are no numbers without their scale")
    for name in _BIASES & parts.keys():
        if not has_bias or parts[name].shape != expected[:1]:
            raise ValueError(f"is for a bias of shape {[*parts[name].shape]}, not {[*expected[:1]] if has_bias else 'for none'}")
    if len(expected) != 2:
        if parts.keys() - {"diff", "diff_b"}:
            raise ValueError("is no linear layer, and only those can have an adapter")
        if "diff" in parts and parts["diff"].shape != expected:
            raise ValueError(f"is for a weight of shape {[*parts['diff'].shape]}, not {[*expected]}")
        return 1
    factors = _factors(parts)
    if any(tensor.ndim != 2 for tensor in factors.values()) or ("alpha" in parts and parts["alpha"].numel() != 1):
        raise ValueError("has factors that are no matrices, or an alpha that is no number")
    names = _matrix_names(factors)
    if not names and parts.keys() == {"diff_b"}:
        return 1
    matrices = [_factored(name, factors) for name in names]
    sizes = [(len(matrix[0]), matrix[-1].shape[1]) for matrix in matrices]
    if names == ["lokr_w1", "lokr_w2"]:
        made_for = sizes[0][0] * sizes[1][0], sizes[0][1] * sizes[1][1]
    elif names in (["lora"], ["diff"], ["hada_w1", "hada_w2"]):
        made_for = sizes[0]
        if sizes[0] != sizes[-1]:
            raise ValueError("has two matrices of different shapes")
    else:
        raise ValueError(f"has only {' and '.join(names or sorted(parts))}")
    if made_for != expected:
        raise ValueError(f"is for a weight of shape {[*made_for]}, not {[*expected]}")
    rank = max((len(matrix[1]) for matrix in matrices if len(matrix) == 2), default=1)
    if rank > max(expected):
        raise ValueError(f"is of rank {rank}, more than a weight of shape {[*expected]} can use")
    return rank


def _adapter(parts: Mapping[str, Tensor], alpha: float | None) -> tuple[LowRank | None, dict[str, Tensor]]:
    """What a file has of a layer, in finite float32 tensors of checked sizes: an adapter of its weight; and what is added to its parameters
    besides. `alpha` is for a layer without its own."""
    offsets = {"bias": parts["diff_b"]} if "diff_b" in parts else {}
    factors = _factors(parts)
    if "diff" in factors and factors["diff"].ndim != 2:
        return None, offsets | {"weight": factors["diff"]}
    if not factors:
        return None, offsets
    if "alpha" in parts:
        alpha = parts["alpha"].item()
    names = _matrix_names(factors)
    matrices = [_factored(name, factors) for name in names]
    if names == ["lora"]:
        up, down = matrices[0]
    elif names == ["diff"]:
        up, down = _compact(matrices[0])
    elif names == ["hada_w1", "hada_w2"]:  # (a1 b1) * (a2 b2), elementwise
        (a1, b1), (a2, b2) = map(_compact, matrices)
        if a1.shape[1] * a2.shape[1] > min(len(a1), b1.shape[1]):
            up, down = _compact(((a1 @ b1) * (a2 @ b2),))
        else:
            up = rearrange(a1[:, :, None] * a2[:, None], "rows p q -> rows (p q)")
            down = rearrange(b1[:, None] * b2[None], "p q columns -> (p q) columns")
    else:  # kron(a1 b1, a2 b2)
        (a1, b1), (a2, b2) = map(_compact, matrices)
        up, down = torch.kron(a1, a2), torch.kron(b1, b2)
    # alpha is relative to the rank that was trained; a Kronecker product of two whole matrices has none, and no alpha.
    trained = next((len(tensor) for name, tensor in factors.items() if name.endswith("_b")), None)
    adapter = LowRank(down, up, float(len(down)) if alpha is None or trained is None else alpha * (len(down) / trained))
    if "lora_bias" in parts:
        offsets["bias"] = offsets.get("bias", 0) + adapter.scale * parts["lora_bias"]
    return adapter, offsets


def _factors(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in parts.items() if name not in ("alpha", *_BIASES)}


def _matrix_names(factors: Mapping[str, Tensor]) -> list[str]:
    return sorted({name.removesuffix("_a").removesuffix("_b") for name in factors})


def _factored(name: str, factors: Mapping[str, Tensor]) -> Factors:
    if name in factors:
        return (factors[name],)
    a, b = factors.get(f"{name}_a"), factors.get(f"{name}_b")
    if a is None or b is None:
        raise ValueError(f"lacks one of its two factors ({name})")
    if not a.shape[1] == len(b) > 0:
        raise ValueError(f"has factors of rank {a.shape[1]} and {len(b)}")
    return a, b


def _compact(matrix: Factors) -> tuple[Tensor, Tensor]:
    """Two factors whose rank is no higher than the matrix has rows or columns."""
    if len(matrix) == 2:
        a, b = matrix
        if len(b) <= min(len(a), b.shape[1]):
            return a, b
        matrix = (a @ b,)
    rows, columns = matrix[0].shape
    return (matrix[0], torch.eye(columns)) if columns <= rows else (torch.eye(rows), matrix[0])


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


def _joined(pieces: list[tuple[Rows, Tensor]], shape: torch.Size) -> Tensor:
    """What is added to a whole parameter, from what is added to its rows."""
    whole = torch.zeros(shape)
    for rows, piece in pieces:
        whole[_index(rows)] = piece
    return whole


def _overlap(places: list[Rows]) -> bool:
    spans = sorted((part.start, part.stop) for part in chain(*places))
    return any(stop > start for (_, stop), (start, _) in pairwise(spans))


def _header(path: Path) -> dict[str, Any]:
    if container_of(path) != "safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def _trained_with(metadata: dict[str, Any]) -> str | None:
    """What the ss_… entries say of alpha, where it is not the rank. They would not be true of what is written of this file."""
    alpha, rank = (str(said).removesuffix(".0") for said in (metadata.pop("ss_network_alpha", None), metadata.get("ss_network_dim")))
    return None if alpha in ("None", rank) else f"alpha {alpha} at rank {rank}"


def _says_flux(metadata: Mapping[str, Any]) -> bool:
    said = (str(metadata.get(key)) for key in ("modelspec.architecture", "ss_base_model_version", "ss_network_module"))
    return any("flux" in text.lower() for text in said)


def describe(content: Mapping[str, Any]) -> tuple[str, list[int], list[str]] | None:
    """What the names in a LoRA file say without a model to fit it to: its dialect, its ranks, and its targets ("img_attn_qkv in
    double_blocks (20)", the number of blocks); None if it is no LoRA."""
    ranks: set[int] = set()
    blocks: dict[str, set[str]] = defaultdict(set)
    for key, tensor in content.items():
        layer, part, _ = split(key)
        if part is None or part == "alpha":
            continue
        if part.endswith("_b") and len(tensor.shape) == 2:
            ranks.add(len(tensor))
        place = re.search(r"((?:double|single|refiner|transformer)_blocks|blocks)[._](\d+)[._](.+)", layer)
        blocks[f"{place[3]} in {place[1]}" if place else layer].add(place[2] if place else "")
    targets = [f"{target} ({len(found)})" for target, found in sorted(blocks.items())]
    return (looks_like(content), sorted(ranks), targets) if targets else None
