"""What was measured of a study's clips: a line of JSON for each clip and set of metrics, and tables of them. Imports no torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hunyuan_video import markdown
from hunyuan_video.config import require
from hunyuan_video.evaluation.study import Study
from hunyuan_video.files import replacing

SEEN = "seen"  # the set that needs no network, and holds the guard's verdict
MEANS = {  # of the numbers of SEEN that are comparable between systems, and how they are called
    "flicker": "flicker", "speed": "speed", "warp_error": "warp error", "dynamic": "dynamic",
    "sharpness": "sharpness", "blockiness": "blockiness", "banding": "banding",
}  # fmt: skip
ENOUGH = 0.9  # of a system's clips are videos, or nothing else is said of them


@dataclass(frozen=True)
class Line:
    """One clip by one set of metrics."""

    system: str
    id: str
    set: str
    by: str
    """what measured it, with which another one is not comparable"""
    clip: str
    """SHA-256 of the clip's file"""
    scores: dict[str, Any]

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        return self.system, self.id, self.set, self.by, self.clip


def read(path: Path) -> list[Line]:
    """All whole lines. Raises a ValueError for a file that holds something else."""
    if not path.exists():
        return []
    *whole, _ = path.read_text(encoding="utf-8").split("\n")  # what follows the last end of a line was not written to its end
    try:
        return [Line(**json.loads(line)) for line in whole]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no scores of this version ({error}); move it away.") from error


def write(path: Path, lines: Iterable[Line]) -> None:
    """All of them; whoever is ended meanwhile leaves the file as it was."""
    with replacing(path) as (temporary, _):
        temporary.write_text("".join(map(_text, lines)), encoding="utf-8", newline="\n")


def append(path: Path, line: Line) -> None:
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(_text(line))


def _text(line: Line) -> str:
    return json.dumps(asdict(line), ensure_ascii=False) + "\n"


# --- Tables ---

Row = dict[str, str | float | int | None]


@dataclass(frozen=True)
class Table:
    title: str
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        """Markdown."""
        heads = list(dict.fromkeys(head for row in self.rows for head in row))
        return f"{self.title}:\n\n{markdown.table(heads, ([_said(row.get(head)) for head in heads] for row in self.rows))}"


def by_system(study: Study, lines: Sequence[Line], whole: Mapping[str, Row]) -> Table:
    """A row a system: how many clips are videos and have what is asked for, and means over these videos. `whole` are numbers of whole
    systems, to go beside. Of a system that fails more often than in one of ten clips, neither is said."""
    rows = [_row(each.name, [line for line in lines if line.system == each.name], whole.get(each.name, {})) for each in study.systems]
    return Table(f"By system, {_what(study)}", tuple(row for row in rows if row["clips"]))


def by_tag(study: Study, lines: Sequence[Line]) -> Table:
    """A row for each tag or dimension of the prompts: of how many clips of each system is a video, and has what can be looked for."""
    kinds = {prompt.id: (*prompt.tags, *prompt.dimensions) for prompt in study.prompts}
    seen = [line for line in lines if line.set == SEEN]
    rows: list[Row] = []
    for tag in sorted({tag for tags in kinds.values() for tag in tags}):
        row: Row = {"asked for": tag, "prompts": sum(tag in tags for tags in kinds.values())}
        for system in study.systems:
            mine = [line for line in seen if line.system == system.name and tag in kinds[line.id]]
            answers = [line.scores["asked"][tag] for line in mine if tag in line.scores["asked"]]
            sound = sum(not line.scores["faults"] for line in mine)
            row[system.name] = f"{sum(answers)} of {len(answers)} have it" if answers else f"{sound} of {len(mine)} sound"
        rows.append(row)
    return Table(f"By what is asked for, {_what(study)}", tuple(rows))


def _row(name: str, lines: Sequence[Line], whole: Row) -> Row:
    seen = [line for line in lines if line.set == SEEN]
    sound = {line.id for line in seen if not line.scores["faults"]}
    answers = [right for line in seen for right in line.scores["asked"].values()]
    row: Row = {"system": name, "clips": len(seen), "sound": len(sound), "as asked": f"{sum(answers)} of {len(answers)}"}
    faults = [fault for line in seen for fault in line.scores["faults"]]
    row["faults"] = ", ".join(f"{faults.count(fault)} {fault}" for fault in dict.fromkeys(faults)) or "none"
    if len(sound) < ENOUGH * len(seen):
        return row
    for key, head in MEANS.items():
        row[head] = _mean([line.scores[key] for line in seen if line.id in sound])
    for set in dict.fromkeys(line.set for line in lines if line.set != SEEN):
        mine = [line for line in lines if line.set == set and line.id in sound]
        to = f" to {set.removeprefix('near ')}" if set.startswith("near ") else ""
        for key in dict.fromkeys(key for line in mine for key in line.scores):
            row[key + to] = _mean([line.scores[key] for line in mine if line.scores[key] is not None])
    return row | whole


def _mean(values: Sequence[float | int]) -> float | None:
    return statistics.mean(map(float, values)) if values else None


def _what(study: Study) -> str:
    source = study.source
    words = "rewritten" if source.rewritten else "not rewritten"
    return f"{len(study.prompts)} prompts of {source.source} ({source.benchmark}, {words})"


def _said(value: str | float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:.0f}" if isinstance(value, float) else str(value)


# --- VBench's own results ---


def of_vbench(path: Path) -> Row:
    """Its dimensions, from the `…_eval_results.json` that it writes. Raises a ValueError for another file."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        require(isinstance(stored, dict) and bool(stored), "it has no dimensions")
        require(all(isinstance(value, list) and value for value in stored.values()), "a dimension is no list that begins with its score")
        return {f"VBench {name}": float(value[0]) for name, value in stored.items()}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no results of VBench ({error}).") from error
