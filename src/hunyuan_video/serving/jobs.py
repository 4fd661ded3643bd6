"""A job: an order for one video with nothing left open, and how far it has come. Values only; `store` keeps them.

An order is complete when it is accepted (the seed is drawn, the weights' defaults are filled in), so that whichever worker makes it, today
or after a restart, makes the same video.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hunyuan_video.config import FullSampling, check_prompt, check_types, require
from hunyuan_video.request import Rewriting

Status = Literal["queued", "in_progress", "completed", "failed"]
ACTIVE: tuple[Status, ...] = ("queued", "in_progress")
# Why a job failed, for programs; `message` is for people.
CANCELLED, CRASHED, EXPIRED, NO_SPACE, OUT_OF_MEMORY, REFUSED, INTERNAL = (
    "cancelled", "worker_crashed", "expired", "insufficient_storage", "out_of_memory", "invalid_request", "server_error",
)  # fmt: skip


@dataclass(frozen=True)
class NamedLora:
    """A LoRA of the operator's folder, by its name there, and how strongly it acts (as `Strengths.parse` reads it)."""

    name: str
    strengths: str = "1"

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class NamedPicture:
    """A picture that is seen at a frame of a video."""

    frame: int
    """from 0; -1 is the last"""
    name: str
    """of `Results`"""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class Order:
    """What is to be made. Pictures are files of `Results`, by name."""

    prompt: str
    sampling: FullSampling
    negative_prompt: str | None = None
    image: str | None = None
    """of `Results`: the picture to begin with"""
    loras: tuple[NamedLora, ...] = ()
    rewritten: Rewriting | None = None
    """how the prompt came about, if not as it was typed"""
    notice: str | None = None
    """what did not go as asked when it was ordered"""
    keyframes: tuple[NamedPicture, ...] = ()
    """pictures at other frames"""
    lead: str | None = None
    """of `Results`: the frames to begin with"""
    clip: str | None = None
    """of `Results`: the frames that it is made of"""

    def __post_init__(self) -> None:
        check_types(self)
        check_prompt(self.prompt)

    @property
    def media(self) -> tuple[str, ...]:
        """All that it needs of `Results`."""
        return tuple(name for name in (self.image, self.lead, self.clip, *(each.name for each in self.keyframes)) if name is not None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Order:
        """Raises a ValueError for what this version does not know."""
        try:
            given = dict(values)
            given["sampling"] = FullSampling(**given["sampling"])
            given["rewritten"] = None if given.get("rewritten") is None else Rewriting(**given["rewritten"])
            given["keyframes"] = tuple(NamedPicture(**picture) for picture in given.get("keyframes", ()))
            given["loras"] = tuple(NamedLora(**lora) for lora in given.get("loras", ()))
            return cls(**given)
        except (TypeError, KeyError) as error:
            raise ValueError(f"The job is of another version of this program ({error}); ask for the video again.") from error


@dataclass(frozen=True)
class Job:
    """A job as it stands in the database. Times are in seconds since 1970."""

    id: str
    owner: str
    """the name of the key that asked for it"""
    status: Status
    progress: int
    """per cent"""
    created_at: float
    started_at: float | None
    """when its last attempt was"""
    completed_at: float | None
    """also of a failure"""
    expires_at: float | None
    """when it is forgotten, with its files"""
    model: str
    """as the client named it"""
    order: Order
    remixed_from: str | None
    error_code: str | None
    error_message: str | None
    attempt: int
    """how often it was begun; also the number by which a worker that lost its lease is known"""
    crashes: int
    """how many of these ended with their worker"""
    worker: str | None
    cancelling: bool
    stage: str | None
    """of the pipeline: encode, denoise or decode"""
    step: int
    total: int
    state: str | None
    """of `Results`: latents to go on from, after `state_step` steps"""
    state_step: int
    files: dict[str, str]
    """of `Results`, by what they are: video, thumbnail, spritesheet, and while it is made preview"""
    provenance: dict[str, Any] | None
    webhook: str | None

    @property
    def is_over(self) -> bool:
        return self.status not in ACTIVE


@dataclass(frozen=True)
class NewJob:
    """What a client asks the store to keep."""

    id: str
    owner: str
    model: str
    order: Order
    remixed_from: str | None = None
    webhook: str | None = None
    idempotency_key: str | None = None
    """the same one from the same owner is the same job"""
    digest: str = ""
    """of what was asked with that key"""


@dataclass(frozen=True)
class Claim:
    """A job that a worker has for as long as it renews its lease."""

    job: Job
    worker: str

    @property
    def folder(self) -> str:
        """Where this attempt's files go: those of one that was given up never meet those of the next."""
        return f"{self.job.id}/{self.job.attempt}"


@dataclass(frozen=True)
class Event:
    """Something that happened to a job: its `data` for whoever follows it. Numbers of one job rise."""

    number: int
    kind: Literal["queued", "step", "preview", "completed", "failed", "resumed"]
    at: float
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Worker:
    """A worker that has been heard of."""

    id: str
    model: str
    seen_at: float
    job: str | None
    memory: int | None = None
    """bytes that it has taken at most, if it says so"""


@dataclass(frozen=True)
class Delivery:
    """A webhook to deliver; a `number` that the receiver sees again when it is sent again."""

    number: int
    job: str
    url: str
    kind: Literal["video.completed", "video.failed"]
    created_at: float
    tries: int


class QueueFullError(RuntimeError):
    """No more jobs are taken until others are done; `retry_after` is a guess in seconds."""

    def __init__(self, sentence: str, retry_after: int):
        super().__init__(sentence)
        self.retry_after = retry_after


class LeaseLostError(RuntimeError):
    """Another worker has the job now, or nobody: what was made of it is not wanted."""


class KeyReusedError(ValueError):
    """An Idempotency-Key came with something else than before."""


def check_id(job_id: str) -> bool:
    """Whether it can be the id of a job."""
    return job_id.startswith("video_") and len(job_id) == 38 and all(letter in "0123456789abcdef" for letter in job_id[6:])


def progress_of(stage: str, step: int, total: int) -> int:
    """Per cent of a job, of which nine tenths are denoising; 100 is only for a finished one."""
    require(total > 0, f"{stage} has {total} steps; it must have 1 or more.")
    before, share = {"encode": (0, 2), "denoise": (2, 88), "decode": (90, 9)}[stage]
    return before + share * step // total
