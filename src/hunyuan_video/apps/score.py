"""Measures the clips of a study, each once, and says by system and by what is asked for how they are."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hunyuan_video import __version__
from hunyuan_video.config import require
from hunyuan_video.evaluation import metrics, scores
from hunyuan_video.evaluation.backbones import Backbone
from hunyuan_video.evaluation.frechet import random_feature_frechet
from hunyuan_video.evaluation.scores import Line
from hunyuan_video.evaluation.seen import LOOKS, Film, read, see, unreadable
from hunyuan_video.evaluation.study import Prompt, Study
from hunyuan_video.files import replacing, sha256
from hunyuan_video.naturalness import brisque
from hunyuan_video.pictures import evenly

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measure:
    """A set of metrics of one clip."""

    set: str
    by: Callable[[Prompt], str]
    """what measures it: by another one it is measured again"""
    of: Callable[[Film, Prompt], Mapping[str, Any]]


def score(
    study: Study,
    systems: Sequence[str],
    backbones: Sequence[Backbone] = (),
    reference: str | None = None,
    vbench: Mapping[str, Path] | None = None,
) -> list[scores.Table]:
    """Tables, also in `scores.md` and `scores.json` of the study; what was measured before is not measured again.

    Raises:
        ValueError: there is no such system, or no clip of these.
    """
    for name in (*systems, *(vbench or {}), *([] if reference is None else [reference])):
        study.system(name)
    imported = {name: scores.of_vbench(path) for name, path in (vbench or {}).items()}
    lines = scores.read(path := study.folder / "scores.jsonl")
    scores.write(path, lines)  # without half a line that an end in the middle has left
    measures = _measures(study, backbones, reference)
    for line in _missing(study, systems, measures, lines):
        lines.append(line)
        scores.append(path, line)
    current = _current(study, measures, lines)
    require(bool(current), f"{study.folder} has no clips of {', '.join(systems)} yet.")
    whole = {name: imported.get(name, {}) | _far(study, name, reference) for name in systems}
    tables = [scores.by_system(study, current, whole), scores.by_tag(study, current)]
    _write(study.folder / "scores.md", "\n\n".join(map(str, tables)) + "\n")
    _write(study.folder / "scores.json", json.dumps([asdict(table) for table in tables], indent=1, ensure_ascii=False) + "\n")
    return tables


def _measures(study: Study, backbones: Sequence[Backbone], reference: str | None) -> list[Measure]:
    measures = [
        Measure(scores.SEEN, _always(__version__), lambda film, prompt: asdict(see(film, prompt.tags))),
        *_naturalness(),
        *(Measure(each.dimension, _always(each.identity()), _by(each)) for each in backbones),
    ]
    if reference is not None:
        beside = partial(_beside, study, reference)
        measures.append(
            Measure(
                f"near {reference}",
                lambda prompt: "" if (path := beside(prompt)) is None else sha256(path),
                lambda film, prompt: _near(film, beside(prompt)),
            )
        )
    return measures


def _naturalness() -> list[Measure]:
    try:
        by = f"{__version__}, brisque {version('brisque')}"
    except PackageNotFoundError:
        log.warning("BRISQUE is left out, for its package is not installed: pip install 'hunyuan-video[brisque]'.")
        return []
    return [Measure("brisque", _always(by), lambda film, prompt: _natural(film))]


def _natural(film: Film) -> Mapping[str, float | None]:
    """The median of frames, spread over the clip."""
    each = [brisque(frame) for frame in film.frames[evenly(len(film.frames), LOOKS)]]
    known = [one for one in each if one is not None]
    return {"BRISQUE": float(np.median(known)) if len(known) == len(each) else None}


def _always(by: str) -> Callable[[Prompt], str]:
    return lambda prompt: by


def _beside(study: Study, reference: str, prompt: Prompt) -> Path | None:
    path = study.clip(reference, prompt.id)
    return path if path.is_file() else None


def _by(backbone: Backbone) -> Callable[[Film, Prompt], Mapping[str, Any]]:
    """Its network is loaded when the first clip is measured."""
    load = cache(backbone.load)
    return lambda film, prompt: {backbone.dimension: load()(film.frames, film.fps, prompt.prompt)}


def _near(film: Film, reference: Path | None) -> Mapping[str, Any]:
    """None where there is nothing to compare with, or identical clips have no PSNR."""
    other = None if reference is None else next(_readable([reference]), None)
    if other is None or other.shape != film.frames.shape:
        return {"PSNR": None, "SSIM": None}
    psnr = metrics.psnr(film.frames, other)
    return {"PSNR": None if psnr == float("inf") else psnr, "SSIM": metrics.ssim(film.frames, other)}


def _missing(study: Study, systems: Sequence[str], measures: Sequence[Measure], known: Sequence[Line]) -> Iterator[Line]:
    """A line for each clip and measure that is not known of the file that is there."""
    have = {line.key for line in known}
    clips = [(name, prompt) for name in systems for prompt in study.prompts if study.clip(name, prompt.id).is_file()]
    log.info("Looking at %d clips …", len(clips))
    for name, prompt in tqdm(clips, desc="measuring", unit="clip", disable=None):
        path = study.clip(name, prompt.id)
        digest = sha256(path)
        asked = [(each, each.by(prompt)) for each in measures if each.set != f"near {name}"]
        todo = [(each, by) for each, by in asked if (name, prompt.id, each.set, by, digest) not in have]
        try:
            film = read(path) if todo else None
        except ValueError as error:
            log.warning("%s", error)
            film = None
        for each, by in todo:
            if film is not None:
                yield Line(name, prompt.id, each.set, by, digest, dict(each.of(film, prompt)))
            elif each.set == scores.SEEN:
                yield Line(name, prompt.id, each.set, by, digest, unreadable(prompt.tags))


def _current(study: Study, measures: Sequence[Measure], lines: Sequence[Line]) -> list[Line]:
    """Of each clip and set the line of the file that is there, made by what is asked for now."""
    by = {(each.set, prompt.id): each.by(prompt) for each in measures for prompt in study.prompts}
    clips = {(line.system, line.id) for line in lines}
    digests = {key: sha256(path) for key in clips if (path := study.clip(*key)).is_file()}
    wanted = (line for line in lines if by.get((line.set, line.id)) == line.by and digests.get((line.system, line.id)) == line.clip)
    return list({(line.system, line.id, line.set): line for line in wanted}.values())


def _far(study: Study, name: str, reference: str | None) -> scores.Row:
    """The distance between what the two systems make, of all prompts together."""
    if reference in (None, name):
        return {}
    assert reference is not None
    sets = [[path for prompt in study.prompts if (path := study.clip(each, prompt.id)).is_file()] for each in (name, reference)]
    mine, other = (_readable(each) for each in sets)
    with contextlib.suppress(ValueError):  # of fewer than two that can be read
        return {f"random-feature Fréchet to {reference}": random_feature_frechet(mine, other)}
    return {}


def _readable(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        with contextlib.suppress(ValueError):  # which has been said
            yield read(path).frames


def _write(path: Path, text: str) -> None:
    with replacing(path) as (temporary, _):
        temporary.write_text(text, encoding="utf-8", newline="\n")
