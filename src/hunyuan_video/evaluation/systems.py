"""Systems as a user writes them: NAME=KIND:PLACE,KEY=VALUE,… in a word, or a TOML file with a table of each. Imports no torch."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from hunyuan_video.config import require
from hunyuan_video.evaluation.study import Kind

HOW = "NAME=weights:PATH,KEY=VALUE,… or NAME=folder:PATH or NAME=endpoint:URL,model=…, `embedded`, or a .toml file"


@dataclass(frozen=True)
class Asked:
    name: str
    kind: Kind
    place: str
    """path or address; empty: the weights that `generate` would find"""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def flags(self) -> list[str]:
        """Of a command that has its options: `num_steps = 4` is `--num-steps 4`, `tiling = false` is `--no-tiling`."""
        found: list[str] = []
        for key, value in self.options.items():
            flag = key.replace("_", "-")
            found += {"true": [f"--{flag}"], "false": [f"--no-{flag}"]}.get(value, [f"--{flag}", value])
        return found


def read_all(texts: Sequence[str]) -> tuple[Asked, ...]:
    """Of all words of a command line.

    Raises:
        FileNotFoundError: a TOML file is not there.
        ValueError: one is no system, or two have one name.
    """
    found = [asked for text in texts for asked in (_of_file(Path(text)) if text.endswith(".toml") else [_of_word(text)])]
    names = [asked.name for asked in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"Two systems are called {', '.join(twice)}; give each a name of its own.")
    return tuple(found)


def _of_word(text: str) -> Asked:
    if text == "embedded":
        return Asked("embedded", "weights", "embedded")
    name, equals, rest = text.partition("=")
    kind, colon, rest = rest.partition(":")
    require(bool(name and equals and colon) and kind in get_args(Kind), f"{text!r} is no system; write {HOW}.")
    place, *pairs = rest.split(",")
    for pair in pairs:
        require("=" in pair, f"{pair!r} in {text!r} is no KEY=VALUE; write {HOW}.")
    return Asked(name, _kind(kind), place, dict(pair.split("=", 1) for pair in pairs))


def _of_file(path: Path) -> Iterable[Asked]:
    """`[NAME]` with one of `weights`, `folder` and `endpoint`, and its options."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file ({error}).") from error
    for name, table in tables.items():
        require(isinstance(table, dict), f"{path} has {name!r} outside a table; each system is a table, such as [{name}].")
        kinds = [kind for kind in get_args(Kind) if kind in table]
        require(len(kinds) == 1, f"[{name}] of {path} must have one of {', '.join(get_args(Kind))}, which says where its clips are from.")
        yield Asked(name, kinds[0], str(table[kinds[0]]), {key: _said(value) for key, value in table.items() if key != kinds[0]})


def _said(value: Any) -> str:
    """As one would type it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(word: str) -> Kind:
    return word  # pyright: ignore[reportReturnType] (checked before)
