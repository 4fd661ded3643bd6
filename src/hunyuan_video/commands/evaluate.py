"""The commands of `evaluate`: the clips of a study, what is measured of them, and the judge of the embedded miniature."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hunyuan_video.apps.parse import parse
from hunyuan_video.commands.common import Computes, Flat, Loads, Repeatable, Which, adapters_of
from hunyuan_video.config import MAX_SEED, LoadKey, Runtime, Sampling, require
from hunyuan_video.evaluation import prompts, systems
from hunyuan_video.signals import goes_on
from hunyuan_video.weights import EMBEDDED

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
    """NAME=weights:PATH,KEY=VALUE,… with options of `generate`; NAME=folder:PATH; NAME=endpoint:URL,KEY=VALUE,… with model, size, seconds,
    num_frames, num_steps, key, seeds, in_flight and pause; embedded; or .toml files with tables of these"""
    seed: int = 0
    """of the first prompt; those of the next count up, the same for every system"""
    rewritten: bool = False
    """your own prompts are in the words that a model was trained on; the report says so"""
    weights: Path | None = None
    """root of the weights of systems that name none (default: $MODEL_BASE, else ./ckpts, else the embedded miniature)"""

    def run(self) -> None:
        asked = systems.read_all(self.systems)
        source, found = prompts.read(self.prompts, rewritten=self.rewritten)
        last = MAX_SEED + 1 - len(found)
        require(0 <= self.seed <= last, f"seed is {self.seed}; it must be 0 to {last}, for the prompts' seeds count up from it.")

        from hunyuan_video.apps import study

        with goes_on():
            made = study.run(self.out, source, found, self.seed, {each.name: maker_of(each, self.weights) for each in asked})
        print(made.folder)


@dataclass(frozen=True)
class Score:
    """Measure the clips of a study: what needs no network, and what networks of yours say (docs/evaluation.md)."""

    study: tyro.conf.Positional[Path]
    """its folder"""
    system: Annotated[tuple[str, ...], Repeatable] = ()
    """of its systems, as often as there are some (default: all)"""
    reference: str | None = None
    """a system of the study, whose clips of the same prompts the others are compared with: PSNR, SSIM and random-feature Fréchet"""
    backbones: Path | None = None
    """a TOML file with the networks of VBench's dimensions"""
    vbench: Annotated[tuple[str, ...], Repeatable] = ()
    """SYSTEM=FILE, as often as there are files: what VBench itself wrote of a system's clips, to stand beside"""

    def run(self) -> None:
        from hunyuan_video.evaluation.study import Study

        study = Study.read(self.study)
        pairs = [text.partition("=") for text in self.vbench]
        require(all(equals for _, equals, _ in pairs), "vbench is SYSTEM=FILE, such as embedded=results_eval_results.json.")

        from hunyuan_video.apps.score import score
        from hunyuan_video.evaluation import backbones

        networks = () if self.backbones is None else backbones.read(self.backbones)
        systems = self.system or tuple(system.name for system in study.systems)
        with goes_on():
            tables = score(study, systems, networks, self.reference, {name: Path(path) for name, _, path in pairs})
        for table in tables:
            print(table, end="\n\n")


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


IN_BODY = ("model", "size", "seconds", "num_frames", "num_steps")


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


def maker_of(asked: systems.Asked, usual: Path | None) -> Maker:
    """`usual` are the weights of a system that names none. Raises an error for options that it does not have, or for what is not there."""
    try:
        return {"weights": _by_weights, "folder": _by_folder, "endpoint": _by_endpoint}[asked.kind](asked, usual)
    except ValueError as error:
        raise ValueError(f"System {asked.name}: {error}") from error


def _by_weights(asked: systems.Asked, usual: Path | None) -> Maker:
    from hunyuan_video.apps.study import ByWeights

    how = parse(ClipSettings, asked.flags, "hunyuan-video generate")
    require(how.sampling.seed is None, "seed is given; a study has one for all systems (--seed).")
    root = {"": usual, "embedded": EMBEDDED}.get(asked.place, Path(asked.place))
    found = Which(root, how.transformer).find(how.load_key)
    return ByWeights(found, how.runtime, how.sampling, how.negative_prompt, adapters_of(how.lora))


def _by_folder(asked: systems.Asked, _usual: Path | None) -> Maker:
    from hunyuan_video.apps.study import ByFolder

    require(not asked.options, "a folder has no options.")
    return ByFolder(Path(asked.place))


def _by_endpoint(asked: systems.Asked, _usual: Path | None) -> Maker:
    from hunyuan_video.apps.study import ByEndpoint
    from hunyuan_video.evaluation.endpoint import Endpoint

    how = parse(EndpointSettings, asked.flags, "hunyuan-video evaluate run")
    body = {name: value for name in IN_BODY if (value := getattr(how, name)) is not None}
    return ByEndpoint(Endpoint(asked.place, body, os.environ.get(how.key), how.seeds, how.in_flight, how.pause))
