"""What decides how strongly a LoRA acts and stands outside its tensors: in the file's header, beside them in a pickle, or in a file that
the trainer left next to it.

    lora_adapter_metadata, lora_config    JSON in the header         Diffusers, finetrainers
    adapter_config.json                   beside adapter_model.*     PEFT, diffusion-pipe
    lora_config.json                      beside pytorch_lora_…      FastVideo
    lora_alpha, network_alpha, alpha      in the header or pickle    other tools

The ss_… entries of kohya and musubi-tuner tell of the training: their files have the alphas as tensors, and where a conversion has
multiplied them in, the entries stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from hunyuan_video.checkpoint.reading import read_json, reason

_JSON_IN_HEADER = ("lora_adapter_metadata", "lora_config")
_ALPHAS = ("lora_alpha", "network_alpha", "alpha")
_SCALES = ("scale", "lora_scale", "scaling", "weight_scale", "multiplier")
_SWITCHES = ("use_rslora", "use_dora")


@dataclass(frozen=True)
class Settings:
    """What is said of alpha, for layers that have none of their own."""

    alpha: float | None = None
    exceptions: dict[str, float] = field(default_factory=dict)
    """by names or ends of names of layers; one that begins with ^ is a whole name"""
    rslora: bool = False

    def alpha_of(self, layer: str, rank: int) -> float | None:
        """Of a layer, by its name in the file; None where nothing is said. Rank-stabilized, the scale is alpha / sqrt(rank)."""
        matching = (alpha for name, alpha in self.exceptions.items() if _names(name, layer))
        alpha = next(matching, self.alpha)
        return alpha * sqrt(rank) if self.rslora and alpha is not None else alpha


def read_settings(file: Path, metadata: dict[str, Any]) -> Settings:
    """What `metadata`, of the file itself, and the trainer's file beside it say. What was used is taken out of `metadata`, for it is true
    of this file alone.

    Raises:
        ValueError: it is damaged, contradicts itself, or says something that cannot be honoured.
    """
    sources: dict[str, dict[str, Any]] = {}
    for key in _JSON_IN_HEADER:
        if (text := metadata.pop(key, None)) is not None:
            sources[f"the entry {key} of its header"] = _parsed(text, file)
    if said := {key: metadata.pop(key) for key in (*_ALPHAS, *_SCALES, *_SWITCHES) if key in metadata}:
        sources["its header"] = said
    for start, name in (("adapter_model.", "adapter_config.json"), ("pytorch_lora_weights.", "lora_config.json")):
        if file.name.startswith(start) and (beside := file.with_name(name)).is_file():
            content = read_json(beside)
            sources[name] = content.get("lora_params", content)
    try:
        found = {source: _settings(content) for source, content in sources.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} has damaged PEFT settings ({reason(error)}); fetch it again, with the files beside it.") from error
    for source, content in sources.items():
        if why := _refused(content):
            raise ValueError(f"{file} cannot be used: {source} says that {why}")
    told = [settings for settings in found.values() if settings != Settings()]
    if any(settings != told[0] for settings in told):
        raise ValueError(f"{file} has two alphas: {' and '.join(found)} contradict each other; remove the wrong one.")
    return told[0] if told else Settings()


def _parsed(text: object, file: Path) -> dict[str, Any]:
    try:
        content = text if isinstance(text, dict) else json.loads(str(text))
        return {key.removeprefix("transformer."): value for key, value in content.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} has damaged PEFT settings in its header ({reason(error)}); fetch it again.") from error


def _settings(content: Mapping[str, Any]) -> Settings:
    alphas = {_number(content[key]) for key in _ALPHAS if content.get(key) is not None}
    if len(alphas) > 1:
        raise ValueError(f"alpha is {' and '.join(map(str, sorted(alphas)))}")
    exceptions = {str(name): _number(value) for name, value in dict(content.get("alpha_pattern") or {}).items()}
    if (exceptions or _is_on(content, "use_rslora") or "r" in content) and not alphas:
        raise ValueError("there is no lora_alpha")
    return Settings(next(iter(alphas), None), exceptions, _is_on(content, "use_rslora"))


def _refused(content: Mapping[str, Any]) -> str | None:
    """What cannot be honoured, as the end of a sentence."""
    kind = str(content.get("peft_type") or "LORA")
    if kind.rpartition(".")[2].upper() != "LORA":
        return f"it is a {kind} of PEFT, not a LoRA; save it as one."
    if _is_on(content, "use_dora"):
        return "it is a DoRA, which scales the rows of the whole weight; that is not supported."
    for name in dict(content.get("alpha_pattern") or {}):
        if re.fullmatch(r"\^?[\w.-]+", name) is None:  # a regular expression of a stranger may take forever
            return f"alpha is another one where a name matches {name!r}; only names are understood there."
    for key in _SCALES:
        if key in content and _number(content[key]) != 1:
            return f"{key} is {content[key]}, which tools understand differently; remove that entry, and give the strength with the file."
    return None


def _names(pattern: str, layer: str) -> bool:
    return layer == pattern[1:] if pattern.startswith("^") else f".{layer}".endswith(f".{pattern}")


def _number(value: object) -> float:
    number = float(str(value))
    if not isfinite(number):
        raise ValueError(f"alpha is {number}")
    return number


def _is_on(content: Mapping[str, Any], key: str) -> bool:
    return str(content.get(key)).lower() in ("true", "1")
