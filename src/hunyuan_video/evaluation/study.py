"""A study: prompts, the systems that are compared, and one clip of each prompt by each system, in a folder. Imports no torch.

STUDY/study.json                what is compared, and how it is made
STUDY/prompts.jsonl             a prompt a line
STUDY/clips/<system>/<id>.mp4   one clip a prompt, none picked
STUDY/scores.jsonl              what was measured of a clip, a line each
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock

from hunyuan_video import markdown
from hunyuan_video.config import require
from hunyuan_video.files import replacing

VERSION = 1
Kind = Literal["weights", "folder", "endpoint"]
Benchmark = Literal["penguin", "vbench", "own"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # of a system, which names a folder, and of a prompt, which names a file


@dataclass(frozen=True)
class Source:
    """Where a study's prompts are from."""

    source: str
    """what the file was called"""
    sha256: str
    rewritten: bool
    """in the words that a model was trained on: totals differ between prompts that are and that are not"""
    benchmark: Benchmark


@dataclass(frozen=True)
class Prompt:
    id: str
    prompt: str
    tags: tuple[str, ...] = ()
    """what it asks for, such as `camera:pan-left` (see `tags`)"""
    dimensions: tuple[str, ...] = ()
    """what its benchmark asks it for"""

    def __post_init__(self) -> None:
        require(
            NAME.fullmatch(self.id) is not None, f"A prompt's id is {self.id!r}; it names a file, of letters, digits, '.', '_' and '-'."
        )


@dataclass(frozen=True)
class System:
    """What makes clips, under a name of the user's."""

    name: str
    kind: Kind
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """all that its clips depend on: with anything else it is another system"""

    def __post_init__(self) -> None:
        require(
            NAME.fullmatch(self.name) is not None,
            f"A system is called {self.name!r}; letters, digits, '.', '_' and '-' make a name, at most 64.",
        )
        require(self.kind in get_args(Kind), f"System {self.name} is of kind {self.kind!r}; there are {', '.join(get_args(Kind))}.")
        taken = self.made_with.keys() & {"name", "kind"}
        require(not taken, f"System {self.name} is made with {', '.join(sorted(taken))}, which says what it is.")
        object.__setattr__(self, "made_with", json.loads(json.dumps(dict(self.made_with))))  # as it will come back: tuples are lists

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, **self.made_with}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> System:
        return cls(values["name"], values["kind"], {key: value for key, value in values.items() if key not in ("name", "kind")})


@dataclass(frozen=True)
class Study:
    folder: Path
    source: Source
    seed: int
    prompts: tuple[Prompt, ...]
    systems: tuple[System, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Study:
        """Raises a ValueError for a folder that holds none, or one of another version."""
        path = folder / "study.json"
        require(path.is_file(), f"{folder} holds no study; `hunyuan-video evaluate run PROMPTS --out {folder}` makes one.")
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            require(stored["version"] == VERSION, f"it is version {stored['version']}, and this program knows {VERSION}")
            lines = (folder / "prompts.jsonl").read_text(encoding="utf-8").split("\n")
            prompts = tuple(_prompt(json.loads(line)) for line in lines if line)
            systems = tuple(map(System.from_json, stored["systems"]))
            return cls(folder, Source(**stored["prompts"]), stored["seed"], prompts, systems)
        except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
            raise ValueError(f"{folder} holds no study that can be read ({error}); choose another folder.") from error

    @classmethod
    def create(cls, folder: Path, source: Source, prompts: Sequence[Prompt], seed: int = 0) -> Study:
        """A new study, without systems yet; or the one that is there, if it is of the same prompts and seed.

        Raises:
            ValueError: there are no prompts, two with one id, or another study.
        """
        study = cls(folder, source, seed, tuple(prompts))
        require(bool(study.prompts), f"{source.source} has no prompts.")
        require(len(study._numbers) == len(study.prompts), f"{source.source} has two prompts of one id.")
        folder.mkdir(parents=True, exist_ok=True)
        with study._lock():
            if (folder / "study.json").exists():
                there = cls.read(folder)
                same = (there.source.sha256, there.source.rewritten, there.seed) == (source.sha256, source.rewritten, seed)
                require(
                    same,
                    f"{folder} holds a study of {len(there.prompts)} prompts of {there.source.source} with seed {there.seed}, and not of "
                    f"{len(prompts)} prompts of {source.source} with seed {seed}; choose another folder.",
                )
                return there
            lines = [json.dumps(asdict(prompt), ensure_ascii=False) for prompt in study.prompts]
            _write(folder / "prompts.jsonl", "".join(f"{line}\n" for line in lines))
            study._write()
        return study

    def with_systems(self, systems: Sequence[System]) -> Study:
        """The study with these, too, as it then is in its folder.

        Raises:
            ValueError: one is there under this name that is made otherwise.
        """
        with self._lock():
            there = {system.name: system for system in Study.read(self.folder).systems}
            for system in systems:
                known = there.get(system.name, system)
                require(
                    known == system,
                    f"{self.folder} has a system {system.name} that is made otherwise ({_difference(known, system)}); give this one "
                    "another name.",
                )
            there |= {system.name: system for system in systems}
            study = Study(self.folder, self.source, self.seed, self.prompts, tuple(there.values()))
            study._write()
        return study

    def system(self, name: str) -> System:
        """Raises a ValueError for one that it does not have."""
        found = next((system for system in self.systems if system.name == name), None)
        if found is None:
            names = ", ".join(system.name for system in self.systems) or "none"
            raise ValueError(f"{self.folder} has no system {name!r}; it has {names}.")
        return found

    def clip(self, system: str, id: str) -> Path:
        """Where it is, or will be."""
        return self.folder / "clips" / system / f"{id}.mp4"

    def missing(self, system: str) -> tuple[Prompt, ...]:
        """Of which there is no clip yet. What is there is whole: clips appear under their names when they are."""
        return tuple(prompt for prompt in self.prompts if not self.clip(system, prompt.id).is_file())

    def complete(self) -> Study:
        """With those prompts alone of which every system has a clip; for who looks at clips, as seeds count by all prompts."""
        lacking = {prompt.id for system in self.systems for prompt in self.missing(system.name)}
        return replace(self, prompts=tuple(prompt for prompt in self.prompts if prompt.id not in lacking))

    def seed_of(self, id: str) -> int:
        """With which every system makes the clip of a prompt that can be told one."""
        return self.seed + self._numbers[id]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {prompt.id: number for number, prompt in enumerate(self.prompts)}

    def _lock(self) -> FileLock:
        return FileLock(self.folder / ".lock")

    def _write(self) -> None:
        stored = {"version": VERSION, "prompts": asdict(self.source), "systems": [s.to_json() for s in self.systems], "seed": self.seed}
        _write(self.folder / "study.json", json.dumps(stored, indent=2, ensure_ascii=False) + "\n")


def described(study: Study) -> str:
    """Markdown: what is compared, and how it is made."""
    source, rows = study.source, [[each.name, each.kind, _in_words(each.made_with)] for each in study.systems]
    words = "rewritten" if source.rewritten else "not rewritten"
    said = f"{len(study.prompts)} prompts of {source.source} ({source.benchmark}, {words}), with seeds from {study.seed} on."
    return f"{said}\n\n{markdown.table(['System', 'kind', 'made with'], rows)}"


def _in_words(made_with: Mapping[str, Any]) -> str:
    """All of it but what only a computer compares."""
    told = {key: value for key, value in _flat(made_with).items() if value not in (None, []) and key not in ("model", "sha256")}
    return ", ".join(f"{key} {value}" for key, value in told.items())


def _prompt(values: dict[str, Any]) -> Prompt:
    return Prompt(values["id"], values["prompt"], tuple(values["tags"]), tuple(values["dimensions"]))


def _difference(there: System, new: System) -> str:
    """In words, the first thing that is not the same."""
    before, now = _flat(there.to_json()), _flat(new.to_json())
    key = next((key for key in (*before, *now) if before.get(key) != now.get(key)), "nothing")
    return f"{key} is {before.get(key)!r} there and {now.get(key)!r} here"


def _flat(values: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{within}{key}.") if isinstance(value, dict) else {f"{within}{key}": value}
    return found


def _write(path: Path, text: str) -> None:
    with replacing(path) as (temporary, _):
        temporary.write_text(text, encoding="utf-8", newline="\n")
