"""The commands of `evaluate`: the clips of a study, what is measured of them, and the judge of the embedded miniature. They import no torch
before all is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hunyuan_video import weights
from hunyuan_video.apps.parse import parse
from hunyuan_video.commands.common import Computes, Flat, Loads, Repeatable, Which
from hunyuan_video.config import LoadKey, Runtime, Sampling, require
from hunyuan_video.evaluation import prompts, systems
from hunyuan_video.request import Adapter

if TYPE_CHECKING:
    from hunyuan_video.apps.study import Maker


@dataclass(frozen=True)
class Run:
    """Make a study: one clip of each prompt by each system, none picked (docs/evaluation.md)."""

    prompts: tyro.conf.Positional[Path]
    """a text file with one prompt a line, the Penguin benchmark's CSV, or a list of VBench's"""
    out: Path
    """folder of the study; an interrupted run goes on there"""
    systems: tuple[str, ...] = ("embedded",)
    """NAME=weights:PATH,KEY=VALUE,… NAME=folder:PATH NAME=endpoint:URL,model=…, `embedded`, or .toml files with such tables"""
    seed: int = 0
    """of the first prompt; those of the next count up, the same for every system"""
    rewritten: bool = False
    """your own prompts are in the words that a model was trained on; the report says so"""

    def run(self) -> None:
        asked = systems.read_all(self.systems)
        source, found = prompts.read(self.prompts, rewritten=self.rewritten)

        from hunyuan_video.apps import study

        made = study.run(self.out, source, found, self.seed, {each.name: maker_of(each) for each in asked})
        print(made.folder)


@dataclass(frozen=True)
class Embedded(Computes):
    """Judge the embedded miniature on prompts it was not trained on, and print the table of docs/embedded-model.md."""

    out: Path = Path("results/evaluation")
    """folder for the judge, the table and the contact sheet"""
    num_clips: int = 128
    """clips of each of the three groups of prompts, and of each kind of beginning, if the weights are made for pictures"""
    footage: tuple[Path, ...] = ()
    """videos of real things, of which only what the VAE loses is measured"""
    before: Path | None = None
    """evaluation.json of other weights, none of whose numbers may be missed by more than a point"""
    seed: int = 0
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime.open)
    which: Loads = field(default_factory=Which)
    load_key: LoadKey = "module"
    """as for `generate`"""

    def run(self) -> None:
        from hunyuan_video.apps.evaluate import evaluate

        print(evaluate(self.which.find(self.load_key), self.runtime, self.out, self.num_clips, self.seed, self.before, self.footage))


# --- What a system's options mean ---


@dataclass(frozen=True)
class ClipSettings(Computes):
    """What `generate` is told, but for what a study says."""

    negative_prompt: str | None = None
    lora: Annotated[tuple[str, ...], Repeatable] = ()
    sampling: Annotated[Sampling, Flat] = field(default_factory=Sampling)
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime.open)
    transformer: Path | None = None
    load_key: LoadKey = "module"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sampling.seed is None, "seed is given for a system; a study has one for all of them (--seed).")


@dataclass(frozen=True)
class EndpointSettings:
    """How a server is asked."""

    model: str | None = None
    size: str | None = None
    seconds: str | None = None
    num_frames: int | None = None
    num_steps: int | None = None
    key: str = "OPENAI_API_KEY"
    """the environment variable with the key"""
    seeds: bool = False
    """whether it takes a seed, as our own does"""
    in_flight: int = 4
    pause: float = 2.0
    """seconds between two looks"""


def maker_of(asked: systems.Asked) -> Maker:
    """Raises an error for options that it does not have, or something that is not there."""
    from hunyuan_video.apps import study
    from hunyuan_video.evaluation.endpoint import Endpoint

    prog = f"system {asked.name}"
    if asked.kind == "folder":
        require(not asked.options, f"System {asked.name} is a folder, which has no options.")
        return study.ByFolder(Path(asked.place))
    if asked.kind == "endpoint":
        how = parse(EndpointSettings, asked.flags, prog)
        names = ("model", "size", "seconds", "num_frames", "num_steps")
        body = {name: getattr(how, name) for name in names if getattr(how, name) is not None}
        return study.ByEndpoint(Endpoint(asked.place, body, study.key_of(how.key), how.seeds, how.in_flight, how.pause))
    how = parse(ClipSettings, asked.flags, prog)
    root = {"": None, "embedded": weights.EMBEDDED}.get(asked.place, Path(asked.place))
    found = Which(root, how.transformer).find(how.load_key)
    return study.ByWeights(found, how.runtime, how.sampling, how.negative_prompt, tuple(map(Adapter.parse, how.lora)))
