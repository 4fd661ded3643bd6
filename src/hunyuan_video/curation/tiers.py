"""Tiers: sets of clips for a training's stages, each better than the one before; and all thresholds, which stand in one TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from hunyuan_video.curation.balance import Concepts
from hunyuan_video.curation.duplicates import Alike
from hunyuan_video.curation.shots import Transitions
from hunyuan_video.curation.start import Lengths

Scores = dict[str, Any]
T = TypeVar("T")
ALWAYS = {"side": 16.0, "kept": 0.1}  # of less there is no clip

OURS = Path(__file__).with_name("thresholds.toml")
# Of each measure, in the order of the stages that take them, the reason by which a clip falls that has too little of it, or too much.
REASONS: dict[str, tuple[str, str]] = {
    "frames": ("too short", "too long"),
    "side": ("too small", "too large"),
    "blur": ("too crisp", "blurred"),
    "dark": ("not dark", "dark"),
    "bright": ("not bright", "overexposed"),
    "contrast": ("flat", "harsh"),
    "blocks": ("no blocks", "blocky"),
    "brisque": ("too natural", "distorted (BRISQUE)"),
    "aesthetic": ("not beautiful", "too beautiful"),
    "vectors": ("static (motion vectors)", "fast (motion vectors)"),
    "flow": ("static", "fast"),
    "still": ("not frozen", "frozen"),
    "text_area": ("little text", "much text"),
    "kept": ("overlays", "no overlays"),
    "text": ("no text", "text"),
    "unsafe": ("safe", "unsafe"),
}


@dataclass(frozen=True)
class Tier:
    """Of each measure how much a clip must have at least, and may have at most."""

    name: str
    least: Mapping[str, float]
    most: Mapping[str, float]

    def refuses(self, scores: Scores) -> str | None:
        """Why a clip does not belong here, by what of it has been measured so far; None if nothing speaks against it."""
        for measure, (too_little, too_much) in REASONS.items():
            if (value := scores.get(measure)) is not None:
                if value < self.least.get(measure, float("-inf")):
                    return too_little
                if value > self.most.get(measure, float("inf")):
                    return too_much
        return None


@dataclass(frozen=True)
class Thresholds:
    """All of the file."""

    transitions: Transitions
    lengths: Lengths
    alike: Alike
    concepts: Concepts
    tiers: tuple[Tier, ...]

    @property
    def measured(self) -> frozenset[str]:
        """What any tier limits."""
        return frozenset(measure for tier in self.tiers for limits in (tier.least, tier.most) for measure in limits)

    def refuse(self, scores: Scores) -> str | None:
        """Why a clip belongs to no tier: what the lowest one says; None if one may take it."""
        reasons = [tier.refuses(scores) for tier in self.tiers]
        return None if None in reasons else reasons[0]


def read(path: Path = OURS) -> Thresholds:
    """Raises a ValueError that names what is wrong in the file."""
    try:
        whole = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML ({error}); start from a copy of {OURS}.") from error
    _only(path, "the file", whole, {"transitions", "lengths", "alike", "concepts", "tier"})
    _only(path, "tier", whole.get("tier", {}), whole.get("tier", {}))
    tiers = tuple(_tier(path, name, limits) for name, limits in whole.get("tier", {}).items())
    if not tiers:
        raise ValueError(f"{path} has no tier; it needs one such as [tier.256p], the lowest first.")
    transitions = _part(path, "transitions", whole, Transitions, learned=None)
    return Thresholds(
        transitions,
        _part(path, "lengths", whole, Lengths),
        _part(path, "alike", whole, Alike),
        _part(path, "concepts", whole, Concepts),
        tiers,
    )


def _tier(path: Path, name: str, limits: Any) -> Tier:
    if not re.fullmatch(r"[\w-]+", name) or name == "clips":
        raise ValueError(f"{path}: a tier is called {name!r}; letters, digits, '_' and '-' make its file's name, which is not clips.")
    _only(path, f"[tier.{name}]", limits, {"least", "most"})
    least, most = (_numbers(path, f"{side} of [tier.{name}]", limits.get(side, {}), REASONS) for side in ("least", "most"))
    return Tier(name, least | {measure: max(value, least.get(measure, value)) for measure, value in ALWAYS.items()}, most)


def _part(path: Path, name: str, whole: Mapping[str, Any], kind: type[T], **unsaid: Any) -> T:
    """A table; what it does not say is as `unsaid`, or as the class has it."""
    defaults = {field.name: field.default for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    given: dict[str, Any] = _numbers(path, f"[{name}]", whole.get(name, {}), defaults)
    for key in given:
        if isinstance(defaults[key], int):
            if not given[key].is_integer():
                raise ValueError(f"{path}: {key} in [{name}] is {given[key]:g}; it must be a whole number.")
            given[key] = int(given[key])
    return kind(**(unsaid | given))


def _only(path: Path, where: str, given: Any, known: Any) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{path}: {where} is {given!r}; it must be a table.")
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{path}: {where} says {', '.join(unknown)}, which nothing knows; it can say {', '.join(sorted(known))}.")


def _numbers(path: Path, where: str, given: Any, known: Any) -> dict[str, float]:
    _only(path, where, given, known)
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path}: {name} in {where} is {value!r}; it must be a number.")
    return {name: float(value) for name, value in given.items()}
