"""What an embedded model must reach: bounds of its own, and the numbers of the one before, of which none may fall by over a point."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hunyuan_video import markdown
from hunyuan_video.config import require

POINT = 1.0  # of percent

Result = Mapping[str, Any]  # evaluation.json


@dataclass(frozen=True)
class Goal:
    """A number that is to be at least so large; in percent or dB."""

    name: str
    wanted: float
    found: float

    @property
    def is_reached(self) -> bool:
        return self.found >= self.wanted - 1e-9


def read(path: Path) -> Result:
    """An evaluation's numbers. Raises a ValueError for a file that has none."""
    result = json.loads(path.read_text(encoding="utf-8"))
    require(isinstance(result, dict) and {"reports", "psnr_db"} <= result.keys(), f"{path} is no evaluation.json of `evaluate embedded`.")
    return result


def of(result: Result, before: Result | None = None) -> list[Goal]:
    """All goals that the numbers tell of."""
    goals = [Goal("VAE, rendered clips, dB", 30.0, result["psnr_db"][0])]
    goals += [Goal(f"VAE, {name}, dB", 26.0, value) for name, value in result.get("footage_db", {}).items()]
    colours = [report["scores"]["colour"] for report in result["reports"] if "colour" in report["scores"]]
    if colours:
        right, total = (sum(score[name] for score in colours) for name in ("right", "total"))
        goals.append(Goal("colours, %", 90.0, 100 * right / total))
    for each in result.get("beginnings", []):
        if each["kind"].startswith("picture"):
            goals.append(Goal(f"subject kept from a given {each['kind']}, %", 95.0, _percent(each["subject"])))
        if each["psnr_last"] is not None:
            goals.append(Goal("given last picture reached, dB", 24.0, each["psnr_last"]))
    if before is not None:
        found = dict(_numbers(result))
        goals += [Goal(f"{name} (before: {value:.1f})", value - POINT, found[name]) for name, value in _numbers(before) if name in found]
    return goals


def _numbers(result: Result) -> Iterator[tuple[str, float]]:
    """By name, in percent."""
    for report in result["reports"]:
        for slot, score in (*report["scores"].items(), ("subjects, motion and background", report["everything"])):
            yield f"{report['group']}: {slot}, %", _percent(score)


def _percent(score: Mapping[str, int]) -> float:
    return 100 * score["right"] / score["total"]


def markdown_table(goals: list[Goal]) -> str:
    """Goals, what was found, and whether that is enough."""
    rows = ([each.name, f"{each.wanted:.1f}", f"{each.found:.1f}", "" if each.is_reached else "missed"] for each in goals)
    return markdown.table(["goal", "at least", "found", ""], rows) + "\n"
