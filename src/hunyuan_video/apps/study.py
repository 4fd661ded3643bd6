"""Makes the clips of a study: one a prompt by each system, none picked, going on where an earlier run stopped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tqdm import tqdm

from hunyuan_video import video, weights
from hunyuan_video.apps.generate import with_progress
from hunyuan_video.checkpoint import identity
from hunyuan_video.config import Runtime, Sampling
from hunyuan_video.evaluation import endpoint, folder
from hunyuan_video.evaluation.study import Kind, Prompt, Source, Study, System
from hunyuan_video.files import check_writable, sha256
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.recording import Recording
from hunyuan_video.request import Adapter, Request

log = logging.getLogger(__name__)

CRF = 10  # so little is lost in the file that nobody judges that


class IncompleteError(OSError):
    """Some clips could not be made."""


@runtime_checkable
class Maker(Protocol):
    """What makes the clips of one system."""

    @property
    def kind(self) -> Kind: ...

    def made_with(self, prompts: tuple[Prompt, ...]) -> Mapping[str, Any]:
        """What they depend on. Raises an error for what cannot be made."""
        ...

    def make(self, study: Study, name: str) -> None:
        """Those that are missing. Raises a IncompleteError if some could not be made."""
        ...


def run(into: Path, source: Source, prompts: tuple[Prompt, ...], seed: int, makers: Mapping[str, Maker]) -> Study:
    """The study in the folder `into`, with all clips of these systems, and those of others that it has.

    Raises:
        ValueError: the folder has another study, or other systems of these names.
        IncompleteError: clips could not be made; the same call tries again.
    """
    check_writable(into / "clips" / "clip.mp4")
    systems = [System(name, maker.kind, maker.made_with(prompts)) for name, maker in makers.items()]  # all are checked before one works
    study = Study.create(into, source, prompts, seed).with_systems(systems)
    failures: list[IncompleteError] = []
    for name, maker in makers.items():
        there = len(prompts) - len(study.missing(name))
        log.info("%s: %d of %d clips are there.", name, there, len(prompts))
        try:
            if there < len(prompts):
                maker.make(study, name)
        except IncompleteError as error:  # what one server refuses to make, and will refuse again, keeps no other system waiting
            failures.append(error)
    if failures:
        raise IncompleteError(" ".join(map(str, failures)))
    return study


@dataclass(frozen=True)
class ByWeights:
    """This program's own, in this process."""

    found: weights.Weights
    runtime: Runtime
    sampling: Sampling
    negative_prompt: str | None = None
    adapters: tuple[Adapter, ...] = ()

    kind: Kind = "weights"

    def made_with(self, prompts: tuple[Prompt, ...]) -> Mapping[str, Any]:
        self.found.check(self._request(prompts[0], 0))
        sampling = asdict(self._request(prompts[0], 0).complete(self.found.sampling()))
        plain = asdict(Runtime())
        return {
            "model": identity.of_model(self.found),
            "transformer": self.found.transformer.name,
            "sampling": {key: value for key, value in sampling.items() if key != "seed"},
            "runtime": {key: value for key, value in asdict(self.runtime).items() if value != plain[key]},
            "negative_prompt": self.negative_prompt,
            "adapters": [
                {"name": each.path.name, "sha256": sha256(weights.lora_file(each.path)), "strengths": asdict(each.strengths)}
                for each in self.adapters
            ],
        }

    def make(self, study: Study, name: str) -> None:
        missing = study.missing(name)
        pipe = HunyuanVideo.load(self.found, self.runtime, self.sampling, self.adapters)
        for prompt in tqdm(missing, desc=name, unit="clip", disable=None):
            self._clip(pipe, self._request(prompt, study.seed_of(prompt.id)), study.clip(name, prompt.id))

    def _request(self, prompt: Prompt, seed: int) -> Request:
        return Request(prompt.prompt, replace(self.sampling, seed=seed), self.negative_prompt, adapters=self.adapters)

    def _clip(self, pipe: HunyuanVideo, request: Request, path: Path) -> None:
        last = None
        with Recording(path.suffix, crf=CRF) as recording:
            for last in with_progress(pipe.steps(request)):
                if last.new_frames is not None:
                    recording.add(last.new_frames)
            assert last is not None
            video.save_recording(recording, path, metadata=last.provenance.to_json())


@dataclass(frozen=True)
class ByFolder:
    """Another system's clips."""

    path: Path

    kind: Kind = "folder"

    def made_with(self, prompts: tuple[Prompt, ...]) -> Mapping[str, Any]:
        clips = folder.match(self.path, prompts)
        folder.warn_of_others(clips, prompts)
        return {"folder": self.path.name, "sha256": folder.digest(clips)}

    def make(self, study: Study, name: str) -> None:
        folder.bring(study, name, folder.match(self.path, study.prompts))


@dataclass(frozen=True)
class ByEndpoint:
    """A server with OpenAI's videos API."""

    server: endpoint.Endpoint

    kind: Kind = "endpoint"

    def made_with(self, prompts: tuple[Prompt, ...]) -> Mapping[str, Any]:
        return {"url": self.server.url, **self.server.body, "seeds": self.server.seeds}

    def make(self, study: Study, name: str) -> None:
        failed = 0
        with tqdm(total=len(study.missing(name)), desc=name, unit="clip", disable=None) as bar:
            for _, reason in endpoint.fetch(study, name, self.server):
                failed += reason is not None
                bar.update()
        if failed:
            raise IncompleteError(
                f"{failed} of {len(study.prompts)} clips of {name} were not made; {study.folder / 'failures.jsonl'} says why, and the same "
                "command tries again."
            )
