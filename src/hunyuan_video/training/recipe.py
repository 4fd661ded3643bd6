"""A recipe file: trainings one after the other, each from what the one before has made. That is progressive training.

    cache = "cache/low"            # settings of all stages; paths are relative to the file
    learning_rate = 1e-4

    [[stage]]
    name = "short"                 # becomes the run OUT/short
    num_steps = 50_000

    [[stage]]
    name = "long"
    cache = "cache/high"           # a stage's own setting counts
    num_steps = 20_000

    [[stage]]
    name = "style"
    kind = "lora"                  # transformer, unless said
    num_steps = 2_000

TOML knows no null: "none" is that. A stage without `start` starts from the result of the stage before. Settings are the fields of
`TransformerTraining` or `LoraTraining`, and of `TrainingRuntime`.
"""

from __future__ import annotations

import logging
import tomllib
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from hunyuan_video.distributed.world import process_group
from hunyuan_video.training.run import changed_settings
from hunyuan_video.training.settings import LoraTraining, TrainingRuntime, TransformerTraining
from hunyuan_video.training.train import results, train

log = logging.getLogger(__name__)

KINDS = {"transformer": TransformerTraining, "lora": LoraTraining}


class Stage(NamedTuple):
    """One training of a recipe, and its folder."""

    folder: Path
    config: TransformerTraining | LoraTraining
    runtime: TrainingRuntime


def read_recipe(path: Path, out: Path) -> list[Stage]:
    """The stages of a recipe file, whose runs are in `out`.

    Raises:
        ValueError: the file is no TOML, or says something that no stage has; names it.
    """
    try:
        common = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of TOML, or of UTF-8
        raise ValueError(f"{path} is not a recipe in TOML ({error}).") from error
    tables = common.pop("stage", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) and "name" in table for table in tables):
        raise ValueError(f"{path} has no stages; each needs a [[stage]] with a name.")
    names = [str(table["name"]) for table in tables]
    if len(set(names)) < len(names) or any(Path(name).name != name or name.startswith(".") for name in names):
        raise ValueError(f"The stages of {path} are called {', '.join(names)}; each needs a name of its own that can be a folder's.")
    known = {name for kind in KINDS.values() for name in _settings_of(kind)}
    stages: list[Stage] = []
    for number, table in enumerate(tables, start=1):
        stage = common | table
        name, kind = stage.pop("name"), stage.pop("kind", "transformer")
        if kind not in KINDS:
            raise ValueError(f"Stage {name!r} of {path} is of kind {kind!r}; it must be {' or '.join(KINDS)}.")
        # What all stages share may be of use to some only; what a stage says must be of use to it.
        unknown = (table.keys() - {"name", "kind"} - _settings_of(KINDS[kind]).keys()) | (common.keys() - {"kind"} - known)
        if unknown:
            meant = {near for word in unknown for near in get_close_matches(word, known, n=1)}
            hint = f" (perhaps {', '.join(sorted(meant))} was meant)" if meant else ""
            raise ValueError(f"{path} sets {', '.join(sorted(unknown))}, which stage {number}, {name!r}, does not have{hint}.")
        if stages and "start" not in stage:
            if isinstance(stages[-1].config, LoraTraining):
                raise ValueError(f"Stage {name!r} of {path} follows a LoRA, which makes no weights to start from; give its start.")
            stage["start"] = str(results(stages[-1].config, stages[-1].folder)[0].absolute())
        config, runtime = (_filled(kind_of, stage, path.parent, name) for kind_of in (KINDS[kind], TrainingRuntime))
        stages.append(Stage(out / name, config, runtime))
    return stages


def train_recipe(path: Path, out: Path) -> list[Path]:
    """Train, or go on training, all stages; returns the files with the last one's result. Finished stages are not trained again."""
    stages = read_recipe(path, out)
    with process_group(stages[0].runtime.device):
        for number, (folder, config, runtime) in enumerate(stages, start=1):
            finished = all(file.exists() for file in results(config, folder))
            log.info("stage %d of %d, %s%s", number, len(stages), folder.name, ": finished" if finished else "")
            if finished:
                if changed := changed_settings(folder, asdict(config)):
                    what = ", ".join(changed.values())
                    raise ValueError(f"{folder} is finished, with other settings ({what}); use them, or another folder.")
            else:
                train(config, folder, runtime)
    return results(stages[-1].config, stages[-1].folder)


def _settings_of(kind: type) -> dict[str, Any]:
    return get_type_hints(kind) | get_type_hints(TrainingRuntime)


def _filled(kind: type, settings: dict[str, Any], base: Path, stage: str) -> Any:
    """A config from those of the settings that it has. Paths are made of strings, and floats of whole numbers."""
    hints, values = get_type_hints(kind), dict[str, Any]()
    for name in settings.keys() & {field.name for field in fields(kind)}:
        value, hint = settings[name], hints[name]
        options = get_args(hint) if get_origin(hint) is UnionType else (hint,)
        if value == "none" and NoneType in options:
            value = None
        elif Path in options and isinstance(value, str):
            value = base / value
        elif float in options and type(value) is int:
            value = float(value)
        values[name] = value
    try:
        return kind(**values)
    except TypeError as error:
        missing = str(error).rpartition(": ")[2]
        raise ValueError(f"Stage {stage!r} lacks {missing}.") from error
    except ValueError as error:
        raise ValueError(f"Stage {stage!r}: {error}") from error
