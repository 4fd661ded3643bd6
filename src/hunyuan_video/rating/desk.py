"""All that the page does, without HTTP: raters come, are shown clips under names that tell nothing, and say what they think."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hunyuan_video.config import require
from hunyuan_video.evaluation.study import Prompt, Study, System
from hunyuan_video.rating import design as designs
from hunyuan_video.rating.design import ANSWERS, QUESTIONS, Design
from hunyuan_video.rating.material import Material, material_of
from hunyuan_video.rating.store import Rater, Row, Store
from hunyuan_video.rating.vote import Vote

VOTES = "votes.sqlite"  # in a study's folder
LONGEST = 24 * 3600 * 1000  # milliseconds; a page may be left open


class Desk:
    """Where a study is rated in one way; what is said is in its folder when it has been said.

    Raises:
        ValueError: clips are missing, or the study has been rated by another design, or with other clips.
    """

    def __init__(self, study: Study, design: Design):
        self.design, self.systems = design, [system.name for system in study.systems]
        self.prompts = {prompt.id: prompt.prompt for prompt in study.prompts}
        self.blocks = designs.blocks(design, list(self.prompts), self.systems)
        plants = designs.planted(design, list(self.prompts))
        self.plants = list(plants)
        self.material: Material = material_of(study)
        self.store = Store(study.folder / VOTES)
        terms = {"systems": self.systems, "clips": self.material.digest, "seed": design.seed}
        terms |= {"ratings": design.ratings, "per_rater": design.per_rater}
        # Raters' blocks are kept by their numbers alone, and another NumPy may draw others from the same seed.
        terms["blocks"] = hashlib.sha256(repr(self.blocks).encode()).hexdigest()[:16]
        self.digest = hashlib.sha256(json.dumps([design.mode, terms]).encode()).hexdigest()[:16]  # another study or mode has another
        try:
            self.store.begin(design.mode, terms)
            self.material.encode(plants)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.store.close()

    def join(self) -> tuple[Rater, str]:
        """A new rater, and the secret by which they are known from now on."""
        return self.store.join(self.design.mode, len(self.blocks), self._session, time.time())

    def rater(self, secret: str) -> Rater | None:
        return self.store.rater(self.design.mode, secret)

    def view(self, rater: Rater, number: int | None = None) -> dict[str, Any]:
        """What a rater sees at a place, one of those that they have been at, or the next; after the last one only how many there were.

        Raises:
            LookupError: they have not come so far.
        """
        following, total = self.store.progress(rater)
        number = following if number is None else number
        if not 1 <= number <= following:
            raise LookupError(number)
        seen: dict[str, Any] = {"number": number, "next": following, "total": total, "mode": self.design.mode}
        shown = self.store.shown(rater, number)
        if shown is None:
            return seen
        clips = [shown.left_id, shown.right_id] if self.design.mode == "pairs" else [shown.left_id]
        return seen | {"prompt": self.prompts[shown.task.showing.prompt], "clips": clips, "answers": dict(shown.answers)}

    def clip(self, rater: Rater, name: str) -> Path | None:
        found = self.store.clip(rater, name)
        return None if found is None else self.material.path(*found)

    def vote(self, rater: Rater, number: int, answers: Mapping[str, str], latency_ms: int) -> None:
        """Raises a ValueError for what answers nothing, and a LookupError for a place where the rater has not been."""
        known = ANSWERS[self.design.mode]
        right = set(answers) == set(QUESTIONS) and set(answers.values()) <= set(known)
        require(right, f"answers must say one of {', '.join(known)} to each of {', '.join(QUESTIONS)}.")
        require(0 <= latency_ms <= LONGEST, f"latency_ms is {latency_ms}; it must be 0 to {LONGEST}.")
        following, total = self.store.progress(rater)
        if not 1 <= number <= min(following, total):
            raise LookupError(number)
        self.store.vote(rater, number, answers, latency_ms, time.time())

    def _session(self, block: int, rater: int) -> list[designs.Task]:
        return designs.session(self.design, self.blocks[block], self.systems, self.plants, rater)


def votes_of(study: Study) -> list[Vote]:
    """All that has been said of a study, in the order in which it was.

    Raises:
        ValueError: nobody has.
    """
    path = study.folder / VOTES
    require(path.is_file(), f"{study.folder} has not been rated; `hunyuan-video evaluate rate {study.folder}` asks people.")
    prompts = {prompt.id: prompt for prompt in study.prompts}
    made = {system.name: _hash(system) for system in study.systems}
    store = Store(path)
    try:
        rows = store.rows()
    finally:
        store.close()
    return [_vote(row, study, prompts[row.task.showing.prompt], made) for row in rows]


def are_as_rated(study: Study) -> bool:
    """Whether the clips are still those that raters have seen: of the systems that there were then, and what each of them has a clip of."""
    store = Store(study.folder / VOTES)
    try:
        begun = store.terms()
    finally:
        store.close()
    try:
        return all(_digest(study, terms["systems"]) == terms["clips"] for terms in begun)
    except ValueError:  # damaged
        return False


def _digest(study: Study, systems: Sequence[str]) -> str:
    return material_of(replace(study, systems=tuple(map(study.system, systems))).complete()).digest


def _vote(row: Row, study: Study, prompt: Prompt, made: Mapping[str, str]) -> Vote:
    left, right = row.task.showing.left, row.task.showing.right
    return Vote(
        rater=row.rater,
        mode=row.mode,
        number=row.number,
        kind=row.task.kind,
        prompt=prompt.id,
        tags=prompt.tags,
        question=row.question,
        answer=row.answer,
        left=left,
        right=right,
        truth=row.task.truth,
        latency_ms=row.latency_ms,
        at=row.at,
        seed=study.seed_of(prompt.id),
        left_made=made.get(left, ""),
        right_made=made.get(right, ""),
    )


def _hash(system: System) -> str:
    """Of all that is said of how it makes clips, whatever it is called."""
    said = {name: value for name, value in system.to_json().items() if name != "name"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
